"""A data set: one schema for every recipe, one JSON line an example, each with its lineage.

Instruction data has the fields id, name, instruction, input, output, system, history,
is_classification, rating, origin, simulated, lineage. Preference data has chosen and rejected in
place of output. A row of which earlier answers are marked as not to be trained on has also their
numbers, untrained_turns.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.data.records import read_records, without_collector

DATA, DROPPED = "data.jsonl", "dropped.jsonl"

Origin = Literal["seed", "generated", "imported"]


class Lineage(NamedTuple):
    """What one step did for an example.

    requests: lines of that step's transcript, from 0. seeds: ids of the examples that were shown.
    """

    recipe: str
    step: str
    requests: Sequence[int] = ()
    seeds: Sequence[str] = ()


@dataclass(frozen=True)
class DatasetExample:
    """One example. `chosen` and `rejected` are None in instruction data, `output` is "" in
    preference data."""

    id: str
    instruction: str
    input: str = ""
    output: str = ""
    chosen: str | None = None
    rejected: str | None = None
    name: str = ""
    system: str = ""
    history: Sequence[Sequence[str]] = ()
    """Earlier turns: (user, assistant) pairs, oldest first."""
    untrained_turns: Sequence[int] = ()
    """Numbers of those, from 0, whose answer no training is to learn."""
    is_classification: bool | None = None
    """None where it is not known."""
    rating: float | None = None
    origin: Origin = "generated"
    simulated: bool = False
    """Whether a simulated teacher or judge had a hand in it; a copy of the file says so too."""
    lineage: Sequence[Lineage] = ()

    @property
    def is_preference(self) -> bool:
        return self.chosen is not None

    def after(self, step: Lineage, **changes: Any) -> "DatasetExample":
        """The example as one more step left it."""
        return dataclasses.replace(self, **changes, lineage=(*self.lineage, step))

    def row(self) -> Mapping[str, object]:
        """The example as it stands in data.jsonl."""
        pair = {"chosen": self.chosen, "rejected": self.rejected}
        return {
            "id": self.id,
            "name": self.name,
            "instruction": self.instruction,
            "input": self.input,
            **(pair if self.is_preference else {"output": self.output}),
            "system": self.system,
            "history": [list(turn) for turn in self.history],
            **({"untrained_turns": list(self.untrained_turns)} if self.untrained_turns else {}),
            "is_classification": self.is_classification,
            "rating": self.rating,
            "origin": self.origin,
            "simulated": self.simulated,
            "lineage": [
                {**step._asdict(), "requests": list(step.requests), "seeds": list(step.seeds)}
                for step in self.lineage
            ],
        }


@without_collector()
def read(path: Path) -> list[DatasetExample]:
    """The examples of a data set that a gen step wrote."""
    rows = (record.fields for record in read_records(path))
    return [
        DatasetExample(**{**row, "lineage": tuple(Lineage(**step) for step in row["lineage"])})
        for row in rows
    ]


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write JSON lines; whoever finds the file finds all of it."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    part.replace(path)
