"""Trainings that Slurm ends before they are through, and a table that is the same as without Slurm."""

import json
import re
import time
from math import ceil
from pathlib import Path

import pytest
import yaml

from tests.docker.compare_matrices import differences, read
from tests.helpers import ROOT, harness, start
from tests.run.slurm.cluster import NODES, Cluster
from tests.run.slurm.login_node import (
    Login,
    attempts,
    configure,
    ended,
    manifests,
    submissions,
    until,
)

pytestmark = pytest.mark.slurm

STEPS = 2500
"""Enough for a minute or two, in which the first training's time is up."""
SMOKE = ROOT / "specs" / "smoke"


def training(folder: Path, **train: object) -> Path:
    """A row that trains the smoke rows' model on a given file."""
    folder.mkdir()
    words = ["red", "blue", "green", "small", "large", "old", "new", "warm", "cold"]
    lines = [
        json.dumps({"instruction": f"Say {a} and {b}.", "output": f"{a} and {b}"})
        for a in words
        for b in words
    ]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    spec = {
        "extends": str(SMOKE / "_base.yaml"), "row": "trained", "table": "tests", "title": "A training",
        "eval": None, "data": "data.jsonl", "limits": {"cpus": 1, "memory": "2g"},
        "train": {"batch_size": 16, "cutoff_length": 256, "threads": 1, **train},
    }  # fmt: skip
    path = folder / "trained.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def checkpoints(volume: Path) -> list[bool]:
    """Whether each of the two trainings has one."""
    found = {p.parts[-4] for p in volume.glob("work/train-*/checkpoints/*/finished.json")}
    return [len(found) > n for n in range(2)]


def last_checkpoint(volume: Path) -> int:
    """The step of the newest of the only training; 0: there is none."""
    found = volume.glob("work/train-*/checkpoints/*/finished.json")
    return max((int(re.sub(r"\D", "", p.parent.name)) for p in found), default=0)


