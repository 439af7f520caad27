"""What the training data that a row gives holds, before anything runs: read as the stages read it."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from harness.modeling.examples import Examples, file_of, read_examples, told
from harness.modeling.pieces import pieces
from harness.row.row import Row
from harness.spec.base import Data
from harness.spec.template import Template


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


def read(stage: str, params: Mapping[str, Any], files: Files) -> list[Reading]:
    """What is known of the files that a gen or train stage reads as examples; of others nothing.

    Raises:
        InputError: the stage would refuse one, or drop all of it. With file and line.
        DataAbsent: one is not there.
    """
    gen = params.get("gen")
    if isinstance(gen, ImportGen) and gen.file is not None:
        return [read_import(gen, files)]
    if stage != "train":
        return []
    train, template = params["train"], params["template"]
    held_out = train.validation.file if train.validation else None
    pairs = train.objective == "orpo"
    return [
        _cached(
            files,
            data,
            [train.objective, template],
            functools.partial(_read_data, file_of(files.locate(data)), pairs, template),
        )
        for data in (params.get("data"), held_out)
        if data is not None
    ]


def of_row(row: Row, files: Files) -> Iterator[Reading]:
    """Of every file that a row reads as examples. Raises as `read`."""
    for step in row.gen or []:
        yield from read("gen", {"gen": step}, files)
    if row.train is not None:
        yield from read(
            "train", {"train": row.train, "template": row.template, "data": row.data}, files
        )


def read_import(gen: ImportGen, files: Files) -> Reading:
    """Of the file that a step imports. Raises as `read`."""
    assert gen.file is not None
    path = files.locate(gen.file)
    try:
        return _cached(files, gen.file, gen, lambda: _read_import(gen, path))
    except ImportError as e:  # of Parquet's reader, which the core can do without
        return Reading(path.name, unread=f"the package {e.name} is not installed here")


def _cached(files: Files, data: Data, settings: Any, make: Callable[[], Reading]) -> Reading:
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


@without_collector()
def _read_data(path: Path, pairs: bool, template: Template) -> Reading:
    examples = read_examples(path, pairs)
    _check_template(examples, template)
    names = ("instruction", "input", "chosen", "rejected", "output", "system", "history")
    layout = ", ".join(name for name in names if name in examples.columns)
    held = sum(
        any(special in answer for special in template.special for answer in task.answers)
        for task in examples.tasks
    )
    notes = (f"{held:,} have one of the template's tokens in the text of an answer",) * bool(held)
    return Reading(
        path.name,
        examples.records,
        layout,
        len(examples.tasks),
        examples.dropped.total(),
        told(examples.dropped),
        notes,
    )


def _check_template(examples: Examples, template: Template) -> None:
    """Raises InputError for a record that the template has no place for, as far as it is known before
    the tokenizer is there."""
    if template.from_tokenizer:
        return
    for task in examples.tasks:
        if task.system or task.history:
            try:
                pieces(template, "", "", "", task.system, task.history)
            except InputError as e:
                raise InputError(f"{task.where}: {e.message}", e.hint) from None
