"""Stanford Alpaca's recipe."""

from math import ceil
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data.dataset import DatasetExample
from harness.gen.filters import ALPACA_BLACKLIST, InstructionFilter
from harness.gen.recipe import RecipeResult, Seeded, Taught
from harness.gen.seeds import SeedTask, check_count
from harness.llm.estimate import (
    TOKENS_PER_TASK,
    Estimate,
    count_records,
    count_tokens,
    estimate_calls,
)
from harness.spec.base import Count, Data, Sampling, Seed, TextFile, with_fields
from harness.spec.twin import EXAMPLES


class AlpacaGen(Seeded, Taught):
    """Data generation as Stanford Alpaca did it: each reply holds several whole tasks.

    Defaults from stanford_alpaca 761dc5bf, but the teacher and the wording of the prompt.
    """

    code_version: ClassVar[int] = 2
    estimates_limit: ClassVar[bool] = True
    recipe: Literal["alpaca"] = "alpaca"
    seeds: Data
    """Seed tasks in Self-Instruct's JSONL format."""
    prompt: Annotated[TextFile, with_fields("examples", "next")]
    """Template with {count}, {shown}, {examples} and {next}; see specs/smoke/prompts/tasks.txt."""
    examples: Count
    """Machine-made examples to keep."""
    shown: Count = 3
    """Seed tasks in a prompt."""
    tasks_per_reply: Count = 20
    """New tasks that a prompt asks for, {count} in it."""
    requests_per_round: Count = 5
    """Requests that are out at a time; their replies are taken in order."""
    max_requests: Count | None = None
    """Where to stop when too few replies hold anything new; left open: 20 + 4 times the ideal."""
    filter: InstructionFilter = InstructionFilter(blacklist=ALPACA_BLACKLIST)
    """Which of the new tasks are dropped."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=3072)
    """Decoding parameters of the teacher's replies."""
    include_seeds: bool = True
    """Whether the seed tasks themselves stand in the data set."""
    seed: Seed = 42
    """Of the draw of the seed tasks that a prompt shows."""

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        from harness.gen.recipes.alpaca.recipe import make

        return make(call, self)

    def seed_tasks(self) -> list[SeedTask]:
        seeds = super().seed_tasks()
        check_count("gen.shown", self.shown, "examples", seeds)
        return seeds

    def estimate(self, files: Files, examples: int) -> Estimate:
        calls = ceil(self.examples / self.tasks_per_reply)
        per_reply = self.tasks_per_reply * TOKENS_PER_TASK
        most = self.sampling.max_tokens or per_reply
        prompt = count_tokens(self.prompt) + self.shown * TOKENS_PER_TASK
        seeds = count_records(self.seeds, files) if self.include_seeds else 0
        return estimate_calls(calls, prompt, min(per_reply, most), self.examples + seeds)

    def twin(self, smoke: Path) -> Self:
        examples = min(self.examples, EXAMPLES)
        return super().twin(smoke).model_copy(update={"examples": examples})
