"""What specs name on the hub, and how much of it."""

import random
from typing import Annotated, Literal

from pydantic import Field

from harness.spec.base import Count, Hub, Seed, Spec, if_set


class HubData(Hub):
    """A data set on the hub."""

    config: str | None = None
    split: Annotated[str, Field(pattern="^[\\w.-]+$")] = "train"


class Sample(Spec):
    """A seeded subset."""

    k: Count
    seed: Seed = 42
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
    name: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    system: str | None = None
    messages: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    rating: str | None = None
    is_classification: str | None = None
