"""`harness settle`."""

import math
import sys

import click

from harness.cli.options import DATA, EXECUTOR, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace
from harness.errors import InputError


@click.command()
@click.argument("name", metavar="ROW")
@click.option(
    "--usd",
    type=click.FloatRange(min=0),
    help="The most to spend. Required, but for --dry-run, which then knows no limit.",
)
@click.option(
    "--metric", default="", help="Which reported metric [default: the first that was reported]."
)
@click.option(
    "--looks",
    type=click.IntRange(2, 20),
    default=5,
    show_default=True,
    help="How often the verdict is looked at, at most.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what verify says, and what would be bought first; buy nothing.",
)
@with_workspace(VOLUME, DATA, EXECUTOR)
def settle(
    name: str, usd: float | None, metric: str, looks: int, dry_run: bool, workspace: Workspace
) -> None:
    """Buy replicates until a verdict is decided or money is spent.

    What is bought next (trainings, samplings, judgings, prompts of bridging models) is what is
    expected to narrow the interval of the difference most for its price. The margin, the number of
    looks and their levels are written down on the volume before the first; looking several times then
    gives no more wrong verdicts than looking once. Interrupted, the same command goes on.

    Exit codes: 0 reproduced, 3 not reproduced, 4 open. A dry run that can say what it would buy
    exits 0, whatever the verdict.
    """
    from harness.common.progress import say
    from harness.results.settle import Settler
    from harness.results.verify import NOT_REPRODUCED, REPRODUCED, UNDECIDED

    if usd is None and not dry_run:
        raise click.UsageError("Missing option '--usd': the most to spend.")
    if usd is not None and not math.isfinite(usd):
        raise InputError(f"--usd {usd}: a number of dollars is wanted")
    loaded = workspace.row(name)
    metric = metric or next((m for m, c in loaded.row.reported.items() if c.value is not None), "")
    planner = workspace.planner()
    limit = math.inf if usd is None else usd
    settler = Settler(loaded, metric, limit, looks, planner)
    console = make_console()
    if dry_run:
        for line in settler.foretold():
            say(console, line)
        return
    planner.store.prepare()
    verdict = settler.settle(workspace.new_executor(), console)
    for line in settler.kept():
        say(console, line)
    codes = {"reproduced": REPRODUCED, "not reproduced": NOT_REPRODUCED}
    sys.exit(codes.get(verdict, UNDECIDED))
