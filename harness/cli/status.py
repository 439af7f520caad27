"""`harness status`."""

from pathlib import Path

import click

from harness.cli.options import DATA, SCALE, SPECS, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace
from harness.errors import HarnessError


@click.command()
@SPECS
@with_workspace(SCALE, VOLUME, DATA)
@click.option("--json", "as_json", is_flag=True, help="All that is known of each stage, as JSON.")
def status(specs: tuple[Path, ...], as_json: bool, workspace: Workspace) -> None:
    """Show where each stage of submitted rows stands.

    Pending and what for, running where and how far, done, failed and why with its log's last lines,
    cancelled, or not run because of another. Slurm is asked once, and its accounting for jobs that
    it has forgotten. Below 120 columns (COLUMNS) a stage has several lines. Exit code 1 where
    something failed.
    """
    from harness.cli.views import queue
    from harness.common.hanging import print_hanging
    from harness.run.slurm.status import nothing_submitted, statuses
    from harness.run.slurm.submit import site_here

    planner = workspace.planner(site_here().executor)
    if (words := nothing_submitted(planner.store, specs)) and not as_json:
        workspace.rows_to_run(specs)
        print_hanging(make_console(), words)
        return
    with workspace.plans(specs, planner) as plans:
        found = statuses(plans, planner.store)
        if as_json:
            print(queue.as_json(found))
        else:
            queue.show_queue(make_console(), found)
    if any(s.state == "failed" for s in found):
        raise SystemExit(HarnessError.exit_code)
