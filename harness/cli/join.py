"""`harness join`."""

from pathlib import Path

import click

from harness.cli.options import DATA, VOLUME
from harness.cli.workspace import load_specs, make_planner


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--label", default="", help="Which replicate, such as 'train seed 2'.")
@VOLUME
@DATA
def join(spec: Path, label: str, volume: Path, inputs: Path | None) -> None:
    """Take part, as another machine, in a row's training.

    For rows with train.launch.machines over 1: `harness run SPEC` on the first machine, this on each
    of the others, with the same volume and the same HARNESS_RENDEZVOUS=HOST:PORT.
    """
    from harness.run.join import join_row

    planner = make_planner(volume, inputs, "local")
    join_row(planner.plan_model(load_specs((spec,))[0]), planner.store, label)
