"""`harness plan`."""

from pathlib import Path

import click

from harness.cli.options import DATA, EXECUTOR, SCALE, SPECS, VOLUME, typed
from harness.cli.workspace import Workspace, make_console, with_workspace


@click.command()
@SPECS
@with_workspace(SCALE, VOLUME, DATA, EXECUTOR)
def plan(specs: tuple[Path, ...], workspace: Workspace) -> None:
    """Show what would run, and why.

    Each stage is to run, is reused, or is stale; with what changed, and calls and tokens to expect. At
    the end stands what the stages need, there or missing, as `harness needs` says it. A row of
    which an artefact was changed after it was made is left out and named; the exit code is then 1.
    """
    from harness.cli.views.needs import show_needs
    from harness.cli.views.plan import show_plans
    from harness.run.needs import needs_of
    from harness.run.ready import check

    planner = workspace.planner()
    with workspace.plans(specs, planner) as plans:
        needs = needs_of(plans, planner, specs, typed("inputs", "executor"))
        console = make_console()
        show_plans(console, plans, needs.command, specs)
        show_needs(console, needs)
        planner.files.save()
        for row_plan in plans:
            check(row_plan, planner.files)