def node_of(cluster: Cluster, job: str) -> str:
    return cluster.call("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()


def outcomes(login: Login) -> list[list[str]]:
    """Of each training's starts, those of the first task of its array first."""
    told = sorted(attempts(login, "train"), key=lambda each: each[0]["job"])
    return [[attempt["outcome"] for attempt in each] for each in told]


def losses(login: Login) -> list[list[str]]:
    """The training logs of all trainings on the volume."""
    found = sorted(Path(login["HARNESS_DATA"]).glob("artefacts/train/*/trainer_log.jsonl"))
    return [path.read_text().splitlines() for path in found]


def test_trainings_whose_time_is_up_or_whose_node_dies_go_on_from_their_checkpoints(
    cluster: Cluster, login: Login, tmp_path: Path
) -> None:
    spec = training(tmp_path / "specs", steps=STEPS, checkpoint_steps=40)
    document = yaml.safe_load(spec.read_text())
    spec.write_text(yaml.safe_dump({**document, "replicates": {"train_seeds": [1, 2]}}))
    configure(login, time="60", warning_seconds=60, flags=["--exclusive"])
    volume = Path(login["HARNESS_DATA"])
    began = time.monotonic()
    submitted = harness(login, "submit", spec)
    assert "train, an array of 2" in submitted.stdout, submitted.stdout
    (job,) = submissions(submitted.stdout)
    until(cluster, lambda: all(checkpoints(volume)), 300)
    cluster.kill_node(node_of(cluster, f"{job}_0"))
    # The other's time will be up within two minutes, of which Slurm warns it for a whole one.
    limit = ceil((time.monotonic() - began) / 60 + 0.6)
    cluster.call("scontrol", "update", f"JobId={job}_1", f"TimeLimit={limit}")
    until(cluster, lambda: outcomes(login)[1][0] == "requeued", 150)
    cluster.call("scontrol", "update", f"JobId={job}_1", "TimeLimit=60")
    until(cluster, lambda: ended(cluster), 400)
    status = harness(login, "status", spec)
    for node in set(NODES) - cluster.daemons.keys():
        cluster.start_node(node)
    assert status.stdout.splitlines()[-1] == "2 done", status.stdout
    assert outcomes(login) == [["", "done"], ["requeued", "done"]]
    output = "".join(p.read_text() for p in volume.glob("slurm/jobs/*_log.out"))
    assert output.count("going on from the checkpoint at step") >= 2
    assert "its time is up in 60 s or more" in output
    assert "stopping: the stage gets as long as the job lasts to end in order" in output
    for log in losses(login):
        assert [json.loads(line)["step"] for line in log] == list(range(1, STEPS + 1))


def test_a_training_that_is_requeued_and_then_preempted_goes_on_from_its_checkpoints(
    cluster: Cluster, login: Login, tmp_path: Path
) -> None:
    spec = training(tmp_path / "specs", steps=STEPS, checkpoint_steps=40)
    volume, done = Path(login["HARNESS_DATA"]), tmp_path / "done"
    (job,) = submissions(harness(login, "submit", spec).stdout)
    until(cluster, lambda: last_checkpoint(volume))
    cluster.call("scontrol", "requeue", job)
    until(cluster, lambda: outcomes(login)[0][0] == "stopped")
    first = last_checkpoint(volume)
    until(cluster, lambda: last_checkpoint(volume) > first)
    urgent = f"until [ -e {done} ]; do sleep 0.2; done"
    flags = ("--partition=urgent", "--nodes=3", "--exclusive", f"--output={tmp_path}/urgent.out")
    cluster.call("sbatch", *flags, f"--wrap={urgent}")
    running = ("squeue", "--noheader", "--partition=urgent", "--states=RUNNING")
    until(cluster, lambda: cluster.call(*running))
    status = harness(login, "status", spec)
    done.touch()
    until(cluster, lambda: ended(cluster), 400)
    assert re.search(r"pending .*; Slurm asked it to end at its start number 2, it goes on",
                     status.stdout), status.stdout  # fmt: skip
    status = harness(login, "status", spec)
    assert status.stdout.splitlines()[-1] == "1 done", status.stdout
    assert outcomes(login) == [["stopped", "stopped", "done"]]
    output = "".join(p.read_text() for p in volume.glob("slurm/jobs/*_log.out"))
    assert output.count("going on from the checkpoint at step") == 2
    (log,) = losses(login)
    assert [json.loads(line)["step"] for line in log] == list(range(1, STEPS + 1))


def test_a_table_through_slurm_has_the_keys_and_the_matrix_of_a_local_one(
    cluster: Cluster, login: Login, tmp_path: Path
) -> None:
    specs = [SMOKE / "base.yaml", SMOKE / "sft.yaml"]
    local = {**login, "HARNESS_DATA": str(tmp_path / "local")}
    beside = start(local, "run", "--scale", "tiny", *specs)
    submitted = harness(login, "submit", "--scale", "tiny", *specs)
    assert submitted.returncode == 0, submitted.stdout
    beside.communicate(timeout=300)
    until(cluster, lambda: ended(cluster), 240)
    status = harness(login, "status", "--scale", "tiny", *specs)
    assert status.returncode == 0, status.stdout
    assert manifests(login).keys() == manifests(local).keys()
    matrices = []
    for env in (login, local):
        out = tmp_path / f"results-{len(matrices)}"
        harness(env, "table", "--scale", "tiny", "--executor", "local", "--out", out, *specs)
        matrices.append(read(out / "matrix.csv"))
    # All but where a stage ran and how long it took.
    assert differences(*matrices) == []
    assert [line["row"] for line in matrices[0]] == ["smoke-base-tiny", "smoke-sft-tiny"]


def test_a_training_on_two_machines_is_one_job_of_two_nodes_that_find_each_other(
    cluster: Cluster, login: Login, tmp_path: Path
) -> None:
    spec = training(tmp_path / "specs", steps=12, launch={"machines": 2})
    alone = harness(login, "run", spec)
    assert alone.returncode == 2
    assert "train.launch asks for 2 machines" in alone.stdout
    assert "Under Slurm `harness submit` does all of it" in alone.stdout
    submitted = harness(login, "submit", spec)
    (job,) = submissions(submitted.stdout)
    assert cluster.call("squeue", "--noheader", f"--jobs={job}", "--format=%D").strip() == "2"
    until(cluster, lambda: ended(cluster), 240)
    status = harness(login, "status", spec)
    assert status.stdout.splitlines()[-1] == "1 done", status.stdout
    (manifest,) = manifests(login).values()
    assert [machine["rank"] for machine in manifest["used"]["machines"]] == [0, 1]
    (log,) = losses(login)
    assert len(log) == 12


def test_several_machines_stop_together_with_a_checkpoint_when_slurm_warns_them(
    cluster: Cluster, login: Login, tmp_path: Path
) -> None:
    spec = training(tmp_path / "specs", steps=400, launch={"machines": 2})
    submitted = harness(login, "submit", spec)
    (job,) = submissions(submitted.stdout)
    volume = Path(login["HARNESS_DATA"])
    until(cluster, lambda: "of 400 steps" in harness(login, "status", spec).stdout, 240)
    cluster.call("scancel", "--signal=USR2", job)
    until(cluster, lambda: outcomes(login)[0][0] == "requeued", 100)
    assert all(checkpoints(volume)[:1])
    until(cluster, lambda: ended(cluster), 300)
    assert outcomes(login) == [["requeued", "done"]], harness(login, "status", spec).stdout
    outputs = "".join(p.read_text() for p in volume.glob("slurm/jobs/*_log.out"))
    assert "going on from the checkpoint at step" in outputs
    (log,) = losses(login)
    assert [json.loads(line)["step"] for line in log] == list(range(1, 401))
