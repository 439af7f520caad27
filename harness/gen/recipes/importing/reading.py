"""What a step imports, known before it runs."""

from pathlib import Path

from harness.artefact.keys import Files
from harness.data.records import without_collector
from harness.data.tables import Table, read_files
from harness.errors import InputError
from harness.gen.reading import Reading, cached_reading
from harness.gen.recipes.importing import ImportGen
from harness.gen.recipes.importing import recipe as importing
from harness.spec.base import Data


def read_import(gen: ImportGen, file: Data, files: Files) -> Reading:
    """Of the file that a step imports. Raises as `Recipe.readings`."""
    path = files.locate(file)
    try:
        return cached_reading(files, file, gen, gen.code_version, lambda: _read_import(gen, path))
    except ImportError as e:  # of Parquet's reader, which the core can do without
        return Reading(path.name, unread=f"the package {e.name} is not installed here")


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
            f"{table.name}: none of its {rows.proposed} rows can be used ({rows.in_words()})",
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
        rows.in_words(),
        notes,
    )
