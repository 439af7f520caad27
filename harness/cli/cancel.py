"""`harness cancel`."""

from pathlib import Path

import click

from harness.cli.options import DATA, SCALE, SPECS, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace


@click.command()
@SPECS
@with_workspace(SCALE, VOLUME, DATA)
def cancel(specs: tuple[Path, ...], workspace: Workspace) -> None:
    """End the jobs of submitted rows. What they have made is kept: `submit` goes on from it.

    A stage that other rows share ends for these too.
    """
    from harness.common.hanging import print_hanging
    from harness.common.progress import say
    from harness.run.executors import waiting
    from harness.run.slurm.status import cancel, nothing_submitted
    from harness.run.slurm.submit import site_here

    planner = workspace.planner(site_here().executor)
    console = make_console()
    if words := nothing_submitted(planner.store, specs):
        workspace.rows_to_run(specs)
        print_hanging(console, words)
        return
    with workspace.plans(specs, planner) as plans:
        stages = cancel(plans, planner.store, waiting(console, "cancel"))
        for stage in stages:
            say(console, f"cancelled: {stage.title}")
        if not stages:
            say(console, "nothing of these rows is queued")
