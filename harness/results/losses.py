"""The matrix lines of a training: its losses, what they were measured over, and which is the lowest."""

import json
from collections.abc import Sequence
from typing import Any

from harness.results.line import Cells
from harness.row.row import Row
from harness.run.plan import RowPlan, StagePlan

LOSS, BITS, LAST = "held_out_loss", "bits_per_byte", "train_loss"
SCALED_DOWN = "scaled down"
"""Among what makes a number simulated: the row's twin is tiny."""
ONE_SEED = "one training seed"


def metrics_of(row: Row) -> list[str]:
    """The losses that a row has lines for beside the reported ones, whether it ran or not."""
    if judges_loss(row):
        return [LOSS, BITS]
    if row.train is None:
        return []
    if row.train.validation is not None:
        return [LOSS, BITS]
    return [] if is_judged(row) else [LAST]


def is_judged(row: Row) -> bool:
    return row.eval is not None and row.eval.judge is not None


def judges_loss(row: Row) -> bool:
    """Whether the row's losses are those of its judge stage, and not of its training."""
    judge = row.eval.judge if row.eval else None
    return judge is not None and judge.gives_losses


def stages_of(plan: RowPlan | None) -> list[StagePlan]:
    """The stages that the row's losses come from, one for each replicate."""
    if plan is None:
        return []
    return plan.final() if judges_loss(plan.row) else trainings(plan)


def trainings(plan: RowPlan | None) -> list[StagePlan]:
    """The train stage of each replicate."""
    return [s for s in plan.own if s.stage == "train"] if plan else []


def steps_of(trained: Sequence[StagePlan]) -> int | None:
    """Optimizer steps of one training."""
    steps = [s.artefact.manifest.counts.get("steps") for s in trained if s.artefact]
    return steps[0] if steps else None


def held_out_set(measured: Sequence[StagePlan]) -> str:
    """What tells held-out sets apart: the data set, and how they were drawn from it. Rows that have
    it in common have the same, whatever their tokenizers; empty where nothing is held out."""
    for stage in measured:
        if stage.stage == "judge":
            return json.dumps(stage.document["params"]["judge"]["examples"], sort_keys=True)
        train = stage.document["params"]["train"]
        if train["validation"] is not None:
            drawn = {n: v for n, v in train["validation"].items() if n != "every_steps"}
            data = stage.document["inputs"].get("data"), stage.document["params"]["data"]
            return json.dumps([data, drawn, train["objective"]], sort_keys=True)
    return ""


def lowest(lines: Sequence[tuple[str, Cells]]) -> list[str]:
    """Which row of a table has the fewest bits per byte, among those measured on the same held-out
    answers. `lines`: each one's held-out set and its cells."""
    groups: dict[tuple[Any, ...], list[Cells]] = {}
    for held_out, cells in lines:
        if held_out and cells.metric == BITS and cells.reproduced is not None:
            same = (cells.table, held_out, cells.examples, cells.bytes)
            groups.setdefault(same, []).append(cells)
    return [_lowest(same) for same in groups.values() if len(same) > 1]


def _lowest(same: list[Cells]) -> str:
    best, second = sorted(same, key=lambda c: (c.reproduced or 0.0, c.row))[:2]
    steps = sorted({c.steps for c in same if c.steps is not None})
    after = ""
    if steps:
        count = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        after = f"after {count} steps and "
    alone = any(c.replicates == 1 for c in same)
    return (
        f"Table {best.table}: of {len(same)} rows, {after}over the same held-out "
        f"answers ({over(best)}), {best.row} has the fewest bits per byte, "
        f"{best.reproduced:.4f}{marks(best.simulated, best.random_weights)}; next is {second.row} with "
        f"{second.reproduced:.4f}{marks(second.simulated, second.random_weights)}"
        + ("; of a row with one training seed the spread is not known" if alone else "")
        + "."
    )


def marks(simulated: str, random_weights: object) -> str:
    """What a number must never stand without, in brackets: that it is simulated, of a scaled-down row,
    or of weights that began random."""
    labels = ["simulated"] * bool(simulated)
    labels += [SCALED_DOWN] * (SCALED_DOWN in simulated.split("; "))
    labels += ["random weights"] * bool(random_weights)
    return f" ({', '.join(labels)})" if labels else ""


def over(cells: Cells) -> str:
    """What a loss was measured over, in words; of bits per byte the bytes, else the tokens."""
    metric = cells.metric.partition("/")[0]
    if metric == LAST:
        return f"the last of {cells.steps} steps" if cells.steps else ""
    if cells.examples is None:
        return ""
    size = f"{cells.bytes:,} bytes" if metric == BITS else f"{cells.tokens:,} tokens"
    return f"{cells.examples:,} held-out examples, {size}"
