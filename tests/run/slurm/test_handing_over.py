"""What a submission hands to Slurm and what it makes of Slurm's answers, without a Slurm."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.errors import HarnessError, InputError
from harness.run import executors
from harness.run.site import SlurmSite
from harness.run.slurm import job, probe, queue, tools
from harness.run.slurm.asking import Asked
from harness.run.slurm.grouping import Group, Place
from harness.run.slurm.records import Order
from harness.run.slurm.submit import Kind, Submission, job_name
from tests.helpers import planned, write_row

KIND = Kind(Asked(1, 0, None, 10, 1), ("PATH",))


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_row(tmp_path / "specs", train=None)


def programs(patch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """An sbatch that is this script, and an srun."""
    folder.mkdir()
    for name, text in {"sbatch": script, "srun": ""}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


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


@pytest.mark.parametrize("said", ["", "Welcome", "42", "[]", "{}", '{"node": "n1"}'])
def test_a_node_that_answers_nothing_that_makes_sense_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(tools, "call", lambda command, timeout: said)
    with pytest.raises(InputError, match="nothing that makes sense"):
        probe.look(SlurmSite(), ["gen"], tmp_path, Console())


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (InputError("its driver is old"), "refused", "its driver is old"),
        (FileNotFoundError("no folder"), "failed", "FileNotFoundError: no folder"),
    ],
)
def test_a_second_machine_that_ends_with_a_fault_tells_why(
    tmp_path: Path,
    spec: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    outcome: str,
    message: str,
) -> None:
    def refuse(order: Order) -> None:
        raise error

    (plan,) = planned(tmp_path / "volume", spec)
    made, (stage,) = submission(plan), plan.stages
    made.records.write_order("s", None, made._order(stage, plan, KIND, time.time()))
    monkeypatch.setattr(job, "_take_part", refuse)
    for name, value in {"PROCID": "1", "RESTART_COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("HARNESS_STOP_SECONDS", "30")  # a job sets it for its stages
    with pytest.raises((SystemExit, FileNotFoundError)):
        job.main([str(made.records.root), "s"])
    fault = made.records.fault(stage.stage, stage.key, "s", 2)
    assert fault is not None
    assert (fault.rank, fault.outcome, fault.message) == (1, outcome, message)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1",
            "MaxSubmitJobPerUserLimit",
        ),
        ("echo 'Your quota is fine, thanks'", "Your quota is fine, thanks"),
    ],
)
def test_what_sbatch_refuses_or_says_is_told_with_what_was_handed_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    script: str,
    words: str,
) -> None:
    """The first of two jobs is taken."""
    (plan,) = planned(tmp_path / "volume", write_row(tmp_path / "specs"))
    gen, train = plan.stages
    made = Submission(gen.planner.store, gen.planner.files, SlurmSite(), None, Console())
    made.records.prepare()
    programs(monkeypatch, tmp_path / "bin", f"[ -e {tmp_path}/one ] && {{ {script}; exit; }}\n"
             f"touch {tmp_path}/one; echo Submitted batch job 12")  # fmt: skip
    kinds: dict[Any, Kind] = {(s.stage, s.key): KIND for s in plan.stages}
    specs = {(s.stage, s.key): plan for s in plan.stages}
    with pytest.raises(HarnessError) as e:
        made._hand_over(plan.stages, kinds, {}, specs)
    assert "sbatch did not take " + train.title in e.value.message
    assert words in e.value.message
    assert "jobs 12" in e.value.hint
    assert "hands over the rest" in e.value.hint
    first = made.records.submitted(gen.stage, gen.key)
    assert first is not None
    assert first.job == "12"
    assert not capfd.readouterr().err


def test_an_sbatch_that_hangs_is_ended_and_what_was_handed_over_is_told(
    tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "TIMEOUT_S", 1)
    programs(monkeypatch, tmp_path / "bin", "sleep 100; echo Submitted batch job 12")
    (plan,) = planned(tmp_path / "volume", spec)
    made, (stage,) = submission(plan), plan.stages
    stage_id = (stage.stage, stage.key)
    began = time.monotonic()
    with pytest.raises(HarnessError, match=r"^sbatch: no answer within 1 s: whether it took") as e:
        made._hand_over(plan.stages, {stage_id: KIND}, {}, {stage_id: plan})
    assert time.monotonic() - began < 30
    assert "Handed over before it: nothing" in e.value.hint
    record = made.records.submitted(*stage_id)
    assert record is not None
    assert record.job == ""
    found = queue.QueuedJob("12", "PENDING", comment=record.comment)
    monkeypatch.setattr(queue, "jobs", lambda: {"12": found})
    assert made._queued(plan.stages) == {stage_id: Place(12, None)}


def test_on_slurms_warning_a_job_says_how_long_it_has(
    tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (plan,) = planned(tmp_path / "volume", spec)
    made = submission(plan, warning_seconds=75)
    order = made._order(plan.stages[0], plan, KIND, time.time())
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    node = job._Node(made.records, order, "s")
    with pytest.raises(KeyboardInterrupt):
        node._warn(signal.SIGUSR2, None)
    node._warn(signal.SIGUSR2, None)
    assert capfd.readouterr().out == "its time is up in 75 s or more\n"


def test_a_jobs_name_says_stage_and_row_or_how_many_there_are(tmp_path: Path) -> None:
    row = write_row(tmp_path / "specs", replicates={"train_seeds": [1, 2]})
    (plan,) = planned(tmp_path / "volume", row)
    gen, first, second = plan.stages
    assert job_name(Group({0: gen})) == "gen:one"
    assert job_name(Group({0: second})) == "train:one:train-seed-2"
    assert job_name(Group({0: first, 3: second})) == "train:x2"
    assert job_name(Group({0: gen, 1: first})) == "gen+train:x2"


def test_a_volume_whose_path_slurm_would_rewrite_is_refused(
    tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "require", lambda: None)
    (plan,) = planned(tmp_path / "50%j", spec)
    with pytest.raises(InputError, match="50%j has % in its path"):
        submission(plan).submit([plan])
