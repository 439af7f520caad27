"""Stanford Alpaca's recipe."""

from math import ceil
from typing import Annotated, Literal

from harness.artefact.keys import Files
from harness.gen.spec import ALPACA_BLACKLIST, InstructionFilter, Taught
from harness.llm.estimate import (
    TOKENS_PER_TASK,
    Estimate,
    count_records,
    count_tokens,
    estimate_calls,
)
from harness.spec.base import Count, Data, Sampling, Seed, TextFile, with_fields


class AlpacaGen(Taught):
    """Data generation as Stanford Alpaca did it: each reply holds several whole tasks.

    Defaults from stanford_alpaca 761dc5bf, but the teacher and the wording of the prompt.
    """

    recipe: Literal["alpaca"] = "alpaca"
    seeds: Data
    """Seed tasks in Self-Instruct's JSONL format."""
    prompt: Annotated[TextFile, with_fields("examples", "next")]
    """Template with {count}, {shown}, {examples} and {next}; see specs/smoke/prompts/tasks.txt."""
    examples: Count
    """Machine-made examples to keep."""
    shown: Count = 3
    tasks_per_reply: Count = 20
    requests_per_round: Count = 5
    max_requests: Count | None = None
    """Where to stop when too few replies hold anything new; left open: 20 + 4 times the ideal."""
    filter: InstructionFilter = InstructionFilter(blacklist=ALPACA_BLACKLIST)
    sampling: Sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=3072)
    include_seeds: bool = True
    """Whether the seed tasks themselves stand in the data set."""
    seed: Seed = 42


def estimate_alpaca(gen: AlpacaGen, files: Files, examples: int) -> Estimate:
    calls = ceil(gen.examples / gen.tasks_per_reply)
    per_reply = gen.tasks_per_reply * TOKENS_PER_TASK
    most = gen.sampling.max_tokens or per_reply
    prompt = count_tokens(gen.prompt) + gen.shown * TOKENS_PER_TASK
    seeds = count_records(gen.seeds, files) if gen.include_seeds else 0
    return estimate_calls(calls, prompt, min(per_reply, most), gen.examples + seeds)
