"""`harness run`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import DATA, EXECUTOR, SCALE, SPECS, VOLUME, Count
from harness.cli.workspace import (
    Workspace,
    make_console,
    matrix_lines,
    plan_rows,
    with_workspace,
)
from harness.common.commands import harness
from harness.errors import HarnessError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.artefact.store import Damaged, Unusable
    from harness.run.plan import StagePlan


@click.command()
@SPECS
@click.option(
    "--only",
    metavar="STAGES",
    default="",
    help="Run these stages alone, comma-separated; their inputs must be there.",
)
@click.option(
    "--jobs",
    "-j",
    type=Count(),
    envvar="HARNESS_JOBS",
    metavar="N",
    help="How many stages run at a time, at most [default: as many as the machine bears while each has "
    "what it would have alone]. Also: HARNESS_JOBS.",
)
@with_workspace(SCALE, VOLUME, DATA, EXECUTOR)
def run(specs: tuple[Path, ...], only: str, jobs: int | None, workspace: Workspace) -> None:
    """Run what is not there yet. Interrupted, the same command goes on.

    Stages that do not need one another run at the same time: each has GPUs of its own, as many as it
    works on, of those that CUDA_VISIBLE_DEVICES lets be used (HARNESS_ACCELERATOR=cpu: none); what
    calls an endpoint runs beside them. Several runs may work on one
    volume: each takes what no other has.
    """
    from harness.artefact.environment import STAGES
    from harness.cli.views.terminal import show_matrix
    from harness.common.hanging import print_hanging
    from harness.common.progress import OutputClosed
    from harness.results.agreement import show_agreement
    from harness.run import schedule
    from harness.run.executors import StagesFailed
    from harness.run.failures import unread

    stages = [s.strip() for s in only.split(",") if s.strip()]
    unknown = [s for s in stages if s not in STAGES]
    if unknown or (only and not stages):
        wrong = unknown[0] if unknown else only
        raise InputError(f"--only {wrong!r} is no stage; there are {', '.join(STAGES)}")
    planner = workspace.planner()
    console = make_console()
    rows = workspace.rows_to_run(specs)
    planner.store.prepare()
    damaged: dict[str, Damaged] = {}
    plans = plan_rows(rows, planner, damaged)
    failures: list[HarnessError] = [*damaged.values()]
    not_run: Sequence[StagePlan] = ()
    for row_plan in plans:
        if stages and not any(s.stage in stages for s in row_plan.stages):
            print_hanging(console, f"row {row_plan.row.row} has no {' or '.join(stages)} stage")
    unusable: dict[str, Unusable] = {}
    try:
        runner = workspace.runner(planner, console)
        schedule.run(runner, workspace.new_executor, plans, stages, jobs)
    except StagesFailed as e:
        failures, not_run = [*failures, *e.failures], e.not_run
        for row_plan in plans:
            met = (e.damaged[s.id] for s in row_plan.stages if s.id in e.damaged)
            unusable.update((row_plan.row.row, fault) for fault in met)
    except OutputClosed:
        raise unread() from None
    planner.files.save()
    named = set(unusable)
    if not stages or {"judge", "train"} & set(stages):
        planned = {p.row.row for p in plans}
        planned_rows = [r for r in rows if r.row.row in planned]
        lines, agreements = matrix_lines(planned_rows, [planner], unusable)
        if lines:
            show_matrix(console, lines)
        show_agreement(console, agreements)
        failures += {str(e): e for row, e in unusable.items() if row not in named}.values()
    for row_plan in plans:
        data = row_plan.stages[-1] if row_plan.stages else None
        if data is not None and data.stage == "gen" and data.artefact is not None:
            card = data.artefact.folder / "card.md"
            print_hanging(console, f"row {row_plan.row.row}: its data card is {card}")
    if failures:
        raise StagesFailed(failures, not_run)
    judged = [p for p in plans if any(s.stage == "judge" and s.artefact for s in p.stages)]
    if judged and not stages:
        row, report = judged[0].row.row, ""
        if not judged[0].spec.resolve().is_relative_to(Path("specs").resolve()):
            # A row's name is known below specs/ alone.
            row = judged[0].target
            report = " ".join(map(str, specs))
            report += f" --scale {judged[0].row.scale}" if judged[0].row.scale != "full" else ""
        commands = ("show", f"{row} --outputs"), ("verify", row), ("report", report)
        told = "; ".join(harness(command, arguments) for command, arguments in commands)
        print_hanging(console, f"look at it: {told}")
