"""What specs name on the hub, and how much of it."""

import random
from typing import Annotated, Literal

from pydantic import Field

from harness.spec.base import Count, Hub, Seed, Spec, if_set


class HubData(Hub):
    """A data set on the hub."""

    config: str | None = None
    """One of the data set's configs (subsets); left open: its only one."""
    split: Annotated[str, Field(pattern="^[\\w.-]+$")] = "train"
    """One of its splits."""


class Sample(Spec):
    """A seeded subset."""

    k: Count
    """How many."""
    seed: Seed = 42
    """Of the draw."""
    by: Literal["random", "datasets"] = if_set("random")
    """random: of the rows that can be used, in the file's order. datasets: of all rows, in the order
    drawn, the very ones of `Dataset.shuffle(seed).select(range(k))` of the package datasets."""

    def draw(self, rows: int) -> list[int]:
        """The numbers of the rows, of which there are at least k."""
        if self.by == "random":
            return sorted(random.Random(self.seed).sample(range(rows), self.k))
        import numpy as np

        # As datasets.Dataset.shuffle (3.0): a permutation by numpy's default generator.
        return [
            int(number) for number in np.random.default_rng(self.seed).permutation(rows)[: self.k]
        ]


class Columns(Spec):
    """Which column holds what. Left open: the usual names are looked for."""

    id: str | None = None
    """What tells records apart."""
    name: str | None = None
    """The task's name."""
    instruction: str | None = None
    """The instruction."""
    input: str | None = None
    """The instruction's input."""
    output: str | None = None
    """The answer."""
    system: str | None = None
    """The system text."""
    messages: str | None = None
    """A conversation: a list of messages with role and content."""
    chosen: str | None = None
    """Of preference data: the better answer."""
    rejected: str | None = None
    """Of preference data: the other answer."""
    rating: str | None = None
    """A number by which `select` chooses."""
    is_classification: str | None = None
    """Whether it is a classification task."""
