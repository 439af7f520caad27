"""What specs name on the hub, and how much of it."""

from typing import Annotated

from pydantic import Field

from harness.spec.base import Count, Hub, Seed, Spec


class HubData(Hub):
    """A data set on the hub."""

    config: str | None = None
    split: Annotated[str, Field(pattern="^[\\w.-]+$")] = "train"


class Sample(Spec):
    """A seeded subset, in the file's order."""

    k: Count
    seed: Seed = 42
