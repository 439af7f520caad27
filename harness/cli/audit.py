"""`harness audit`."""

import shlex
import sys
from pathlib import Path

import click

from harness.cli.options import INPUTS, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace
from harness.common.commands import harness
from harness.errors import InputError


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH|ROW...", type=click.Path(path_type=Path)
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
@with_workspace(VOLUME, INPUTS)
def audit(
    paths: tuple[Path, ...],
    as_json: bool,
    training_data: Path | None,
    reference: Path | None,
    workspace: Workspace,
) -> None:
    """Recompute result folders, ours or others', and look for faults.

    Reads alpaca_eval folders, AlpaGasus review files, lm-eval results, trainer logs, and this harness's
    artefacts. A row (ROW.yaml, or the id of one below specs/): what the study itself published of it
    (reported.outputs, reported.annotations) is fetched, onto the volume, and the reported numbers are
    computed from it anew. Exit codes: 0 no finding, 1 some or another number than the reported one,
    2 nothing that could be read, or a published file that cannot be had.
    """
    rows = [str(path) for path in paths if _is_row(path)]
    folders = [path for path in paths if not _is_row(path)]
    if rows and (folders or training_data or reference):
        raise InputError(
            "rows are audited by themselves, without folders, --data or --reference",
            harness("audit", shlex.join(rows)),
        )
    if rows:
        sys.exit(_audit_rows(rows, as_json, workspace))
    from harness.audit import audit_paths
    from harness.cli.views.audit import show_audits, to_json

    results = audit_paths(paths, training_data=training_data, reference=reference)
    if as_json:
        click.echo(to_json(results))
    else:
        show_audits(make_console(), results)
    sys.exit(1 if any(result.findings or result.matches is False for result in results) else 0)


def _is_row(path: Path) -> bool:
    """A spec's file; or a name that nothing on disk has, where there are specs."""
    if path.suffix in (".yaml", ".yml"):
        return True
    return len(path.parts) == 1 and not path.exists() and Path("specs").is_dir()


def _audit_rows(names: list[str], as_json: bool, workspace: Workspace) -> int:
    """The exit code."""
    import json

    from rich.console import Console

    from harness.cli.views.audit import show_published
    from harness.results.published import audit_published, to_json
    from harness.run.given.bring import NotBrought

    planner = workspace.planner()
    audits = []
    for name in names:
        row = workspace.row(name).row
        # What is told of downloads is none of the audit's output.
        stderr = Console(stderr=True, emoji=False, soft_wrap=not sys.stderr.isatty())
        try:
            audits.append(audit_published(row, planner.store, planner.files, stderr))
        except NotBrought as e:
            e.exit_code = 2  # 1 says that something was found
            raise
    if as_json:
        documents = [to_json(audit) for audit in audits]
        click.echo(json.dumps(documents[0] if len(documents) == 1 else documents, indent=2))
    else:
        for audit in audits:
            show_published(make_console(), audit)
    return 0 if all(audit.is_clean for audit in audits) else 1
