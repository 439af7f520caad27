"""Another machine's part in a training."""

from harness.artefact.store import Store
from harness.errors import HarnessError, InputError
from harness.run.executors import placing
from harness.run.plan import RowPlan, StagePlan
from harness.spec.train import Launch
from harness.train.launch import join, rendezvous


def join_row(plan: RowPlan, store: Store, label: str = "") -> None:
    """This machine's part of a row's training, to its end.

    Raises InputError where the row trains on one machine, or has several trainings and none is
    named, and where a run here would be refused; HarnessError where the training fails.
    """
    trainings = [s for s in plan.stages if s.stage == "train" and label in ("", s.label)]
    if len(trainings) != 1:
        labels = ", ".join(repr(s.label) for s in plan.stages if s.stage == "train")
        raise InputError(
            f"row {plan.row.row} has {len(trainings) or 'no'} such trainings",
            f"Name one with --label: {labels}." if labels else "",
        )
    (stage,) = trainings
    launch: Launch = stage.params["train"].launch
    if launch.machines == 1:
        raise InputError(
            f"row {plan.row.row} trains on one machine", "train.launch.machines says on how many."
        )
    rendezvous(launch)
    if stage.artefact is not None:
        print(f"row {plan.row.row}: its model is there already")
        return
    placing.check([stage], "local")
    take_part(stage, store)


def take_part(stage: StagePlan, store: Store) -> None:
    """Raises HarnessError where the training fails."""
    launch: Launch = stage.params["train"].launch
    code = join(store.work_folder("train", stage.key), launch, stage.key)
    if code:
        raise HarnessError(
            f"this machine's part of the training ended with exit code {code}",
            "The first machine says what went wrong.",
        )
