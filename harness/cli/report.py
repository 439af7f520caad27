"""`harness report`."""

from pathlib import Path
from typing import Any

import click

from harness.cli.options import ANY_EXECUTOR, DATA, SCALE, VOLUME
from harness.cli.workspace import Workspace, echo, end_with_damaged, rows_of, with_workspace

SELECTION = "selection"
"""The folder of the page of rows that were named, beside that of all."""


class _Page(click.Path):
    """The page to write; in a folder, which is made, where the name ends with a slash."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(str(super().convert(value, param, ctx)))
        return path / "report.html" if str(value).endswith("/") else path


@click.command()
@click.argument("specs", nargs=-1, metavar="[SPEC|TABLE]...")
@click.option(
    "--out",
    type=_Page(),
    help="File to write, or a folder that is there or whose name ends with a slash, for report.html "
    "in it [default: results/ on the volume, of twins alone results/tiny/; where SPEC or TABLE is "
    "named selection/ in it]. `harness table --out` names a folder.",
)
@click.option("--outputs", default=100, show_default=True, type=click.IntRange(0),
              help="Outputs of each row in the reader; 0: none.")  # fmt: skip
@click.option("--all", "every_row", is_flag=True, help="Also rows of which nothing is made yet.")
@with_workspace(SCALE, ANY_EXECUTOR, VOLUME, DATA)
def report(
    specs: tuple[str, ...], out: Path | None, outputs: int, every_row: bool, workspace: Workspace
) -> None:
    """Write one HTML page of matrix, rows' stories and outputs.

    The page is self-contained: it asks for nothing over a network, and can be mailed as it is. Rows of
    which nothing is made yet are counted and left out. The page of some rows (SPEC, TABLE) is another
    file than that of all, which stays as it is. A row of which an artefact was changed after it
    was made stands there as damaged, without a number; the exit code is then 1.
    """
    from harness.report.html.page import write_report

    planners = workspace.planners()
    rows = rows_of(specs, workspace.scale)
    if out is None:
        out = workspace.results_folder(rows) / (SELECTION if specs else "") / "report.html"
    sentence, damaged = write_report(rows, planners, out, outputs, every_row)
    echo(sentence)
    end_with_damaged(damaged)
