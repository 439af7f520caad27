"""What gc keeps for stages that run, or wait in Slurm, whose specs it was not told."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.artefact.store import Store
from harness.run.site import SlurmSite
from harness.run.slurm.asking import Asked
from harness.run.slurm.records import Attempt, Submitted
from harness.run.slurm.submit import Kind, Submission
from tests.helpers import FakeStages, command, evaluation, harness, make, planned, start, write_row

GIVEN: dict[str, Any] = {"gen": None, "data": "seeds.jsonl"}


def test_what_a_running_stage_and_those_after_it_read_is_kept_and_said(tmp_path: Path) -> None:
    specs, volume = tmp_path / "specs", tmp_path / "volume"
    row = write_row(specs, eval=evaluation(specs))
    other = write_row(tmp_path / "others", "other", **GIVEN)
    make(volume, write_row(tmp_path / "gone", "gone", train={"steps": 9}, **GIVEN))
    fakes = FakeStages(tmp_path / "fake")
    fakes.order("train", "until told")
    process = start(fakes.env, "run", row, "--volume", volume)
    fakes.wait_until_waiting()
    (gen,) = (volume / "artefacts" / "gen").iterdir()
    (gone,) = (volume / "artefacts" / "train").iterdir()
    done = harness(fakes.env, "gc", "--yes", "--specs", other, "--volume", volume)
    named = harness(fakes.env, "gc", "--yes", f"gen/{gen.name}", "--volume", volume)
    (fakes.folder / "go").touch()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert f"kept: gen/{gen.name}, for train " in done.stdout
    assert "of row one, which runs at this moment" in done.stdout
    assert "removed 1 item" in done.stdout
    assert not gone.exists()
    assert named.returncode == 1
    assert f"gen/{gen.name} is needed by train" in named.stdout
    assert gen.is_dir()
    assert not list(volume.glob("artefacts/*/*/.plan.json"))
    assert "kept" not in harness(fakes.env, "gc", "--specs", other, "--volume", volume).stdout


def test_what_a_stage_that_waits_in_slurm_reads_is_kept_until_its_job_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, other = (
        tmp_path / "volume",
        write_row(tmp_path / "others", "other", **GIVEN),
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    spec = write_row(tmp_path / "specs")
    make(volume, spec)
    (plan,) = planned(volume, spec)
    gen, train = plan.stages
    Store(volume).remove(train.made.folder)
    made = Submission(Store(volume), gen.planner.files, SlurmSite(), None, Console())
    made.records.prepare()
    kind = Kind(Asked(1, 0, None, 10, 1), ("PATH",))
    made.records.write_order("s", None, made._order(train, plan, kind, time.time()))
    record = Submitted("train", train.key, "s", None, job="12")
    made.records.write_submitted(record)
    listed = ("gc", "--specs", other, "--volume", volume)
    words = f"kept: gen/{gen.made.folder.name}, for train {train.key[:12]}, which is submitted to"
    assert words in command(*listed).stdout

    # Slurm itself knows better, where it can be asked.
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\necho '12|PENDING|||harness:s|Priority'\n")
    squeue.chmod(0o755)
    assert words in command(*listed).stdout
    squeue.write_text("#!/bin/sh\n")
    assert "kept" not in command(*listed).stdout
    squeue.unlink()
    for outcome, is_kept in (("requeued", True), ("failed", False)):
        attempt = Attempt("12", "s", "n1", 0.0, outcome=outcome)
        made.records.begin("train", train.key, attempt)
        assert ("kept" in command(*listed).stdout) == is_kept
    made.records.write_submitted(replace(record, submission="t", cancelled=True))
    assert "kept" not in command(*listed, "--yes").stdout
    assert not gen.made.folder.exists()
