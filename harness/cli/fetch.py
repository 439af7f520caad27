"""`harness fetch`."""

from pathlib import Path

import click

from harness.cli.options import DATA, EXECUTOR, SPECS, VOLUME
from harness.cli.workspace import make_console, make_planner, plan_specs


@click.command()
@SPECS
@VOLUME
@DATA
@EXECUTOR
def fetch(specs: tuple[Path, ...], volume: Path, inputs: Path | None, executor: str) -> None:
    """Download what rows name: given files by address, models and data sets on the hub.

    A download that broke off is gone on with. `harness run` does this itself, before anything is paid;
    the train service of compose, which has no network, cannot. HARNESS_MIRROR names an address or a
    folder where given files are looked for first.
    """
    from harness.run.executors import make
    from harness.run.hub import Downloads

    planner = make_planner(volume, inputs, executor)
    planner.store.prepare()
    plans = plan_specs(specs, planner)
    Downloads(planner.store, planner.files, make(executor), make_console()).fetch(plans)
