"""`harness verify`."""

import sys

import click

from harness.cli.options import ANY_EXECUTOR, DATA, SCALE, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace


@click.command()
@click.argument("name", metavar="ROW")
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON.")
@with_workspace(SCALE, ANY_EXECUTOR, VOLUME, DATA)
def verify(name: str, as_json: bool, workspace: Workspace) -> None:
    """Say whether a row's reported number was reproduced, and why.

    Exit codes: 0 reproduced, 1 an artefact of it was changed after it was made, 3 not reproduced, 4
    everything else: inconclusive, not comparable, not comparable: another judge, not run, simulated. Of
    several metrics the worst with a reported number: 3, then 4, then 0.
    """
    from harness.results.verify import show_verification

    planners = workspace.planners()
    sys.exit(show_verification(make_console(), workspace.row(name), planners, as_json))
