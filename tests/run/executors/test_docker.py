"""The docker executor against a stand-in for the engine: what a stage's container may do."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from harness.answer.answer import Answer
from harness.artefact import environment, gpus
from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.common import env_variables
from harness.errors import HarnessError, InputError, Interrupted
from harness.judge.kinds.held_out_loss import LossJudge
from harness.row.row import Limits
from harness.run.executors import Job, Share, StageFailed, secret_files
from harness.run.executors import docker as docker_executor
from harness.run.executors.docker import DockerExecutor
from harness.spec.base import DataPath
from harness.spec.train import Train
from tests.helpers import (
    FakeStages,
    evaluation,
    give_gpus,
    harness,
    planned,
    some_gpus,
    until,
    write_row,
)


class Container:
    """What the executor does with a container; `during` is called while it "runs"."""

    def __init__(self, engine: "Engine", settings: dict[str, Any]) -> None:
        self.engine = engine
        self.settings = settings
        self.status = "created"
        self.done: list[str] = []
        self.attrs = {"State": {"OOMKilled": engine.out_of_memory}}

    def attach(self, **how: Any) -> Iterator[tuple[bytes | None, bytes | None]]:
        assert how == {"stdout": True, "stderr": True, "stream": True, "demux": True}
        return self.stream()

    def stream(self) -> Iterator[tuple[bytes | None, bytes | None]]:
        assert self.done == ["start"], "attached before it starts, so that nothing is missed"
        for item in self.engine.says:
            if isinstance(item, BaseException):
                raise item
            yield item

    def start(self) -> None:
        self.done.append("start")
        self.status = "running"
        self.engine.during(self)

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.engine.code}

    def kill(self, signal: str = "SIGKILL") -> None:
        self.done.append(signal)
        if signal == "SIGKILL" or self.engine.obeys:
            self.status = "exited"

    def reload(self) -> None:
        pass

    def remove(self, force: bool) -> None:
        assert force
        self.done.append("remove")


class Image:
    id = "sha256:abc"

    def __init__(self, lock: str, labels: dict[str, str]) -> None:
        self.labels = {"harness.lock": lock, "harness.base": "python@sha256:def", **labels}


class Engine:
    """The parts of docker's client that the executor uses."""

    def __init__(self) -> None:
        self.made: list[Container] = []
        self.labels: dict[str, str] = {}
        self.left_over: list[Container] = []
        self.says: list[Any] = []
        self.code = 0
        self.obeys = True
        self.out_of_memory = False
        self.during = lambda container: None
        self.locks = {
            environment.image_tag(stage, accelerator): environment.lock_digest(
                environment.image_name(stage, accelerator)
            )
            for stage in environment.STAGES
            for accelerator in environment.ACCELERATORS
        }
        self.images = self.containers = self

    def get(self, tag: str) -> Image:
        if tag not in self.locks:
            raise docker.errors.ImageNotFound(tag)
        return Image(self.locks[tag], self.labels)

    def list(self, all: bool, filters: dict[str, Any]) -> list[Container]:
        assert all
        self.filters = filters
        return self.left_over

    def create(self, image: str, **settings: Any) -> Container:
        container = Container(self, {"image": image, **settings})
        self.made.append(container)
        return container


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(docker_executor, "connect", lambda: engine)
    monkeypatch.setattr(environment, "accelerator", lambda: "cpu")
    return engine


@pytest.fixture
def job(tmp_path: Path) -> Job:
    for name in ("work", "model"):
        (tmp_path / name).mkdir()
    return Job(
        stage="train",
        key="k" * 64,
        title="train: one [kkk]",
        params={},
        inputs={"model": str(tmp_path / "model")},
        work=str(tmp_path / "work"),
        log=tmp_path / "logs" / "train.log",
        lock=0,
        image_stage="train",
    )


def run(job: Job, on_event: Any = lambda event: None) -> None:
    DockerExecutor().run(job, Files(None, None), on_event)


