"""One prompt asked again and again."""

from math import ceil
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data.dataset import DatasetExample
from harness.errors import InputError
from harness.gen.filters import Similarity
from harness.gen.recipe import RecipeResult, Seeded, Taught
from harness.gen.seeds import FAULTS_SHOWN, SeedTask, check_count
from harness.llm.estimate import (
    TOKENS_PER_INSTRUCTION,
    TOKENS_PER_TASK,
    Estimate,
    count_records,
    count_tokens,
    estimate_calls,
)
from harness.spec.base import Count, Data, Sampling, Seed, TextFile


class NaiveGen(Seeded, Taught):
    """The naive method of seeds/003, section 2.1: more tasks from names and instructions (prompt 1),
    more instances for the given tasks (prompt 2), instances for the new tasks (prompt 3).

    The study states the prompts, that prompt 1 doubled the tasks, that prompt 2 asks for two
    instances and prompt 3 for five. How many pairs a prompt shows, and all sampling, it leaves open.
    """

    code_version: ClassVar[int] = 1
    recipe: Literal["naive"] = "naive"
    seeds: Data
    """Seed tasks in Self-Instruct's JSONL format, with names."""
    tasks_prompt: TextFile
    """Prompt 1; {examples} stands for the shown pairs, which else follow it."""
    given_prompt: TextFile
    """Prompt 2; {task} stands for the task's line, which else follows it."""
    new_prompt: TextFile
    """Prompt 3; {example} and {task} stand for the lines, which else follow it."""
    growth: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """New tasks for each given one; 1 doubles them, as the study did. 0: none."""
    shown: Count = 10
    """Pairs that prompt 1 shows."""
    requests_per_round: Count = 5
    """Requests of prompt 1 that are out at a time; their replies are taken in order."""
    max_requests: Count | None = None
    """Of prompt 1; left open: 20 + 4 times one for each `shown` wanted tasks."""
    given_instances: Count = 2
    """New instances at most taken for a given task."""
    new_instances: Count = 5
    """Instances at most taken for a new task."""
    max_similarity: Similarity = 1.0
    """As in other recipes; the study says nothing of a filter, so only exact repeats go."""
    sampling: Sampling = Sampling()
    """Decoding parameters of the teacher's replies."""
    include_seeds: bool = True
    """Whether the given tasks themselves stand in the data set."""
    seed: Seed = 42
    """Of the draw of the pairs that prompt 1 shows."""

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        from harness.gen.recipes.naive.recipe import make

        return make(call, self)

    def seed_tasks(self) -> list[SeedTask]:
        seeds = super().seed_tasks()
        nameless = [seed.id for seed in seeds if not seed.name.strip()]
        if nameless:
            more = ", ..." if len(nameless) > FAULTS_SHOWN else ""
            raise InputError(
                f"{len(nameless)} of {len(seeds)} seeds have no name, which the prompts show: "
                f"{', '.join(nameless[:FAULTS_SHOWN])}{more}",
                hint="give each seed task a `name`",
            )
        check_count("gen.shown", self.shown if self.growth else 0, "pairs", seeds)
        return seeds

    def estimate(self, files: Files, examples: int) -> Estimate:
        seeds = count_records(self.seeds, files)
        new = round(self.growth * seeds)
        pairs = self.shown * TOKENS_PER_INSTRUCTION
        tasks = estimate_calls(
            ceil(new / self.shown), count_tokens(self.tasks_prompt) + pairs, pairs
        )
        more = estimate_calls(
            seeds,
            count_tokens(self.given_prompt) + TOKENS_PER_TASK,
            (1 + self.given_instances) * TOKENS_PER_TASK,
        )
        fresh = estimate_calls(
            new,
            count_tokens(self.new_prompt) + TOKENS_PER_TASK + TOKENS_PER_INSTRUCTION,
            self.new_instances * TOKENS_PER_TASK,
            seeds * (self.include_seeds + self.given_instances) + new * self.new_instances,
        )
        return tasks + more + fresh

    def twin(self, smoke: Path) -> Self:
        return super().twin(smoke).model_copy(update={"growth": min(self.growth, 1.0)})
