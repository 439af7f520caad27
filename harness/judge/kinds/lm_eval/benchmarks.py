"""What the Open LLM Leaderboard (v1) ran: the shots, splits and metrics of its tasks.

Shots and the split that they come from are those of lm-eval's group `openllm`. A test compares the two.
"""

from typing import NamedTuple


class Benchmark(NamedTuple):
    config: str
    """The data set's configuration on the hub: a folder of its repository. Of MMLU, each subject's."""
    split: str
    """Where the questions come from."""
    shots: int
    shots_split: str | None
    metric: str
    """lm-eval's name of it. `acc_norm`: the answer with the highest log-likelihood a character."""


MMLU = "mmlu"
AVERAGE = "average"
"""Of the four; given only where all are there."""
BENCHMARKS = {
    "arc_challenge": Benchmark("ARC-Challenge", "test", 25, "train", "acc_norm"),
    "hellaswag": Benchmark("default", "validation", 10, "train", "acc_norm"),
    MMLU: Benchmark("", "test", 5, "dev", "acc"),
    "truthfulqa_mc2": Benchmark("multiple_choice", "validation", 0, None, "acc"),
}
"""MMLU stands for its subjects, which lm-eval has as tasks named mmlu_SUBJECT."""
PREFIX = "mmlu_"
SUBJECTS = 57


def benchmark_of(unit: str) -> str:
    """The leaderboard's task that one of lm-eval's tasks is (a part) of."""
    return MMLU if unit.startswith(PREFIX) else unit