def settings(engine: Engine, job: Job) -> dict[str, Any]:
    run(job)
    return engine.made[-1].settings


def mounts(made: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Target -> source, read-only."""
    return {m["Target"]: (m["Source"], bool(m.get("ReadOnly"))) for m in made["mounts"]}


def test_a_stage_runs_as_the_caller_read_only_without_capabilities_or_network(
    engine: Engine, job: Job
) -> None:
    made = settings(engine, job)
    assert made["image"] == Image.id
    assert made["entrypoint"] == ["python", "-m", "harness.stage"]
    assert made["command"] == ["/work/CALL.json"]
    assert made["user"] == f"{os.getuid()}:{os.getgid()}"
    assert made["read_only"] is True
    assert made["cap_drop"] == ["ALL"]
    assert made["security_opt"] == ["no-new-privileges:true"]
    assert made["network_mode"] == "none"
    assert made["environment"]["HF_HUB_OFFLINE"] == "1"
    assert made["init"] is True
    assert not {"privileged", "cap_add", "devices", "device_requests", "ports"} & set(made)


def test_a_stage_writes_only_its_work_folder(engine: Engine, job: Job) -> None:
    made = settings(engine, job)
    assert mounts(made) == {
        "/work": (str(job.folder), False),
        "/inputs/model": (str(job.inputs["model"]), True),
    }
    assert list(made["tmpfs"]) == ["/tmp"]


def test_given_files_are_mounted_read_only_once_each_where_the_call_says(
    engine: Engine, job: Job, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    paths = [tmp_path / "data.json", tmp_path / "one" / "data.json"]
    for path in paths:
        path.write_text("[]")
    job = replace(
        job, params={"a": DataPath(path=str(paths[0])), "b": [DataPath(path=str(p)) for p in paths]}
    )
    mounted = mounts(settings(engine, job))
    call = StageCall.read(job.folder / "CALL.json")
    assert call.work == "/work"
    assert call.inputs == {"model": "/inputs/model"}
    places = [d["path"] for d in call.params["b"]]
    assert call.params["a"]["path"] == places[0] != places[1]
    assert [mounted[place] for place in places] == [(str(path), True) for path in paths]


@pytest.mark.parametrize(("network", "mode"), [(True, "bridge"), (False, "none")])
def test_the_network_is_there_only_for_a_stage_that_needs_it(
    engine: Engine, job: Job, network: bool, mode: str
) -> None:
    job = replace(job, network=network)
    made = settings(engine, job)
    assert made["network_mode"] == mode
    assert made["environment"]["HF_HUB_OFFLINE"] == "1"
    assert made["use_config_proxy"] == network
    assert made.get("extra_hosts") == (
        {"host.docker.internal": "host-gateway"} if network else None
    )


PROXY = "http://proxy.example:3128"
DIRECT = "inside.example,localhost,127.0.0.1,host.docker.internal"
WAY = {"HTTPS_PROXY": PROXY, "http_proxy": PROXY, "NO_PROXY": DIRECT, "no_proxy": DIRECT}
MIRROR = {"HF_ENDPOINT": "https://mirror.example"}


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person behind a proxy, with a mirror and a token, has set."""
    for name in (*env_variables.HUB, *env_variables.PROXY, *env_variables.NO_PROXY):
        monkeypatch.delenv(name, raising=False)
    given = {"HTTPS_PROXY": PROXY, "http_proxy": PROXY, "no_proxy": "inside.example", **MIRROR}
    for name, value in {**given, "HF_TOKEN": "hf_secretsecret"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("stage", "network", "passed"),
    [
        ("fetch", True, {**WAY, **MIRROR, "HF_TOKEN_FILE": "/run/secrets/HF_TOKEN"}),
        ("gen", True, WAY),
        ("judge", False, {}),
        ("train", False, {}),
    ],
)
@pytest.mark.usefixtures("ways")
def test_the_way_to_the_hub_and_the_proxies_reach_only_the_stages_that_may_use_them(
    engine: Engine, job: Job, stage: str, network: bool, passed: dict[str, str]
) -> None:
    job = replace(job, stage=stage, network=network)
    job = replace(job, secrets=("HF_TOKEN",) if stage == "fetch" else ())
    made = settings(engine, job)
    offline = {} if stage == "fetch" else {**env_variables.OFFLINE, **env_variables.EXPANDABLE}
    assert made["environment"] == {**passed, **env_variables.QUIET, **offline}
    assert "hf_secretsecret" not in json.dumps(made, default=str)


@pytest.mark.parametrize("name", env_variables.ALLOCATOR)
def test_how_the_caller_has_a_gpus_memory_divided_reaches_the_container(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:128")
    made = settings(engine, job)["environment"]
    assert {n: made[n] for n in env_variables.ALLOCATOR if n in made} == {
        name: "max_split_size_mb:128"
    }


@pytest.mark.usefixtures("ways")
def test_a_hub_on_loopback_is_refused_and_a_proxy_there_is_left_out_and_told(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(job, stage="fetch", network=True)
    for name in ("HTTPS_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://me:secret@127.0.0.1:3128")
    events: list[dict[str, Any]] = []
    run(job, events.append)
    assert engine.made[-1].settings["environment"] == {**MIRROR, **env_variables.QUIET}
    told = [event["message"] for event in events]
    assert "HTTPS_PROXY is a loopback address" in told[0]
    assert len(told) == 2
    assert "secret" not in str(told)
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:8080")
    with pytest.raises(InputError, match="HF_ENDPOINT is http://localhost:8080, a loopback"):
        run(job)
    assert len(engine.made) == 1


def test_the_specs_limits_are_the_containers(engine: Engine, job: Job) -> None:
    free = settings(engine, job)
    assert not {"mem_limit", "nano_cpus"} & set(free)
    assert (free["shm_size"], free["pids_limit"]) == ("1g", 4096)

    job = replace(job, limits=Limits(cpus=1.5, memory="8g", shm="2g", pids=64))
    made = settings(engine, job)
    assert made["mem_limit"] == "8g"
    assert made["nano_cpus"] == 1_500_000_000
    assert (made["shm_size"], made["pids_limit"]) == ("2g", 64)


ONE, TWO = Train(), Train.model_validate({"launch": {"processes": 2}})
PROMPTS = {"hub": {"id": "o/n"}}
HERE = Answer.model_validate({"prompts": PROMPTS})
NO_MODEL = Answer.model_validate({"prompts": PROMPTS, "engine": {"kind": "null"}})
LOSS = LossJudge.model_validate({"examples": PROMPTS})


@pytest.mark.parametrize(
    ("stage", "part", "count"),
    [
        ("train", ONE, 1),
        ("train", TWO, 2),
        ("answer", HERE, 1),
        ("answer", NO_MODEL, 0),
        ("judge", LOSS, 1),
        ("gen", None, 0),
        ("fetch", None, 0),
    ],
)
def test_a_stage_is_passed_the_gpus_that_it_works_on_and_no_other(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch, stage: str, part: Any, count: int
) -> None:
    give_gpus(monkeypatch, *some_gpus(4))
    job = replace(job, stage=stage, params={stage: part})
    job = replace(job, image_stage="train" if stage == "fetch" else stage)
    made = settings(engine, job)
    requests = made.get("device_requests", [])
    assert [r["DeviceIDs"] for r in requests] == (
        [["GPU-0000", "GPU-1111"][:count]] if count else []
    )
    assert all((r["Count"], r["Capabilities"]) == (0, [["gpu"]]) for r in requests)
    call = StageCall.read(job.folder / "CALL.json")
    assert [gpu["uuid"] for gpu in call.gpus] == ["GPU-0000", "GPU-1111"][:count]


def test_the_callers_choice_of_gpus_reaches_the_container(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    job = replace(job, params={"train": ONE})
    made = settings(engine, job)
    assert [r["DeviceIDs"] for r in made["device_requests"]] == [["GPU-3333"]]
    assert "CUDA_VISIBLE_DEVICES" not in made["environment"]
    (gpu,) = StageCall.read(job.folder / "CALL.json").gpus
    assert (gpu["index"], gpu["name"], gpu["driver"]) == (3, "NVIDIA H", "580.95.05")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="needs 1 GPU, and CUDA_VISIBLE_DEVICES= shows 0"):
        run(job)


def test_on_wsl_where_all_gpus_are_one_device_cuda_is_told_which(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give_gpus(monkeypatch, *some_gpus(2))
    (tmp_path / "dxg").touch()
    monkeypatch.setattr(gpus, "DEV", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    job = replace(job, params={"train": ONE})
    made = settings(engine, job)
    assert [r["Count"] for r in made["device_requests"]] == [-1]
    assert made["environment"]["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_replay_and_the_cpus_images_are_passed_no_gpu(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    job = replace(job, stage="answer", params={"answer": HERE}, replay=True)
    assert "device_requests" not in settings(engine, job)
    job = replace(job, replay=False)
    monkeypatch.setattr(environment, "accelerator", lambda: "cpu")
    assert "device_requests" not in settings(engine, job)


def trained(folder: Path, **train: Any) -> Any:
    (plan,) = planned(folder / "volume", write_row(folder, train=train), executor="docker")
    return plan.stages


@pytest.mark.parametrize(
    ("devices", "train", "said"),
    [
        (some_gpus(1), {"launch": {"processes": 2}}, "its train stage needs 2 GPUs, and there is 1"),
        (some_gpus(2, driver="570.1"), {}, "its driver is 570.1, and CUDA 13 needs 580 or newer"),
        (some_gpus(1, capability=(7, 0)), {}, "NVIDIA H is sm_70, and CUDA 13 is for sm_75 and newer"),
    ],
)  # fmt: skip
def test_too_few_gpus_and_too_old_ones_are_refused_before_anything_runs(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: list[gpus.Gpu],
    train: dict[str, Any],
    said: str,
) -> None:
    give_gpus(monkeypatch, *devices)
    with pytest.raises(InputError, match=said):
        DockerExecutor().check(trained(tmp_path, **train))
    give_gpus(monkeypatch, *some_gpus(2))
    DockerExecutor().check(trained(tmp_path, **train))
    assert not engine.made


@pytest.mark.parametrize("labels", [{}, {"harness.compiler": "gcc"}])
@pytest.mark.parametrize("liger", [True, False])
def test_an_image_from_before_its_compiler_is_refused_for_a_training_that_needs_one_and_no_other(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    labels: dict[str, str],
    liger: bool,
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    engine.labels = labels
    stages = trained(tmp_path, liger_kernels=liger)
    if labels or not liger:
        DockerExecutor().check(stages)
        return
    with pytest.raises(InputError, match=r"row one: train\.liger_kernels needs a C compiler") as e:
        DockerExecutor().check(stages)
    assert "Rebuild the image: docker compose -f compose.yaml -f" in e.value.hint


def test_a_server_that_needs_more_gpus_than_there_are_is_refused_before_the_training(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    monkeypatch.setattr(docker_executor.vllm, "find_image", lambda client, engine: None)
    for count in (1, 2):
        parts = evaluation(tmp_path)
        parts["answer"]["engine"] = {"kind": "vllm", "tensor_parallel": count}
        spec = write_row(tmp_path, eval=parts)
        (plan,) = planned(tmp_path / "volume", spec, executor="docker")
        if count == 1:
            DockerExecutor().check(plan.stages)
    with pytest.raises(InputError, match="row one: vLLM needs 2 GPUs, and there is 1 here") as e:
        DockerExecutor().check(plan.stages)
    assert "Set tensor_parallel of the engine vllm: 1" in e.value.hint
    assert "HARNESS_ACCELERATOR" not in e.value.hint


def test_a_missing_image_for_cuda_is_built_with_the_files_for_it(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    engine.locks.clear()
    with pytest.raises(InputError, match="no image harness-train:cuda") as e:
        run(job)
    files = "docker compose -f compose.yaml -f compose.cuda.yaml build train"
    assert e.value.hint == f"Build it: {files}"


NO_TOOLKIT = [
    'could not select device driver "" with capabilities: [[gpu]]',
    "failed to discover GPU vendor from CDI: no known GPU vendor found",
]


@pytest.mark.parametrize("call", ["create", "start"])
@pytest.mark.parametrize("said", NO_TOOLKIT)
def test_a_gpu_that_docker_cannot_pass_on_is_told_with_the_toolkit(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch, call: str, said: str
) -> None:
    def refuse(*arguments: Any, **named: Any) -> Any:
        raise docker.errors.APIError(f"500 Server Error: Internal Server Error ({said})")

    give_gpus(monkeypatch, *some_gpus(1))
    job = replace(job, params={"train": ONE})
    monkeypatch.setattr(engine if call == "create" else Container, call, refuse)
    with pytest.raises(HarnessError, match="Docker cannot pass a GPU into a container") as e:
        run(job)
    assert said in e.value.message
    assert "NVIDIA Container Toolkit" in e.value.hint
    assert "nvidia-ctk runtime configure" in e.value.hint
    assert "stopped answering" not in str(e.value)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_key_reaches_the_stage_as_a_file_of_its_owner_that_is_gone_afterwards(
    engine: Engine,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    as_file: bool,
) -> None:
    if as_file:
        (tmp_path / "key").write_text("sk-secret\n")
        monkeypatch.setenv("SOME_KEY_FILE", str(tmp_path / "key"))
    else:
        monkeypatch.setenv("SOME_KEY", "sk-secret")
    monkeypatch.delenv("OTHER_KEY", raising=False)
    job = replace(job, secrets=("SOME_KEY", "OTHER_KEY"))
    seen = {}

    def look(container: Container) -> None:
        source, read_only = mounts(container.settings)["/run/secrets/SOME_KEY"]
        path = Path(source)
        seen["path"] = path
        assert read_only
        assert path.read_text() == "sk-secret"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700

    engine.during = look
    made = settings(engine, job)
    assert not seen["path"].exists()
    assert made["environment"]["SOME_KEY_FILE"] == "/run/secrets/SOME_KEY"
    assert "sk-secret" not in json.dumps(made, default=str)
    assert "sk-secret" not in (job.folder / "CALL.json").read_text()
    assert "OTHER_KEY" not in json.dumps(made, default=str)


def test_keys_that_a_killed_harness_left_are_removed_and_those_of_a_living_one_stay(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    memory = tmp_path / "memory"
    for owner in (gone.pid, os.getpid()):
        (memory / f"{secret_files.KEYS}-{owner}-abc").mkdir(parents=True)
    monkeypatch.setattr(secret_files, "MEMORY", memory)
    run(job)
    assert [p.name for p in memory.iterdir()] == [f"{secret_files.KEYS}-{os.getpid()}-abc"]


def test_a_key_file_that_is_not_there_is_the_users_fault(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY_FILE", "/nowhere/key")
    job = replace(job, secrets=("SOME_KEY",))
    with pytest.raises(InputError, match="/nowhere/key"):
        run(job)
    assert not engine.made


def test_events_and_logs_of_the_container_are_told_apart(engine: Engine, job: Job) -> None:
    engine.says = [
        (b'{"event": "progress", "do', b"a warning\n"),
        (b'ne": 1}\n', None),
        (None, b"another\n"),
    ]
    events: list[dict[str, Any]] = []
    run(job, events.append)
    assert events == [{"event": "progress", "done": 1}]
    assert job.log.read_text().splitlines()[1:] == ["a warning", "another"]
    assert engine.made[0].done == ["start", "remove"]


def test_what_ran_is_described_with_the_images_identity(engine: Engine, job: Job) -> None:
    executor = DockerExecutor()
    executor.run(job, Files(None, None), lambda event: None)
    assert executor.describe() == {
        "executor": "docker",
        "image": {
            "tag": "harness-train:cpu",
            "id": Image.id,
            "lock": environment.lock_digest("train-cpu"),
            "base": "python@sha256:def",
        },
    }


def test_a_missing_image_is_refused_with_the_command_that_builds_it(
    engine: Engine, job: Job
) -> None:
    del engine.locks["harness-train:cpu"]
    with pytest.raises(InputError, match=r"there is no image harness-train:cpu") as caught:
        run(job)
    assert caught.value.hint == "Build it: docker compose build train"
    assert not engine.made


def test_an_image_of_another_lock_is_refused(engine: Engine, job: Job) -> None:
    engine.locks["harness-train:cpu"] = "0123456789abcdef"
    with pytest.raises(InputError, match=r"was built from another lock \(0123456789ab\)") as caught:
        run(job)
    assert "requirements/train-cpu.txt" in caught.value.message
    assert caught.value.hint == "Build it: docker compose build train"
    assert not engine.made


def test_every_stages_image_and_vllms_are_looked_for_before_the_first_runs(
    engine: Engine, tmp_path: Path
) -> None:
    parts = evaluation(tmp_path)
    parts["answer"]["engine"] = {"kind": "vllm", "image": "vllm-for-cpus"}
    (plan,) = planned(tmp_path / "volume", write_row(tmp_path, eval=parts), executor="docker")
    with pytest.raises(InputError, match="the image of vLLM is not there"):
        DockerExecutor().check(plan.stages)
    engine.locks[next(s.served.image for s in plan.stages if s.served)] = ""
    DockerExecutor().check(plan.stages)
    del engine.locks["harness-eval:cpu"]
    with pytest.raises(InputError, match="there is no image harness-eval:cpu"):
        DockerExecutor().check(plan.stages)
    assert not engine.made


def test_a_failed_stage_says_what_it_said_and_its_container_is_removed(
    engine: Engine, job: Job
) -> None:
    engine.code = 1
    engine.says = [
        (b'{"event": "error", "message": "no loss", "hint": "Do.", "exit_code": 1}\n', b"last\n")
    ]
    with pytest.raises(StageFailed, match="failed: no loss") as caught:
        run(job)
    assert "  | last" in caught.value.hint
    assert str(job.log) in caught.value.hint
    assert engine.made[0].done[-1] == "remove"


@pytest.mark.parametrize(("out_of_memory", "said"), [(True, "limits.memory"), (False, "killed")])
def test_a_killed_stage_says_whether_memory_ran_out(
    engine: Engine, job: Job, out_of_memory: bool, said: str
) -> None:
    engine.code, engine.out_of_memory = 137, out_of_memory
    with pytest.raises(StageFailed, match=said) as caught:
        run(job)
    assert ("ran out of memory" in caught.value.message) == out_of_memory


@pytest.mark.parametrize("obeys", [True, False])
def test_stopped_the_container_is_asked_first_and_killed_when_it_does_not_end(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    monkeypatch.setattr(docker_executor, "STOP_SECONDS", 0.2)
    engine.obeys = obeys
    engine.says = [KeyboardInterrupt()]
    with pytest.raises(Interrupted):
        run(job)
    expected = ["start", "SIGINT"] + ([] if obeys else ["SIGKILL"]) + ["remove"]
    assert engine.made[0].done == expected


@pytest.mark.parametrize("kill", [True, False])
def test_asked_from_another_thread_the_container_is_stopped(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    engine.obeys = not kill

    def stream(container: Container) -> Iterator[tuple[bytes | None, bytes | None]]:
        yield b"", None
        job.stop.set()
        until(lambda: "SIGINT" in container.done)
        if kill:
            job.kill.set()
        until(lambda: container.status == "exited")

    monkeypatch.setattr(Container, "stream", stream)
    with pytest.raises(Interrupted):
        run(job)
    assert engine.made[0].done == ["start", "SIGINT"] + ["SIGKILL"] * kill + ["remove"]


@pytest.mark.parametrize(
    ("cpus", "threads", "nano"), [(None, 3, 3), (1.5, 3, 1.5), (None, None, None)]
)
def test_a_container_has_its_share_of_the_threads_unless_its_limit_says_other(
    engine: Engine,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    cpus: float | None,
    threads: int | None,
    nano: float | None,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run(replace(job, limits=Limits(cpus=cpus), share=Share(threads=threads)))
    settings = engine.made[0].settings
    assert settings.get("nano_cpus") == (nano and int(nano * 1e9))
    expected = None if threads is None else str(threads)
    assert settings["environment"].get("OMP_NUM_THREADS") == expected


def test_a_container_is_given_the_gpus_it_was_handed_alone(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = some_gpus(3)
    give_gpus(monkeypatch, *devices)
    run(replace(job, params={"train": Train()}, share=Share(gpus=(devices[2],))))
    (request,) = engine.made[0].settings["device_requests"]
    assert request["DeviceIDs"] == ["GPU-2222"]


def test_what_a_killed_harness_left_running_is_removed_before_the_stage_starts(
    engine: Engine, job: Job
) -> None:
    left = Container(engine, {})
    engine.left_over = [left]
    engine.during = lambda container: left.done.append("another began")
    run(job)
    assert left.done == ["remove", "another began"]
    labels = engine.made[0].settings["labels"]
    assert sorted(f"{k}={v}" for k, v in labels.items()) == sorted(engine.filters["label"])
    assert labels["harness.key"] == job.key
    assert labels["harness.work"] == str(job.folder)


def broken(*arguments: Any, **named: Any) -> Any:
    raise docker.errors.APIError("the engine is broken\nin two lines")


@pytest.mark.parametrize("call", ["get", "list", "create", "attach", "start", "stream", "wait"])
def test_an_engine_that_fails_at_any_call_ends_in_one_message(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(engine if hasattr(engine, call) else Container, call, broken)
    if call == "stream":
        monkeypatch.setattr(Container, "stream", lambda self: (broken() for _ in range(1)))
    with pytest.raises(HarnessError, match="the engine is broken") as caught:
        run(job)
    assert caught.value.exit_code == 1
    assert "in two lines" not in caught.value.message
    assert all(container.done[-1] == "remove" for container in engine.made)


def test_a_container_that_cannot_be_removed_does_not_hide_how_the_stage_ended(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Container, "remove", broken)
    run(job)
    engine.code = 3
    with pytest.raises(StageFailed, match="exit code 3"):
        run(job)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("unix:///nonexistent", "No such file or directory"),
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("nonsense://x", "Invalid bind address protocol: nonsense://x"),
    ],
)
def test_without_an_engine_the_command_ends_with_the_way_out(
    tmp_path: Path, host: str, reason: str
) -> None:
    fake = FakeStages(tmp_path / "fake")
    spec, volume = write_row(tmp_path / "specs", train=None), tmp_path / "volume"
    env = {**fake.env, "DOCKER_HOST": host}
    done = harness(env, "run", "--executor", "docker", spec, "--volume", volume)
    assert done.returncode == 2, done.stdout
    assert f"no Docker engine answers: {reason}\n" in done.stdout
    assert "--executor local" in done.stdout
    assert "DOCKER_HOST" in done.stdout
    assert "Traceback" not in done.stdout


def test_inside_a_container_the_docker_executor_is_refused(tmp_path: Path) -> None:
    fake = FakeStages(tmp_path / "fake")
    image = tmp_path / "image.json"
    image.write_text(json.dumps({"image": "gen", "lock": "0", "base": "b"}))
    env = {**fake.env, "HARNESS_IMAGE_FILE": str(image)}
    spec = write_row(tmp_path / "specs", train=None)
    done = harness(env, "run", "--executor", "docker", spec, "--volume", tmp_path / "volume")
    assert done.returncode == 2
    assert "inside a container there is the local executor only" in done.stdout
