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
    """Download the hub models that rows name.

    `harness run` does this itself; the train service of compose, which has no network, cannot.
    """
    from harness.run.executors import make
    from harness.run.hub import Downloads

    planner = make_planner(volume, inputs, executor)
    planner.store.prepare()
    plans = plan_specs(specs, planner)
    Downloads(planner.store, planner.files, make(executor), make_console()).fetch(plans)
