"""The docker executor with a real engine and the gen image; `make images` first."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.artefact.keys import Files
from harness.errors import HarnessError
from harness.run.executors import Job
from harness.spec.train import Train
from tests.helpers import ROOT, give_gpus, harness, some_gpus, start, until, write_row
from tests.modeling.hub_server import GOOD_TOKEN, REVISION, Hub

pytestmark = pytest.mark.docker

SMOKE = ROOT / "specs" / "smoke"
SECRET = "sk-of-a-test-0123456789"
NOWHERE = "http://192.0.2.1/v1"
"""An address that no machine has (RFC 5737). Whether a network refuses it or says nothing, asking it
1,000 times outlasts a test."""


@pytest.fixture
def env() -> dict[str, str]:
    if shutil.which("docker") is None or docker("image", "inspect", "harness-gen:latest") is None:
        pytest.fail("there is no image harness-gen:latest: make images")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HARNESS_")}
    return {**kept, "HARNESS_ACCELERATOR": "cpu", "COLUMNS": "200", "ROW_TEST_KEY": SECRET}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume; what a failed test left running on it is removed."""
    yield tmp_path / "volume"
    for container in containers(tmp_path / "volume"):
        docker("rm", "-f", container)


def docker(*arguments: str) -> str | None:
    """The command's output; None where it failed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def containers(volume: Path, running: bool = False) -> list[str]:
    """Ids of the containers that work on the volume."""
    ids = docker("ps", "-q", *([] if running else ["-a"]), "--filter", "label=harness.work") or ""
    found = []
    for container in ids.split():
        label = '{{index .Config.Labels "harness.work"}}'
        work = docker("inspect", "--format", label, container)
        if work is not None and Path(work).is_relative_to(volume):
            found.append(container)
    return found


def gen_row(folder: Path, **teacher: Any) -> Path:
    """A row with the smoke table's gen stage, made small, and nothing else."""
    gen = {
        "recipe": "alpaca",
        "teacher": {"model": "teacher", **teacher},
        "seeds": str(SMOKE / "seeds.jsonl"),
        "prompt": str(SMOKE / "prompts" / "tasks.txt"),
        "examples": 20,
        "tasks_per_reply": 5,
        "requests_per_round": 1,
        "filter": {"max_similarity": 1},
    }
    return write_row(folder, gen=gen, train=None)


def run_command(spec: Path, volume: Path) -> list[str | Path]:
    return ["run", "--executor", "docker", spec, "--volume", volume]


def test_a_stage_runs_in_its_image_and_leaves_an_artefact_of_the_callers(
    env: dict[str, str], tmp_path: Path, volume: Path
) -> None:
    spec = gen_row(tmp_path / "specs", simulated={})
    done = harness(env, *run_command(spec, volume))
    assert done.returncode == 0, done.stdout
    (folder,) = volume.glob("artefacts/gen/*")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["executor"]["executor"] == "docker"
    assert manifest["executor"]["image"]["id"] == docker(
        "image", "inspect", "--format", "{{.Id}}", "harness-gen:latest"
    )
    assert manifest["used"]["environment"]["image"]["image"] == "gen"
    assert manifest["document"]["environment"]["image"] == "gen"
    assert len((folder / "data.jsonl").read_text().splitlines()) >= 20
    assert {(p.stat().st_uid, p.stat().st_gid) for p in folder.rglob("*")} == {
        (os.getuid(), os.getgid())
    }
    assert containers(volume) == []


def test_stopped_a_container_ends_and_its_key_was_in_no_record_of_the_engine(
    env: dict[str, str], tmp_path: Path, volume: Path
) -> None:
    spec = gen_row(tmp_path / "specs", base_url=NOWHERE, api_key_env="ROW_TEST_KEY")
    process = start(env, *run_command(spec, volume))
    until(lambda: containers(volume, running=True))
    (container,) = containers(volume)
    record = docker("inspect", container)
    assert record is not None
    assert "ROW_TEST_KEY_FILE=/run/secrets/ROW_TEST_KEY" in record
    assert SECRET not in record
    read = docker("exec", container, "cat", "/run/secrets/ROW_TEST_KEY")
    assert read == SECRET
    host = json.loads(record)[0]["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["NetworkMode"]) == (
        True,
        ["ALL"],
        "bridge",
    )

    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 130, output
    assert re.search(r"was stopped(; what it has made so far is kept| before it had made)", output)
    assert containers(volume) == []
    assert len(list(volume.glob("work/gen-*"))) == 1
    written = [p for p in volume.rglob("*") if p.is_file()]
    assert not [p for p in written if SECRET.encode() in p.read_bytes()]


