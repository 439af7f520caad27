"""The podman executor against a stand-in for the engine: what differs from Docker's."""

import os
import socket
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from harness.artefact import environment
from harness.artefact.keys import Files
from harness.errors import InputError
from harness.run.executors import Job, make, notes_of, podman
from harness.run.executors.podman import PodmanExecutor
from harness.spec.train import Train
from tests.helpers import give_gpus, some_gpus
from tests.run.executors.test_docker import Engine, job, mounts

__all__ = ["job"]
ROOTLESS = {"security": {"rootless": True}, "cgroupVersion": "v2"}
AS_ROOT = {"security": {"rootless": False}, "cgroupVersion": "v1"}
ALL = ["cpuset", "cpu", "io", "memory", "pids"]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    engine.api = podman._Api.__new__(podman._Api)  # type: ignore[attr-defined]
    monkeypatch.setattr(podman, "connect", lambda: engine)
    monkeypatch.setattr(podman, "host_facts", lambda client: {**ROOTLESS, "cgroupControllers": ALL})
    monkeypatch.setattr(environment, "accelerator", lambda: "cpu")
    return engine


def run(job: Job) -> PodmanExecutor:
    executor = PodmanExecutor()
    executor.run(job, Files(None, None), lambda event: None)
    return executor


def test_a_stage_is_confined_as_by_docker(engine: Engine, job: Job) -> None:
    run(job)
    made = engine.made[-1].settings
    assert made["user"] == f"{os.getuid()}:{os.getgid()}"
    assert (made["read_only"], made["cap_drop"], made["network_mode"]) == (True, ["ALL"], "none")
    assert made["security_opt"] == ["no-new-privileges", "label=disable"]
    assert mounts(made) == {
        "/work": (str(job.folder), False),
        "/inputs/model": (str(job.inputs["model"]), True),
    }


def test_with_a_network_podman_itself_names_this_machine(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    run(replace(job, stage="gen", network=True))
    made = engine.made[-1].settings
    assert (made["network_mode"], "extra_hosts" in made) == ("bridge", False)
    assert made["environment"]["NO_PROXY"].endswith(",127.0.0.1,host.containers.internal")


def test_gpus_go_in_by_the_names_that_the_toolkit_lists_them_under(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(4))
    run(replace(job, params={"train": Train.model_validate({"launch": {"processes": 2}})}))
    (request,) = engine.made[-1].settings["device_requests"]
    assert (request["Driver"], request["DeviceIDs"]) == (
        "cdi",
        ["nvidia.com/gpu=GPU-0000", "nvidia.com/gpu=GPU-1111"],
    )


@pytest.mark.parametrize(("host", "asked"), [(ROOTLESS, "keep-id"), (AS_ROOT, None)])
def test_rootless_the_caller_has_its_own_number_inside(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, host: dict[str, Any], asked: str | None
) -> None:
    monkeypatch.setattr(podman, "host_facts", lambda client: host)
    PodmanExecutor()
    sent: list[dict[str, Any]] = []
    create = "create_container_from_config"
    monkeypatch.setattr(docker.APIClient, create, lambda self, config, *rest: sent.append(config))
    engine.api.create_container_from_config({"HostConfig": {}})  # type: ignore[attr-defined]
    assert [config["HostConfig"].get("UsernsMode") for config in sent] == [asked]


@pytest.mark.parametrize(
    ("host", "lacks"),
    [
        ({**ROOTLESS, "cgroupControllers": ALL}, []),
        (AS_ROOT, []),
        (
            {**ROOTLESS, "cgroupVersion": "v1"},
            ["limits.memory, limits.cpus and limits.pids do not hold: rootless on cgroups v1"],
        ),
        (
            {**ROOTLESS, "cgroupControllers": ["memory", "pids"]},
            ["limits.cpus cannot hold: cgroup controllers not delegated to this user"],
        ),
    ],
)
def test_limits_that_do_not_hold_are_said_and_stand_in_the_record(
    engine: Engine,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    host: dict[str, Any],
    lacks: list[str],
) -> None:
    monkeypatch.setattr(podman, "host_facts", lambda client: host)
    record = run(job).describe()
    assert record.get("lacks", []) == lacks
    assert notes_of(record) == [f"podman: {lack}" for lack in lacks]
    assert record["image"] is not None
    assert record["image"]["lock"] == environment.lock_digest("train-cpu")


@pytest.mark.parametrize(
    ("lock", "told"), [(None, "there is no image harness-train:cpu"), ("a" * 64, "another lock")]
)
def test_an_image_that_is_not_this_checkouts_is_told_with_how_podman_gets_it(
    engine: Engine, job: Job, lock: str | None, told: str
) -> None:
    engine.locks.pop("harness-train:cpu")
    if lock:
        engine.locks["harness-train:cpu"] = lock
    with pytest.raises(InputError, match=told) as e:
        run(job)
    assert "podman build -f Dockerfile.train -t harness-train:cpu ." in e.value.hint
    assert "docker save harness-train:cpu | podman load" in e.value.hint


def test_keys_are_those_of_the_docker_executor() -> None:
    for stage in environment.STAGES:
        by_docker = environment.environment_of(stage, "docker")
        for name in ("podman", "apptainer", "charliecloud"):
            assert environment.environment_of(stage, name) == by_docker


def test_a_socket_that_refuses_is_told_with_the_variable_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "podman.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    monkeypatch.setenv(podman.SOCKET_VARIABLE, f"unix://{path}")
    told = f"podman does not answer at unix://{path}: Connection refused"
    with pytest.raises(InputError, match=told) as e:
        make("podman")
    assert "Correct CONTAINER_HOST, or unset it" in e.value.hint
    assert f"podman system service --time=0 unix://{path}" in e.value.hint


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a running service; its folder of programs."""
    monkeypatch.delenv(podman.SOCKET_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(podman, "SYSTEM_SOCKET", tmp_path / "absent.sock")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    podman._start_service.cache_clear()
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_a_machine_without_podman_is_told_what_installs_it(bare: Path) -> None:
    with pytest.raises(InputError, match="podman is not on this machine") as e:
        make("podman")
    assert "apt install podman" in e.value.hint


def test_a_service_that_cannot_start_is_told_in_its_own_last_words(bare: Path) -> None:
    program = bare / "podman"
    program.write_text("#!/bin/sh\necho first >&2\necho cannot set up namespace >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(InputError, match="does not start: cannot set up namespace") as e:
        make("podman")
    assert "/etc/subuid" in e.value.hint


SLOW_TO_LISTEN = """#!{python}
import socket, sys, time
with socket.socket(socket.AF_UNIX) as service:
    service.bind(sys.argv[-1].removeprefix("unix://"))
    time.sleep(0.5)
    service.listen()
    time.sleep(60)
"""


def test_a_service_is_called_once_it_listens_and_not_when_its_socket_is_there(bare: Path) -> None:
    program = bare / "podman"
    program.write_text(SLOW_TO_LISTEN.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = podman._start_service()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
