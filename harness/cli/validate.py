"""`harness validate`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import SPECS
from harness.cli.workspace import echo, inputs_folder, load_specs
from harness.errors import DataAbsent, Faults, InputError, NotFetched

if TYPE_CHECKING:
    from harness.row.load import LoadedRow

Told = dict[tuple[str, str], str]
"""Where a fault is, and what it is -> the hint."""


@click.command()
@SPECS
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    help="Folder of given data: check also that what the specs name is there, and has its sha256.",
)
def validate(specs: tuple[Path, ...], inputs: Path | None) -> None:
    """Check specs and report every fault.

    With file, line and column, the value at hand and what is allowed.
    """
    from harness.report.layout import layouts_beside

    rows = load_specs(specs)
    for folder in dict.fromkeys(row.path.parent for row in rows):
        layouts_beside(folder)
    faults: Told = {}
    summary = f"; {_check_given(rows, inputs, faults)}" if inputs is not None else ""
    of = "in the given data" if faults else "in what the specs name"
    lines = _readings(rows, inputs, faults)
    if faults:
        raise Faults([InputError(f"{at}: {text}", hint) for (at, text), hint in faults.items()], of)
    for line in lines:
        echo(line)
    echo(f"{len(rows)} row{'s' if len(rows) > 1 else ''}, no fault{summary}")


def _readings(rows: "list[LoadedRow]", inputs: Path | None, faults: Told) -> list[str]:
    """What the files hold that rows train on or import, and notes on servers, each once; a look at
    all else that stages read, whose faults are added. Without the folder of given data, of what stands
    beside the specs."""
    from harness.artefact.keys import Files
    from harness.common.progress import plain
    from harness.row.row import Row
    from harness.run import ready
    from harness.run.training_data import of_row

    files = Files(inputs_folder(inputs) if inputs is not None else None, None)
    known = {text for _, text in faults}
    lines: dict[str, None] = {}
    notes: dict[str, None] = {}

    def read(row: Row) -> None:
        for reading in of_row(row, files):
            lines[plain(f"data: {reading}")] = None

    for loaded in rows:
        notes |= dict.fromkeys(f"note: {n}" for n in ready.slash_notes(ready.endpoints(loaded.row)))
        for check in (read, partial(ready.check_row, files=files), ready.check_prices):
            try:
                check(loaded.row)
            except DataAbsent:
                continue
            except InputError as e:
                for part in e.parts:
                    if part.message not in known:
                        faults[str(loaded.place(part.setting)), part.message] = part.hint
    return [*lines, *notes]


def _check_given(rows: "list[LoadedRow]", inputs: Path, faults: Told) -> str:
    """Whether the given data of rows is there, with its bytes; what was found, in words. What is not is
    added to the faults."""
    from harness.artefact.keys import Files, iter_data

    files = Files(inputs_folder(inputs), None)
    known: set[str] = set()
    pinned: set[Path] = set()
    unpinned: set[Path] = set()
    addressed: set[str | None] = set()
    for loaded in rows:
        for data in iter_data(loaded.row):
            try:
                (pinned if data.sha256 else unpinned).add(files.locate(data))
                files.digest(data) if data.sha256 else None
            except NotFetched:
                addressed.add(data.sha256)
            except InputError as e:
                if e.message not in known:
                    faults[str(loaded.place_of(data)), e.message] = ""
                known.add(e.message)
    summary = (
        f"given data: {len(pinned)} with the right sha256, {len(unpinned - pinned)} not pinned"
    )
    return summary + (f", {len(addressed)} with an address alone" if addressed else "")
