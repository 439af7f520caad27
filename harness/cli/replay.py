"""`harness replay`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import DATA, EXECUTOR, SCALE, VOLUME
from harness.cli.workspace import Workspace, echo, make_console, with_workspace
from harness.common.commands import harness
from harness.errors import HarnessError, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.crate.unpack import Opened
    from harness.run.plan import RowPlan
    from harness.run.runner import Runner


@click.command()
@click.argument("name", metavar="ROW|CRATE")
@click.option(
    "--stage",
    "kinds",
    type=click.Choice(["gen", "train", "answer", "judge"]),
    multiple=True,
    help="Only this stage; of a chain of recipes, every step [default: all].",
)
@with_workspace(SCALE, VOLUME, DATA, EXECUTOR)
def replay(name: str, kinds: tuple[str, ...], workspace: Workspace) -> None:
    """Recompute a row's numbers from its artefacts, with no network.

    ROW is a row below specs/ or a spec file; CRATE the folder or archive that `harness export` made
    of one, with no volume, specs or given data beside it. Data sets are made again from their
    transcripts, scores from outputs, judges' replies and recorded results. Says `exact` of an
    artefact when every file has the digest, and every metric and count the value, that its manifest
    says; else which have not, and exit code 1. A training is not run again: its files are
    checked, and its losses read from its log. What was judged beside the row (published answers,
    bridging models) is replayed with it, and out of a crate the shift between the judges
    compared, too. Inside an image, those stages alone are made again that run in it. A volume that
    cannot be written, or has no space left, is only read.
    """
    from harness.crate.unpack import is_crate, mount_of, opened
    from harness.run.replay import workable
    from harness.run.runner import Runner

    if is_crate(name):
        with opened(Path(name), workspace.executor) as crate:
            for note in crate.notes:
                echo(f"note: {note}", err=True)
            runner = workspace.runner(crate, make_console())
            _replay(runner, crate.plan, kinds, name, mount_of(Path(name)))
            if not kinds:
                _compare_shifts(runner.console, crate)
        return
    planner = workspace.planner()
    twin = f" --scale {workspace.scale}" if workspace.scale != "full" else ""
    with workable(planner.store) as store:
        plan = planner.plan(workspace.row(name))
        runner = Runner(store, planner.files, workspace.new_executor(), make_console())
        _replay(runner, plan, kinds, name + twin)


def _compare_shifts(console: "Console", crate: "Opened") -> None:
    """How the two judges differ on each bridging model, computed anew.

    Raises HarnessError where a figure is another than the crate's.
    """
    from harness.cli.views.terminal import show_shifts
    from harness.results.verdict.rejudged import shifts_of

    found = shifts_of(crate.plan, crate.files)
    show_shifts(console, found)
    different = [row for row in crate.shifts if found.get(row) != crate.shifts[row]]
    if different:
        raise HarnessError(
            f"the shift between the judges came out different for {', '.join(different)}",
            "The crate's published verdicts or its judgings are not those it was packed with.",
        )


def _replay(
    runner: "Runner", plan: "RowPlan", kinds: tuple[str, ...], name: str, mount: str = ""
) -> None:
    from harness.artefact.environment import STAGES
    from harness.cli.views.terminal import show_replayed, show_row_replayed
    from harness.run.replay import left_to_others, to_replay, where_replayed
    from harness.run.replay import replay as rebuild

    plan.check_inputs()
    stages = to_replay(plan, kinds or STAGES)
    left_out = left_to_others(stages)
    stages = [s for s in stages if s not in left_out]
    if not stages:
        raise InputError(
            f"row {plan.row.row}: none of its stages is replayed in this image",
            where_replayed(left_out, name, mount),
        )
    console = runner.console
    done = []
    for planned in stages:
        if planned.artefact is not None:
            done.append(rebuild(runner, planned))
            show_replayed(console, done[-1])
    show_row_replayed(console, plan, stages, done)
    if left_out:
        where = where_replayed(left_out, name, mount)
        console.print(
            f"left out, because they are not replayed in this image:\n{where}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    different = [r for r in done if not r.exact]
    if different:
        raise HarnessError(
            f"{len(different)} of {len(done)} artefacts came out different",
            "What differs is named above, with the folder that holds it.",
        )
    if len(done) < len(stages):
        raise InputError(
            f"{len(stages) - len(done)} of {len(stages)} artefacts are not on the volume, so the row "
            "is not replayed whole",
            f"Make them with {harness('run', plan.target)}, or name the stages that are there: "
            "--stage.",
        )
