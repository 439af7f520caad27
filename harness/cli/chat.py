"""`harness chat`."""

from typing import Any

import click

from harness.cli.options import DATA, EXECUTOR, SCALE, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace
from harness.common.encoding import typed


@click.command()
@click.argument("name", metavar="ROW")
@click.option("--seed", type=click.IntRange(0), help="Of the sampling [default: the row's].")
@click.option(
    "--temperature", type=click.FloatRange(0), help="0: greedy [default: the row's, else 0]."
)
@click.option(
    "--max-new-tokens", type=click.IntRange(1), help="Of an answer [default: the row's, else 2048]."
)
@click.option("--system", default="", help="A system message [default: the template's].")
@click.option("--once", metavar="TEXT", help="Answer this alone, and leave.")
@click.option("--label", default="", help='Which of several models, for example "train seed 1".')
@with_workspace(SCALE, VOLUME, DATA, EXECUTOR)
def chat(name: str, workspace: Workspace, **wishes: Any) -> None:
    """Talk to a row's model, in the row's own template.

    To its trained model, or to its base model where it trains none. It runs in this Python
    environment; --executor says whose model. In a container: docker compose run --rm -it --entrypoint
    "python -m harness chat" eval ROW
    """
    from harness.common import env_variables
    from harness.run.chat import Wishes
    from harness.run.chat import chat as talk
    from harness.run.executors.local import LocalExecutor
    from harness.run.runner import Runner

    planner = workspace.planner()
    plan = planner.plan_model(workspace.row(name))
    wishes |= {option: typed(wishes[option]) for option in ("once", "system") if wishes[option]}
    runner = Runner(planner.store, planner.files, LocalExecutor(), make_console())
    with env_variables.restored(env_variables.given("answer")):
        talk(runner, plan, Wishes(**wishes))
