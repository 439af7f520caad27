"""Stages of jobs in containers: a row by a real charliecloud and a real podman, where they are here
(see tests/docker/runtimes), and nodes that lack an image."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.artefact import environment
from harness.run.executors.image_archive import CONFIG
from tests.docker.compare_matrices import differences, read
from tests.helpers import ROOT, FakeStages, harness
from tests.run.executors.small_image import write_archive
from tests.run.slurm.cluster import Cluster
from tests.run.slurm.login_node import (
    Login,
    configure,
    ended,
    manifests,
    small_row,
    submissions,
    until,
)
from tests.run.slurm.test_nodes import mounts

__all__ = ["mounts"]

pytestmark = pytest.mark.slurm

CONTROL = ROOT / "specs" / "smoke" / "eval_null.yaml"
"""Its two stages, both in the image for answers, run no model."""


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "eval.tar"
    write_archive(path, "answer")
    return path


def call(login: Login, *command: str | Path) -> None:
    done = subprocess.run(command, env=login, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def give_image(login: Login, executor: str, archive: Path) -> None:
    """On the volume, or in podman's store unless it has one."""
    if executor == "charliecloud":
        made = harness(login, "images", "--executor", executor, archive)
        assert made.returncode == 0, made.stdout
    else:
        tag = environment.image_tag("answer", "cpu")
        there = subprocess.run(["podman", "image", "exists", tag], env=login)
        if there.returncode:
            call(login, "podman", "load", "-q", "-i", archive)


@pytest.mark.parametrize(
    ("executor", "program"), [("charliecloud", "ch-run"), ("podman", "podman")]
)
def test_a_row_by_containers_in_jobs_comes_to_the_table_that_a_local_run_has(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    login: Login,
    tmp_path: Path,
    executor: str,
    program: str,
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not here: tests/docker/runtimes")
    login["HARNESS_ACCELERATOR"] = "cpu"
    configure(login, executor=executor, probe=True)
    give_image(login, executor, request.getfixturevalue("archive"))
    submitted = harness(login, "submit", CONTROL)
    assert len(submissions(submitted.stdout)) == 2, submitted.stdout
    until(cluster, lambda: ended(cluster))
    status = harness(login, "status", CONTROL)
    assert status.stdout.splitlines()[-1] == "2 done", status.stdout
    for manifest in manifests(login).values():
        assert manifest["executor"]["executor"] == executor
        assert manifest["used"]["environment"]["started_by"]["node"] in ("n1", "n2", "n3")
    # The keys are those of every other executor with images.
    planned = harness(login, "plan", "--executor", "docker", CONTROL)
    assert "0 stages to run" in planned.stdout
    local = {**login, "HARNESS_DATA": str(tmp_path / "local")}
    assert harness(local, "run", CONTROL).returncode == 0
    for env, name in ((login, executor), (local, "local")):
        table = harness(env, "table", "--executor", name, "--out", tmp_path / name, CONTROL)
        assert table.returncode == 0, table.stdout
    assert not differences(*(read(tmp_path / n / "matrix.csv") for n in (executor, "local")))


@pytest.mark.usefixtures("mounts")
def test_a_node_without_the_image_is_told_before_jobs_queue_and_in_status(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path
) -> None:
    """Charliecloud by a stand-in, which is never come to."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ch-run").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "ch-run").chmod(0o755)
    images = tmp_path / "images"
    image = images / "harness-gen-latest"
    image.mkdir(parents=True)
    labels = {"harness.lock": environment.lock_digest("gen")}
    (image / CONFIG).write_text(json.dumps({"config": {"Labels": labels}}))
    login |= {
        "PATH": f"{tmp_path / 'bin'}:{login['PATH']}",
        "HARNESS_IMAGES": str(images),
        "HARNESS_ACCELERATOR": "cpu",
        "HARNESS_SLURM_FLAGS": "--nodelist=n3",
    }
    configure(login, executor="charliecloud")
    spec = small_row(tmp_path / "specs", train=None)
    with cluster.node_that_sees("n3", f"-t tmpfs none {images}"):
        submitted = harness(login, "submit", spec)
        until(cluster, lambda: ended(cluster))
        status = harness(login, "status", spec)
        configure(login, probe=True)
        refused = harness(login, "submit", spec)
    assert len(submissions(submitted.stdout)) == 1, submitted.stdout
    what = f"there is no image file {image} of harness-gen:latest on this machine"
    assert status.returncode == 1
    assert re.search(rf"gen: one .* failed on n3: {what}", status.stdout), status.stdout
    assert refused.returncode == 2
    assert f"on the node n3: {what}" in refused.stdout
    assert not submissions(refused.stdout)
