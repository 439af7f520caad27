"""`harness fetch`."""

from pathlib import Path

import click

from harness.cli.options import DATA, EXECUTOR, SPECS, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace


@click.command()
@SPECS
@with_workspace(VOLUME, DATA, EXECUTOR)
def fetch(specs: tuple[Path, ...], workspace: Workspace) -> None:
    """Download the given files, models and data sets that rows name.

    Files come from their addresses, the rest from the hub. A download that broke off is gone on with.
    `harness run` does this itself, before anything is paid;
    the train service of compose, which has no network, cannot. Given files that are absent and have no
    address are named at the end, and the exit code is then 2. HARNESS_MIRROR names an address or a
    folder where given files are looked for first.
    """
    from harness.run.given.bring import check_addressed
    from harness.run.needs import Hopeful

    planner = workspace.planner(kind=Hopeful)
    planner.store.prepare()
    with workspace.plans(specs, planner) as plans:
        workspace.runner(planner, make_console()).downloads.fetch(plans)
        check_addressed([d for plan in plans for s in plan.stages for d in s.data()], planner.files)
