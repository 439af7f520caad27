"""`harness needs`."""

import json
import sys
from pathlib import Path

import click

from harness.cli.options import DATA, EXECUTOR, SCALE, VOLUME, typed
from harness.cli.workspace import Workspace, make_console, with_workspace


@click.command()
@click.argument("rows", nargs=-1, required=True, metavar="ROW...")
@with_workspace(SCALE, VOLUME, DATA, EXECUTOR)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def needs(rows: tuple[str, ...], as_json: bool, workspace: Workspace) -> None:
    """Say what rows need before they run, and what of it is there.

    Files with size and address, hub models (size, gated or not where that is known), keys by name,
    memory, disk, and time as far as earlier runs on the volume foretell it; and the command that
    brings what is missing. ROW is the name of a row below specs/, a spec or a folder of specs. The exit
    code is 1 where something is missing, or an artefact was changed after it was made: its row is left
    out and named.
    """
    from harness.cli.views.needs import show_needs
    from harness.run.needs import Forgiving, needs_of

    planner = workspace.planner(kind=Forgiving)
    specs = tuple(map(Path, rows))
    with workspace.plans(specs, planner) as plans:
        result = needs_of(plans, planner, specs, typed("inputs", "executor"))
        if as_json:
            click.echo(json.dumps(result.to_json(), indent=2))
        else:
            show_needs(make_console(), result)
            if plans and not result.items:
                click.echo("nothing: all stages are there")
    sys.exit(1 if result.missing else 0)
