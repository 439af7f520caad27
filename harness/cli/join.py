"""`harness join`."""

from pathlib import Path

import click

from harness.cli.options import DATA, VOLUME
from harness.cli.workspace import Workspace, load_specs, with_workspace


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--label", default="", help="Which replicate, such as 'train seed 2'.")
@with_workspace(VOLUME, DATA)
def join(spec: Path, label: str, workspace: Workspace) -> None:
    """Take part, as another machine, in a row's training.

    For rows with train.launch.machines over 1: `harness run SPEC` on the first machine, this on each
    of the others, with the same volume and the same HARNESS_RENDEZVOUS=HOST:PORT.
    """
    from harness.run.join import join_row

    planner = workspace.planner()
    join_row(planner.plan_model(load_specs((spec,))[0]), planner.store, label)
