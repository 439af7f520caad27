"""What a submission hands to Slurm and what it makes of Slurm's answers, without a Slurm."""

import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.run import executors
from harness.run.site import SlurmSite
from harness.run.slurm import job
from harness.run.slurm.asking import Asked
from harness.run.slurm.submit import Kind, Submission
from tests.helpers import planned, write_row

KIND = Kind(Asked(1, 0, None, 10, 1), ())


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_row(tmp_path / "specs", train=None)


def submission(plan: Any, **site: Any) -> Submission:
    (stage,) = plan.stages
    store = stage.planner.store
    store.prepare()
    made = Submission(store, stage.planner.files, SlurmSite(**site), None, Console())
    made.records.prepare()
    return made


def test_a_node_looks_for_images_on_the_volume_of_the_submission(
    tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plan,) = planned(tmp_path / "volume", spec)
    order = submission(plan)._order(plan.stages[0], plan, KIND, time.time())
    asked: list[Any] = []
    local = executors.make("local")
    monkeypatch.setattr(executors, "make", lambda *given: asked.append(given) or local)
    job.plan_again(order, "n1")
    assert asked == [("local", tmp_path / "volume")]
