"""`harness submit`."""

from pathlib import Path

import click

from harness.cli.options import DATA, SCALE, SPECS, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace


@click.command()
@SPECS
@with_workspace(SCALE, VOLUME, DATA)
def submit(specs: tuple[Path, ...], workspace: Workspace) -> None:
    """Hand what is not there yet over to Slurm, and leave.

    Everything that can be checked is checked and everything that is read is downloaded here, as `run`
    does; then each stage becomes a job that waits for those before it, alike ones an array. The same
    command again submits what failed or was cancelled, and nothing twice. Nodes have to see the volume,
    the given data and this checkout. A row of which an artefact was changed after it was made is left
    out and named; the exit code is then 1.

    Partition, account and more are set in harness.toml ([slurm]) in the checkout, or in the file that
    HARNESS_CONFIG names; or by HARNESS_SLURM_PARTITION, _ACCOUNT, _QOS, _TIME, _FLAGS and _EXECUTOR.
    """
    from harness.run.slurm.submit import Submission, site_here

    site = site_here()
    planner = workspace.planner(site.executor)
    planner.store.prepare()
    folder = planner.files.inputs
    resolved = folder.resolve() if folder is not None and ":" not in str(folder) else folder
    with workspace.plans(specs, planner) as plans:
        Submission(planner.store, planner.files, site, resolved, make_console()).submit(plans)
