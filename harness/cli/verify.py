"""`harness verify`."""

import sys
from pathlib import Path

import click

from harness.cli.options import ANY_EXECUTOR, DATA, SCALE, VOLUME
from harness.cli.workspace import make_console, make_planners, row_named


@click.command()
@click.argument("name", metavar="ROW")
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON.")
@SCALE
@ANY_EXECUTOR
@VOLUME
@DATA
def verify(
    name: str,
    as_json: bool,
    scale: str,
    executor: str | None,
    volume: Path,
    inputs: Path | None,
) -> None:
    """Say whether a row's reported number was reproduced, and why.

    Exit codes: 0 reproduced, 3 not reproduced, 4 everything else: inconclusive, not comparable, not
    comparable: another judge, not run, simulated. Of several metrics the worst with a reported number:
    3, then 4, then 0.
    """
    from harness.results.verify import show_verification

    planners = make_planners(volume, inputs, executor)
    sys.exit(show_verification(make_console(), row_named(name, scale), planners, as_json))
