"""`harness export`."""

from pathlib import Path
from typing import Any

import click

from harness.cli.options import DATA, EXECUTOR, SCALE, VOLUME
from harness.cli.workspace import Workspace, make_console, with_workspace
from harness.errors import masked


@click.command()
@click.argument("name", metavar="ROW")
@click.option("--to", required=True, metavar="DIR|FILE.zip|hub:OWNER/NAME", help="Where to.")
@click.option("--weights", is_flag=True, help="Of a crate: the models' weights too.")
@click.option(
    "--model", is_flag=True, help="Copy the trained model alone, with its card, into DIR."
)
@click.option("--public", is_flag=True, help="Make the model on the hub public [default: private].")
@click.option(
    "--revision", default="main", show_default=True, metavar="BRANCH", help="The hub's branch."
)
@click.option("--label", default="", help='Which of several models, for example "train seed 1".')
@click.option(
    "--simulated", is_flag=True, help="Upload a model whose data or weights are no real one's."
)
@with_workspace(SCALE, VOLUME, DATA, EXECUTOR)
def export(name: str, weights: bool, model: bool, workspace: Workspace, **target: Any) -> None:
    """Pack a row for others to replay, or give its trained model away.

    ROW is a row below specs/ or a spec file. To a folder or an archive (.zip): an RO-Crate with spec,
    manifests, transcripts, tables and the commands, of which `harness replay DIR|FILE.zip` computes
    every number anew with no key, GPU or network. To the hub, or with --model: the model with its
    card, log and template; the token is in HF_TOKEN, or in the file that HF_TOKEN_FILE names. In a
    container: docker compose run --rm --entrypoint "python -m harness export" fetch ROW --to
    hub:OWNER/NAME; a crate or a copy to a place on the volume, runs/NAME.zip.
    """
    from harness.common.hanging import print_hanging
    from harness.crate.export import HUB, Target
    from harness.crate.export import export as export_model

    if target["to"].lower().startswith(HUB):
        target["to"] = HUB + target["to"][len(HUB) :]
    planner = workspace.planner()
    loaded = workspace.row(name)
    console = make_console()
    is_upload = target["to"].startswith(HUB)
    if is_upload:
        planner.store.prepare()
    if model or is_upload:
        runner = workspace.runner(planner, console)
        messages = export_model(runner, planner.plan_model(loaded), Target(**target))
    else:
        from harness.crate.pack import pack
        from harness.report.formats import to_csv, to_markdown
        from harness.results.matrix import lines_of, together
        from harness.results.verdict.rejudged import shifts_of

        plan = planner.plan(loaded)
        lines = together(lines_of(loaded, [planner]))
        title = f"Row {plan.row.row}"
        tables = {"row.csv": to_csv(lines), "row.md": to_markdown(lines, title)} if lines else {}
        shifts = shifts_of(plan)
        to = Path(target["to"])
        messages = pack(planner.store, planner.files, plan, tables, to, weights, shifts)
    for line in messages:
        print_hanging(console, masked(line))
