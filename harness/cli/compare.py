"""`harness compare`."""

import click

from harness.cli.options import ANY_EXECUTOR, DATA, SCALE, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace


@click.command()
@click.argument("first", metavar="ROW")
@click.argument("second", metavar="ROW")
@click.option("--json", "as_json", is_flag=True, help="The comparison as JSON.")
@with_workspace(SCALE, ANY_EXECUTOR, VOLUME, DATA)
def compare(first: str, second: str, as_json: bool, workspace: Workspace) -> None:
    """Compare two rows, prompt by prompt.

    The difference with its interval, how many prompts changed their verdict, the smallest difference
    that could have been seen, and every setting in which the rows differ beside the studied ones.
    """
    from harness.results.compare import show_comparison

    planners = workspace.planners()
    rows = workspace.row(first), workspace.row(second)
    show_comparison(make_console(), *rows, planners, as_json)