def test_the_container_of_a_killed_harness_is_removed_by_the_next_run_which_goes_on(
    env: dict[str, str], tmp_path: Path, volume: Path
) -> None:
    spec = gen_row(tmp_path / "specs", simulated={"faults": {"slow": 1.0}})
    process = start(env, *run_command(spec, volume))
    until(lambda: containers(volume, running=True))
    process.kill()
    process.communicate()
    (orphan,) = containers(volume, running=True)

    done = harness(env, *run_command(spec, volume))
    assert done.returncode == 0, done.stdout
    assert docker("inspect", orphan) is None
    assert containers(volume) == []
    assert len(list(volume.glob("artefacts/gen/*"))) == 1


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that listens where containers reach this machine."""
    shown = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    hub = Hub(shown or "172.17.0.1")
    hub.data_sets["some/set"] = {"data.jsonl": b'{"instruction": "Say no.", "output": "no"}\n'}
    hub.gated.add("some/set")
    yield hub
    hub.close()


def test_a_container_that_downloads_has_the_mirror_the_token_and_the_proxys_exceptions(
    env: dict[str, str], tmp_path: Path, volume: Path, hub: Hub
) -> None:
    host = hub.url.split("/")[2].split(":")[0]
    env |= {"HF_ENDPOINT": hub.url, "HTTP_PROXY": "http://192.0.2.1:3128", "NO_PROXY": host}
    gen = {"recipe": "import", "hub": {"id": "some/set", "revision": REVISION}}
    spec = write_row(tmp_path / "specs", gen=gen, train=None)
    refused = harness(env, *run_command(spec, volume))
    assert refused.returncode == 2, refused.stdout
    assert "the hub does not let this token read some/set" in refused.stdout

    done = harness({**env, "HF_TOKEN": GOOD_TOKEN}, *run_command(spec, volume))
    assert done.returncode == 0, done.stdout
    assert hub.fetched == ["data.jsonl"]
    (made,) = volume.glob("artefacts/gen/*/data.jsonl")
    assert "Say no." in made.read_text()
    written = [p for p in volume.rglob("*") if p.is_file()]
    assert not [p for p in written if GOOD_TOKEN.encode() in p.read_bytes()]


def test_a_later_stages_missing_image_is_told_before_the_first_stage_runs(
    env: dict[str, str], tmp_path: Path, volume: Path
) -> None:
    if docker("image", "inspect", "harness-train:cpu") is not None:
        pytest.skip("the train image is here")
    spec = write_row(tmp_path / "specs")
    done = harness(env, *run_command(spec, volume))
    assert done.returncode == 2, done.stdout
    assert "there is no image harness-train:cpu" in done.stdout
    assert not list(volume.glob("logs/*"))


def test_an_engine_without_the_toolkit_is_told_that_it_lacks_it_and_nothing_is_left(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.run.executors.devices import has_toolkit
    from harness.run.executors.docker import DockerExecutor, connect

    if has_toolkit(connect().info()):
        pytest.skip("this engine has the toolkit")
    give_gpus(monkeypatch, *some_gpus(1))
    (tmp_path / "work").mkdir()
    job = Job(
        stage="train",
        key=f"{os.getpid():064x}",
        title="train: one",
        params={"train": Train()},
        inputs={},
        work=str(tmp_path / "work"),
        log=tmp_path / "train.log",
        lock=0,
        image_stage="train",
    )
    executor = DockerExecutor()
    gen = executor._client.images.get("harness-gen:latest")
    monkeypatch.setattr(executor, "find_image", lambda stage: gen)
    with pytest.raises(HarnessError, match="Docker cannot pass a GPU into a container") as e:
        executor.run(job, Files(None, None), lambda event: None)
    assert "NVIDIA Container Toolkit" in e.value.hint
    assert containers(tmp_path) == []
