"""`harness show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import EXECUTOR, INPUTS, SCALE, VOLUME
from harness.cli.workspace import (
    Workspace,
    among_rows,
    make_console,
    tell_faulty,
    unknown_row,
    usable_specs,
    with_workspace,
)
from harness.common.commands import harness
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.artefact.store import Artefact
    from harness.row.load import LoadedRow
    from harness.run.plan import Planner, RowPlan


@click.command()
@click.argument("name", metavar="ROW|KEY")
@click.option("--json", "as_json", is_flag=True, help="As JSON, whatever is printed but prompts.")
@click.option("--check", is_flag=True, help="Compare every file with its digest.")
@click.option("--params", is_flag=True, help="The manifests' parameters, too.")
@click.option("--data", "card", is_flag=True, help="The data cards in place of the manifests.")
@click.option("--prompt", is_flag=True, help="The row's template, filled, and what is trained on.")
@click.option("--sources", is_flag=True, help="The row's settings, and where each comes from.")
@click.option("--outputs", is_flag=True, help="Its answers, baseline's answers and judge's words.")
@click.option("--worst", is_flag=True, help="Of outputs: the lowest preference or score first.")
@click.option("--best", is_flag=True, help="Of outputs: the highest first.")
@click.option("--flagged", is_flag=True, help="Of outputs: flagged or unjudged ones alone.")
@click.option("--grep", default="", metavar="TEXT", help="Of outputs: those where it stands.")
@click.option(
    "-n",
    "--count",
    default=10,
    show_default=True,
    type=click.IntRange(0),
    help="Of outputs: how many; 0: all.",
)
@click.option("--full", is_flag=True, help="Of outputs: long texts whole.")
@click.option("--label", default="", help="Which of several outputs, such as 'train seed 2'.")
@with_workspace(SCALE, VOLUME, INPUTS, EXECUTOR)
def show(
    name: str,
    as_json: bool,
    check: bool,
    params: bool,
    card: bool,
    prompt: bool,
    sources: bool,
    outputs: bool,
    workspace: Workspace,
    **wishes: Any,
) -> None:
    """Print a row's artefacts, data cards, settings or outputs.

    ROW is a row below specs/ or a spec file; KEY the beginning of an artefact's key (or STAGE/KEY). Of
    a row whose judge judged the same outputs again, also how far it agrees with itself. The exit code
    is 1 where an artefact was made of another than is there now, which is said after what is printed.
    """
    if prompt:
        from harness.cli.views.prompts import show_prompts

        show_prompts(make_console(), workspace.row(name), workspace.planner())
        return
    if sources:
        from harness.cli.views.sources import show_sources

        show_sources(make_console(), workspace.row(name), as_json)
        return
    # What narrows outputs down asks for them.
    if outputs or any(value for option, value in wishes.items() if option != "count"):
        from harness.cli.views.outputs import show_outputs
        from harness.results.outputs import OutputOptions

        plan = workspace.planner().plan(workspace.row(name))
        plan.check_inputs()
        show_outputs(make_console(), plan, OutputOptions(**wishes), as_json)
        return
    planner = workspace.planner()
    artefacts, row_plan = _find_artefacts(name, planner, workspace)
    for artefact in artefacts if check else []:
        artefact.check()
    _show(artefacts, as_json, check, params, card)
    if row_plan is None:
        return
    row_plan.check_inputs()
    if not (card or as_json) and sum(artefact.stage == "judge" for artefact in artefacts) > 1:
        from harness.results.agreement import agreement_of, show_agreement

        show_agreement(make_console(), agreement_of(row_plan))


def _show(
    artefacts: "list[Artefact]", as_json: bool, check: bool, params: bool, card: bool
) -> None:
    import json

    from harness.cli.views.terminal import show_artefact, show_data

    if card:
        show_data(make_console(), artefacts, as_json)
        return
    if as_json:
        click.echo(json.dumps([a.manifest.to_json() for a in artefacts], indent=2, sort_keys=True))
        return
    for artefact in artefacts:
        show_artefact(make_console(), artefact, checked=check, parameters=params)


def _find_artefacts(
    name: str, planner: "Planner", workspace: Workspace
) -> "tuple[list[Artefact], RowPlan | None]":
    """The artefacts of a row (see `row_named`), and its plan; or those whose key begins so."""
    from harness.run.plan import made_otherwise, target

    if not name.rpartition("/")[2]:
        raise InputError("name a row, or the beginning of a key")
    of_file = name.endswith((".yaml", ".yml"))
    usable = usable_specs() if Path("specs").is_dir() and not of_file else None
    if of_file:
        loaded: LoadedRow | None = workspace.row(name)
    else:
        loaded = among_rows(usable, name, workspace.scale) if usable else None
    plan: RowPlan | None = None
    if loaded is not None:
        plan = planner.plan(loaded)
        artefacts = [s.artefact for s in plan.stages if s.artefact is not None]
        if not artefacts:
            make_it = harness("run", target(loaded.row, loaded.path))
            raise InputError(
                f"row {loaded.row.row} has no artefact on {planner.store.root} made by this executor",
                f"Make them: {make_it}{made_otherwise(plan.stages)}",
            )
    else:
        artefacts = planner.store.match(name)
        if not artefacts:
            message = (
                f"{name!r} is neither a row below specs/ nor the beginning of a key on "
                f"{planner.store.root}"
            )
            raise unknown_row(name, message, usable)
    if usable is not None:
        tell_faulty(usable)
    return artefacts, plan
