"""What is known of a file of examples before a stage reads it."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.artefact.environment import CODE_VERSIONS
from harness.artefact.keys import Files, digest_of, key_view
from harness.data.records import without_collector
from harness.data.tables import Table, read_files
from harness.errors import InputError
from harness.gen.recipes.importing import ImportGen
from harness.gen.recipes.importing import recipe as importing
from harness.spec.base import Data


@dataclass(frozen=True)
class Reading:
    """What one file holds for the stage that reads it."""

    name: str
    records: int = 0
    layout: str = ""
    examples: int = 0
    """What the stage leaves of them; of a sample, the sample."""
    dropped: int = 0
    rules: str = ""
    """How many of those each rule drops, in words."""
    notes: Sequence[str] = ()
    unread: str = ""
    """Why nothing of this is known."""

    def __str__(self) -> str:
        if self.unread:
            return f"{self.name}: not looked at: {self.unread}"
        text = f"{self.name}: {self.records:,} records ({self.layout})"
        if self.dropped:
            text += f", {self.dropped:,} will be dropped: {self.rules}"
        return "; ".join([text, *self.notes])


def read_import(gen: ImportGen, files: Files) -> Reading:
    """Of the file that a step imports. Raises as `read`."""
    assert gen.file is not None
    path = files.locate(gen.file)
    try:
        return cached_reading(files, gen.file, gen, lambda: _read_import(gen, path))
    except ImportError as e:  # of Parquet's reader, which the core can do without
        return Reading(path.name, unread=f"the package {e.name} is not installed here")


def cached_reading(files: Files, data: Data, settings: Any, make: Callable[[], Reading]) -> Reading:
    """A reading, from the volume's memory where these bytes were read so before."""
    versions = [CODE_VERSIONS["gen/import"], CODE_VERSIONS["train"]]
    decides = [versions, files.locate(data).name, key_view(settings, files), files.digest(data)]
    cached = files.cached(
        digest_of(["reading", *decides]), lambda: json.dumps(dataclasses.asdict(make()))
    )
    return Reading(**json.loads(cached))


@without_collector()
def _read_import(gen: ImportGen, path: Path) -> Reading:
    return of_table(gen, read_files(path, importing.wanted(gen)), path.name)


def of_table(gen: ImportGen, table: Table, name: str) -> Reading:
    """What a step imports from a table. Raises InputError where the stage would refuse it, or drop
    all of it."""
    result = importing.import_table(table, gen)
    rows = result.filters[0]
    if not result.examples:
        raise InputError(
            f"{table.name}: none of its {rows.proposed} rows can be used ({rows.tally()})",
            "Name the columns in gen.columns, or mend the file.",
        )
    column_names = ", ".join(result.used["columns"].values())
    layout = f"{result.used['layout']}: {column_names}"
    notes = tuple(note for note in result.notes if note != importing.drop_note(rows))
    return Reading(
        name,
        rows.proposed,
        layout,
        len(result.examples),
        rows.dropped.total(),
        rows.tally(),
        notes,
    )
