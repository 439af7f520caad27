"""What Self-Instruct's steps share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.data.dataset import Lineage
from harness.data.dropped import Tally

RECIPE = "self_instruct"


class GeneratedTask(NamedTuple):
    """A new instruction, and whether it is a classification task, once that is known."""

    id: str
    instruction: str
    lineage: Sequence[Lineage]
    is_classification: bool = False


@dataclass
class StepResult:
    """What a step leaves for the artefact: the rows of its own file, and what became of what."""

    file: str
    tally: Tally
    rows: list[Mapping[str, object]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "StepResult") -> None:
        """What the same step did of later tasks."""
        self.tally.kept += other.tally.kept
        self.tally.dropped += other.tally.dropped
        self.tally.rows += other.tally.rows
        self.rows += other.rows
        self.notes += other.notes
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
