"""One prompt asked again and again."""

from math import ceil
from typing import Annotated, Literal

from pydantic import Field

from harness.artefact.keys import Files
from harness.gen.spec import Similarity, Taught
from harness.llm.estimate import (
    TOKENS_PER_INSTRUCTION,
    TOKENS_PER_TASK,
    Estimate,
    count_records,
    count_tokens,
    estimate_calls,
)
from harness.spec.base import Count, Data, Sampling, Seed, TextFile


class NaiveGen(Taught):
    """The naive method of seeds/003, section 2.1: more tasks from names and instructions (prompt 1),
    more instances for the given tasks (prompt 2), instances for the new tasks (prompt 3).

    The study states the prompts, that prompt 1 doubled the tasks, that prompt 2 asks for two
    instances and prompt 3 for five. How many pairs a prompt shows, and all sampling, it leaves open.
    """

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
    max_requests: Count | None = None
    """Of prompt 1; left open: 20 + 4 times one for each `shown` wanted tasks."""
    given_instances: Count = 2
    """New instances at most taken for a given task."""
    new_instances: Count = 5
    """Instances at most taken for a new task."""
    max_similarity: Similarity = 1.0
    """As in other recipes; the study says nothing of a filter, so only exact repeats go."""
    sampling: Sampling = Sampling()
    include_seeds: bool = True
    seed: Seed = 42


def estimate_naive(gen: NaiveGen, files: Files, examples: int) -> Estimate:
    seeds = count_records(gen.seeds, files)
    new = round(gen.growth * seeds)
    pairs = gen.shown * TOKENS_PER_INSTRUCTION
    tasks = estimate_calls(ceil(new / gen.shown), count_tokens(gen.tasks_prompt) + pairs, pairs)
    more = estimate_calls(
        seeds,
        count_tokens(gen.given_prompt) + TOKENS_PER_TASK,
        (1 + gen.given_instances) * TOKENS_PER_TASK,
    )
    fresh = estimate_calls(
        new,
        count_tokens(gen.new_prompt) + TOKENS_PER_TASK + TOKENS_PER_INSTRUCTION,
        gen.new_instances * TOKENS_PER_TASK,
        seeds * (gen.include_seeds + gen.given_instances) + new * gen.new_instances,
    )
    return tasks + more + fresh
