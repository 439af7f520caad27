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
