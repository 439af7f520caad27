"""What a recipe gives back."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.data.dataset import DatasetExample, Filter


class ClosedClient(Protocol):
    """What is asked of a closed harness.llm.client.Client; recipes without one do not import it."""

    @property
    def served_models(self) -> list[str]: ...

    @property
    def simulated(self) -> bool: ...

    def cost(self) -> dict[str, float]: ...


@dataclass
class RecipeResult:
    """A data set and how it came about. Of this harness.gen.run makes the artefact."""

    examples: list[DatasetExample]
    filters: list[Filter] = field(default_factory=list)
    """What each step proposed, dropped and kept, in order."""
    dropped: list[dict[str, Any]] = field(default_factory=list)
    """A row for dropped.jsonl for each candidate that was dropped: step, rule, and its content."""
    files: list[str] = field(default_factory=list)
    """Other files, in the work folder, that belong to the artefact."""
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)
    used: dict[str, Any] = field(default_factory=dict)
    client: ClosedClient | None = None
    """The closed client of a recipe that called a model."""
    before: list[DatasetExample] | None = None
    """The examples as they were, for a recipe that rewrites: the card compares their lengths."""
