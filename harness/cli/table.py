"""`harness table`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import ANY_EXECUTOR, DATA, SCALE, VOLUME
from harness.cli.workspace import (
    Workspace,
    echo,
    end_with_damaged,
    make_console,
    matrix_lines,
    rows_of,
    with_workspace,
)
from harness.common.commands import harness
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.artefact.store import Unusable


@click.command()
@click.argument("specs", nargs=-1, metavar="[SPEC|TABLE]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to, made where there is none [default: results/ on the volume, of twins "
    "results/tiny/, when no spec is named]. `harness report --out` names a file.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "csv", "latex", "html"]),
    help="Print the tables alone, in this form.",
)
@click.option(
    "--layout",
    type=click.Choice(["matrix", "study"]),
    default="matrix",
    show_default=True,
    help="With --format: the harness's columns, or a table like the study's own.",
)
@click.option("--all", "every_row", is_flag=True, help="Also rows that have no result.")
@with_workspace(SCALE, ANY_EXECUTOR, VOLUME, DATA)
def table(
    specs: tuple[str, ...],
    out: Path | None,
    form: str | None,
    layout: str,
    every_row: bool,
    workspace: Workspace,
) -> None:
    """Write the results matrix and the tables, or print them.

    They come from specs and manifests alone. Rows that have no result are counted and left out; a table
    in the study's own layout has its empty lines too. A row of which an artefact was changed after it
    was made stands there as damaged, without a number; the exit code is then 1.

    Without SPEC or TABLE: every row below specs/ whose spec has no fault, written to results/ on the
    volume, or results/tiny/ with --scale tiny. With them: the rows of those specs and tables, printed,
    and written where --out says.
    """
    if layout == "study" and form is None:
        scale = ["--scale", workspace.scale] if workspace.scale != "full" else []
        arguments = shlex.join([*specs, *scale, "--format", "md", "--layout", "study"])
        message = "--layout study is a layout of what --format prints"
        raise InputError(message, harness("table", arguments))
    from harness.cli.views.terminal import show_matrix
    from harness.report.formats import render, write_all
    from harness.results.agreement import show_agreement
    from harness.results.matrix import data_alone, with_results

    rows = rows_of(specs, workspace.scale)
    planners = workspace.planners()
    damaged: dict[str, Unusable] = {}
    lines, agreements = matrix_lines(rows, planners, damaged)
    listed, left_out = (lines, "") if every_row else with_results(lines)
    if form is not None:
        text = render(lines, agreements, form, layout, every_row)
        # Into a file it goes as `--out` would write it, whatever the terminal is.
        click.echo(text if sys.stdout.isatty() else text.encode(), nl=False)
    elif listed:
        show_matrix(make_console(), listed)
    elif not lines:
        echo("none of these rows is trained or evaluated")
    if form is None:
        show_agreement(make_console(), agreements)
    if left_out:
        echo(f"{left_out} (--all shows them all)", err=form is not None)
    unmeasured = data_alone(rows)
    if unmeasured:
        echo(unmeasured, err=form is not None)
    if out is None and not specs and form is None:
        out = workspace.results_folder(rows)
        if not listed and not out.exists():
            echo("nothing written", err=True)
            end_with_damaged(damaged)
            return
    if out is not None:
        write_all(lines, out, agreements, every_row)
        echo(f"written: {out / 'matrix.md'}, matrix.csv and tables/", err=True)
    end_with_damaged(damaged)
