"""`harness validate`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import SPECS
from harness.cli.workspace import inputs_folder, load_specs
from harness.errors import DataAbsent, InputError, NotFetched

if TYPE_CHECKING:
    from harness.row.load import LoadedRow


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
    summary = f"; {_check_given(rows, inputs)}" if inputs is not None else ""
    for line in _readings(rows, inputs):
        click.echo(line)
    click.echo(f"{len(rows)} row{'s' if len(rows) > 1 else ''}, no fault{summary}")


def _readings(rows: "list[LoadedRow]", inputs: Path | None) -> list[str]:
    """What the files hold that rows train on or import, and notes on servers, each once; a look at
    all else that stages read. Without the folder of given data, of what stands beside the specs."""
    from harness.artefact.keys import Files
    from harness.common.progress import plain
    from harness.row.row import Row
    from harness.run import ready
    from harness.run.training_data import of_row

    files = Files(inputs_folder(inputs) if inputs is not None else None, None)
    faults: dict[str, str] = {}
    lines: dict[str, None] = {}
    hints: dict[str, None] = {}
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
                faults.setdefault(e.message, f"{loaded.place(e.setting)}: {e.message}")
                hints[e.hint] = None
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in what the specs name"
        raise InputError("\n".join([*faults.values(), count]), "\n".join(filter(None, hints)))
    return [*lines, *notes]


def _check_given(rows: "list[LoadedRow]", inputs: Path) -> str:
    """Whether the given data of rows is there, with its bytes; what was found, in words."""
    from harness.artefact.keys import Files, iter_data

    files = Files(inputs_folder(inputs), None)
    faults: dict[str, str] = {}
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
                faults.setdefault(e.message, f"{loaded.path}: {e.message}")
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in the given data"
        raise InputError("\n".join([*faults.values(), count]))
    summary = (
        f"given data: {len(pinned)} with the right sha256, {len(unpinned - pinned)} not pinned"
    )
    return summary + (f", {len(addressed)} with an address alone" if addressed else "")
