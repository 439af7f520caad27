"""`harness audit`."""

import sys
from pathlib import Path

import click

from harness.cli.workspace import make_console


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON: an object for one result, a list of them for several.",
)
@click.option(
    "--data",
    "training_data",
    type=click.Path(path_type=Path),
    help="The data set that a trainer's log is compared with [default: one found beside the log].",
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="The prompt set or baseline outputs: how many prompts are expected, and which.",
)
def audit(
    paths: tuple[Path, ...], as_json: bool, training_data: Path | None, reference: Path | None
) -> None:
    """Recompute the numbers of result folders, ours or others', and look for faults.

    Reads alpaca_eval folders, AlpaGasus review files, lm-eval results, trainer logs, and this harness's
    artefacts. Exit codes: 0 no finding, 1 some, 2 nothing that could be read.
    """
    from harness.audit import audit_paths
    from harness.cli.views.audit import show_audits, to_json

    results = audit_paths(paths, training_data=training_data, reference=reference)
    if as_json:
        click.echo(to_json(results))
    else:
        show_audits(make_console(), results)
    sys.exit(1 if any(result.findings or result.matches is False for result in results) else 0)
