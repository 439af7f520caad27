"""Nodes that are not as the login node is, and keys, which reach the stages that need them alone."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.run.slurm import checkout
from tests.helpers import ROOT, FakeStages, harness
from tests.run.slurm.cluster import Cluster
from tests.run.slurm.login_node import (
    Login,
    attempts,
    configure,
    ended,
    small_row,
    submissions,
    until,
)
from tests.run.slurm.test_training import training

pytestmark = pytest.mark.slurm

KEY = "sk-not-to-be-seen-1234567890abcdef"
ANOTHER_COMMIT = "1234567890abcdef1234567890abcdef12345678"


@pytest.fixture
def mounts() -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets no process have mounts of its own")


def another_checkout(other: Path) -> tuple[str, str]:
    """Mounts by which a node sees this one's code at another commit."""
    shutil.copytree(ROOT / "harness", other / "harness")
    shutil.copytree(ROOT / "requirements", other / "requirements")
    for name in (".git", ".venv"):
        (other / name).mkdir()
    (other / ".git" / "HEAD").write_text(ANOTHER_COMMIT + "\n")
    return f"--bind {ROOT / '.venv'} {other / '.venv'}", f"--rbind {other} {ROOT}"


@pytest.mark.usefixtures("mounts")
def test_a_node_without_the_volume_is_told_before_jobs_queue_and_in_status(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path
) -> None:
    spec = small_row(tmp_path / "specs", train=None)
    hidden = tmp_path / "volume"
    hidden.mkdir()
    there = {**login, "HARNESS_SLURM_FLAGS": "--nodelist=n3"}
    with cluster.node_that_sees("n3", f"-t tmpfs none {hidden}"):
        submitted = harness(there, "submit", spec)
        until(cluster, lambda: ended(cluster))
        status = harness(there, "status", spec)
        configure(login, probe=True)
        refused = harness(there, "submit", spec)
    assert len(submissions(submitted.stdout)) == 1
    assert "left nothing on the volume on n3: most often the node does not see" in status.stdout
    assert refused.returncode == 2
    assert f"the node n3 does not see the volume {hidden}" in refused.stdout
    assert not submissions(refused.stdout)


@pytest.mark.usefixtures("mounts")
def test_another_checkout_on_a_node_is_refused_with_both_commits(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path
) -> None:
    mounts = another_checkout(tmp_path / "checkout")
    spec = small_row(tmp_path / "specs", train=None)
    there = {**login, "HARNESS_SLURM_FLAGS": "--nodelist=n3"}
    with cluster.node_that_sees("n3", *mounts):
        harness(there, "submit", spec)
        until(cluster, lambda: ended(cluster))
        status = harness(there, "status", spec)
        configure(login, probe=True)
        refused = harness(there, "submit", spec)
    here = checkout.here().commit[:12]
    for output in (status.stdout, refused.stdout):
        assert here in output
        assert ANOTHER_COMMIT[:12] in output
    assert (status.returncode, refused.returncode) == (1, 2)
    assert not submissions(refused.stdout)


@pytest.mark.usefixtures("mounts")
def test_a_second_machine_that_refuses_fails_the_training_with_its_reason(
    cluster: Cluster, login: Login, tmp_path: Path
) -> None:
    spec = training(tmp_path / "specs", steps=12, launch={"machines": 2})
    there = {**login, "HARNESS_SLURM_FLAGS": "--nodelist=n[1,3]"}
    with cluster.node_that_sees("n3", *another_checkout(tmp_path / "checkout")):
        submitted = harness(there, "submit", spec)
        assert submissions(submitted.stdout), submitted.stdout
        until(cluster, lambda: ended(cluster))
        status = harness(there, "status", spec)
    assert status.returncode == 1, status.stdout
    assert re.search(r"failed on n3: .* the checkout differs", status.stdout), status.stdout
    assert ANOTHER_COMMIT[:12] in status.stdout


def test_a_spec_that_changed_while_its_job_queued_is_refused_with_both_keys(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path
) -> None:
    spec = small_row(tmp_path / "specs", train=None)
    submitted = harness({**login, "HARNESS_SLURM_FLAGS": "--hold"}, "submit", spec)
    planned = spec.read_text()
    spec.write_text(planned.replace("examples: 3", "examples: 4"))
    cluster.call("scontrol", "release", *submissions(submitted.stdout))
    until(cluster, lambda: ended(cluster))
    assert not fakes.runs()
    ((attempt,),) = attempts(login, "gen")
    assert attempt["outcome"] == "refused"
    assert re.search(r"the key \w{12}, but on n\d the stage has the key \w{12}", attempt["message"])
    assert "examples" in attempt["message"]
    spec.write_text(planned)
    status = harness(login, "status", spec)
    assert status.returncode == 1
    assert "submitted with the key" in status.stdout


def test_a_key_reaches_the_stage_that_needs_it_and_nothing_that_stays(
    cluster: Cluster, login: Login, fakes: FakeStages, tmp_path: Path
) -> None:
    login |= {"ROW_TEST_KEY": KEY, "OTHER_API_KEY": KEY, "SOMETHING_PRIVATE": KEY}
    teacher = {"model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "ROW_TEST_KEY"}
    gen = {
        "recipe": "alpaca", "teacher": teacher, "seeds": "seeds.jsonl", "prompt": "tasks.txt",
        "examples": 3, "shown": 1,
    }  # fmt: skip
    spec = small_row(tmp_path / "specs", gen=gen)
    variables = fakes.folder / "variables"
    fakes.order("train", "until told")
    submitted = harness(login, "submit", spec)
    assert len(submissions(submitted.stdout)) == 2, submitted.stdout
    until(cluster, lambda: fakes.runs("gen"))
    until(cluster, variables.exists)
    of_gen = json.loads(variables.read_text())
    until(cluster, lambda: fakes.runs("train"))
    jobs = cluster.call("scontrol", "show", "job", "--details")
    # Of the job and all below it, as whoever looks at the node sees them.
    words = [Path(f"/proc/{pid}/cmdline").read_bytes() for n in ("n1", "n2", "n3")
             for pid in cluster.processes(n)]  # fmt: skip
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for n in ("n1", "n2", "n3")
                    for pid in cluster.processes(n)]  # fmt: skip
    (fakes.folder / "go").touch()
    until(cluster, lambda: ended(cluster))
    assert of_gen["ROW_TEST_KEY"] == KEY
    assert "SOMETHING_PRIVATE" not in of_gen
    assert "OTHER_API_KEY" not in of_gen
    assert words
    assert not any(KEY.encode() in text for text in [*words, *environments, jobs.encode()])
    kept = [p for p in Path(login["HARNESS_DATA"]).rglob("*") if p.is_file()]
    assert any(p.suffix == ".sh" for p in kept)
    assert [p for p in kept if KEY.encode() in p.read_bytes()] == []
