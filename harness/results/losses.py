"""Which stages a row's numbers come from, and which losses are among them."""

import json
from collections.abc import Sequence

from harness.artefact.metrics import metric_of
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
    return [] if row.judge is not None else [LAST]


def judges_loss(row: Row) -> bool:
    """Whether the row's losses are those of its judge stage, and not of its training."""
    return row.judge is not None and row.judge.gives_losses


def is_judged_by_other(row: Row) -> bool:
    """Whether the losses of the row's training are no result, as something else judges it."""
    return row.judge is not None and not row.judge.gives_losses


def stages_that_give(plan: RowPlan | None, metric: str) -> list[StagePlan]:
    """A metric: one stage for each replicate."""
    if metric_of(metric).is_loss:
        return stages_of(plan)
    return plan.final() if plan else []


def stages_of(plan: RowPlan | None) -> list[StagePlan]:
    """The stages that the row's losses come from, one for each replicate."""
    if plan is None:
        return []
    return plan.final() if judges_loss(plan.row) else trainings(plan)


def trainings(plan: RowPlan | None) -> list[StagePlan]:
    """The train stage of each replicate; none where other weights than its last are scored."""
    if plan is None or plan.row.checkpoint is not None:
        return []
    return [s for s in plan.own if s.stage == "train"]


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
