"""`harness compare`."""

from pathlib import Path

import click

from harness.cli.options import ANY_EXECUTOR, DATA, SCALE, VOLUME
from harness.cli.workspace import make_console, make_planners, row_named


@click.command()
@click.argument("first", metavar="ROW")
@click.argument("second", metavar="ROW")
@click.option("--json", "as_json", is_flag=True, help="The comparison as JSON.")
@SCALE
@ANY_EXECUTOR
@VOLUME
@DATA
def compare(
    first: str,
    second: str,
    as_json: bool,
    scale: str,
    executor: str | None,
    volume: Path,
    inputs: Path | None,
) -> None:
    """Compare two rows, prompt by prompt.

    The difference with its interval, how many prompts changed their verdict, the smallest difference
    that could have been seen, and every setting in which the rows differ beside the studied ones.
    """
    from harness.results.compare import show_comparison

    planners = make_planners(volume, inputs, executor)
    show_comparison(
        make_console(), row_named(first, scale), row_named(second, scale), planners, as_json
    )
