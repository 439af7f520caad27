"""Rows as jobs of a real Slurm: submitted, followed, cancelled, refused."""

import re
import shutil
from pathlib import Path

import pytest

from tests.helpers import FakeStages, evaluation, harness
from tests.run.slurm.cluster import Cluster
from tests.run.slurm.login_node import Login, ended, manifests, small_row, submissions, until

pytestmark = pytest.mark.slurm


def test_rows_become_few_jobs_that_end_and_say_where_they_ran(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path
) -> None:
    folder = tmp_path / "specs"
    specs = [
        small_row(folder, f"row-{n}", eval=evaluation(folder), train={"steps": n})
        for n in (1, 2, 3)
    ]
    submitted = harness(login, "submit", *specs)
    assert submitted.returncode == 0, submitted.stdout
    # The rows share their data: one gen, then three trainings, answers and judgings as arrays.
    assert len(submissions(submitted.stdout)) == 4
    again = harness(login, "submit", *specs)
    # The first may have ended by now.
    assert re.search(r"\b\d+ stages queued already", again.stdout), again.stdout
    assert not submissions(again.stdout)
    until(cluster, lambda: ended(cluster))
    status = harness(login, "status", *specs)
    assert status.returncode == 0, status.stdout
    assert status.stdout.splitlines()[-1] == "10 done"
    assert len(fakes.runs()) == 10
    found = manifests(login)
    assert len(found) == 10
    by = [manifest["used"]["environment"]["started_by"] for manifest in found.values()]
    assert {facts["node"] for facts in by} <= {"n1", "n2", "n3"}
    assert all(facts["slurm"] == "22.05.8" and facts["submitit"] for facts in by)


def test_what_failed_is_told_with_its_log_and_submitted_again_by_the_same_command(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path
) -> None:
    spec = small_row(tmp_path / "specs", eval=evaluation(tmp_path / "specs"))
    fakes.order("train", "break")
    harness(login, "submit", spec)
    until(cluster, lambda: ended(cluster))
    status = harness(login, "status", spec)
    assert status.returncode == 1
    assert "KeyError: 'learning_rate'" in status.stdout
    assert re.search(r"answer: one .* not run .*because train \w+ failed", status.stdout)
    assert re.search(r"judge: one .* not run .*because answer \w+ was not run", status.stdout)
    fakes.order("train", None)
    again = harness(login, "submit", spec)
    assert len(submissions(again.stdout)) == 3
    until(cluster, lambda: ended(cluster))
    assert harness(login, "status", spec).stdout.splitlines()[-1] == "4 done"


def test_pending_and_running_stages_say_what_for_and_where_and_cancelling_ends_both(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path
) -> None:
    spec = small_row(tmp_path / "specs")
    fakes.order("gen", "wait")
    harness(login, "submit", spec)
    until(cluster, lambda: (fakes.folder / "waiting").exists())
    status = harness(login, "status", spec).stdout
    assert re.search(r"gen: one .* running .* n[123] .*working: 1 of 2 steps", status)
    assert re.search(r"train: one .* pending .*waits for gen", status)
    cancelled = harness(login, "cancel", spec)
    assert cancelled.stdout.count("cancelled: ") == 2
    until(cluster, lambda: ended(cluster))
    status = harness(login, "status", spec).stdout
    assert status.splitlines()[-1] == "2 cancelled"
    assert harness(login, "cancel", spec).stdout == "nothing of these rows is queued\n"
    fakes.order("gen", None)
    assert len(submissions(harness(login, "submit", spec).stdout)) == 2
    until(cluster, lambda: ended(cluster))
    assert harness(login, "status", spec).stdout.splitlines()[-1] == "2 done"


@pytest.mark.parametrize("rows", [1, 2])
def test_a_job_that_slurm_took_before_sbatch_hung_is_found_and_does_its_work(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path, rows: int
) -> None:
    """Two rows are one array."""
    given = {"gen": None, "data": "seeds.jsonl"}
    specs = [
        small_row(tmp_path / "specs", f"row-{n}", train={"steps": n}, **given)
        for n in range(1, rows + 1)
    ]
    sbatch = shutil.which("sbatch", path=login["PATH"])
    (tmp_path / "bin").mkdir()
    hangs = tmp_path / "bin" / "sbatch"
    hangs.write_text(f'#!/bin/sh\n{sbatch} "$@"\ncase "$1" in --*) ;; *) sleep 100 ;; esac\n')
    hangs.chmod(0o755)
    with (fakes.folder / "sitecustomize.py").open("a") as file:
        file.write("from harness.run.slurm import tools\ntools.TIMEOUT_S = 3  # in place of 60\n")
    hung = harness({**login, "PATH": f"{hangs.parent}:{login['PATH']}"}, "submit", *specs)
    assert hung.returncode == 1, hung.stdout
    assert "sbatch: no answer within 3 s: whether it took" in hung.stdout
    assert not submissions(harness(login, "submit", *specs).stdout)
    until(cluster, lambda: ended(cluster))
    status = harness(login, "status", *specs)
    assert status.stdout.splitlines()[-1] == f"{rows} done", status.stdout
    assert len(fakes.runs("train")) == rows


def test_a_partition_that_is_not_there_is_refused_before_anything_queues(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path
) -> None:
    spec = small_row(tmp_path / "specs")
    refused = harness({**login, "HARNESS_SLURM_PARTITION": "gpus"}, "submit", spec)
    assert refused.returncode == 2
    assert "there is no partition 'gpus' here; there are main, short, urgent" in refused.stdout
    assert ended(cluster)
    doctor = harness(login, "doctor").stdout
    assert "22.05.8, submitit" in doctor
    assert "partition main: a job with no GPU would be taken" in doctor
    assert "volume on Slurm's nodes" in doctor
