"""vLLM's container against a stand-in for the engine: its GPUs, its variables, what it is told."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
import yaml

from harness.answer.engines.vllm import VllmEngine
from harness.errors import HarnessError, InputError
from harness.run.executors import Job, Serve, placing, vllm
from harness.run.executors.serving import ENVIRONMENT, arguments
from tests.helpers import ROOT, give_gpus, some_gpus


class Engine:
    """The parts of docker's client that serving uses; its container is healthy at once."""

    def __init__(self, says: str = "") -> None:
        self.says = says
        self.made: list[dict[str, Any]] = []
        self.removed: list[str] = []
        self.images = SimpleNamespace(get=lambda name: SimpleNamespace(id="sha256:vllm"))
        self.api = SimpleNamespace(create_endpoint_config=lambda aliases: aliases)
        self.containers = SimpleNamespace(create=self.create)
        network = SimpleNamespace(remove=lambda: self.removed.append("network"))
        self.networks = SimpleNamespace(create=lambda *a, **k: network, list=lambda names: [])

    def create(self, image: str, **settings: Any) -> Any:
        self.made.append(settings)
        healthy = {"State": {"Status": "running", "Health": {"Status": "healthy"}}}
        return SimpleNamespace(
            start=self.start,
            reload=lambda: None,
            remove=lambda force: self.removed.append("container"),
            attrs=healthy,
        )

    def start(self) -> None:
        if self.says:
            raise docker.errors.APIError("500 Server Error", explanation=self.says)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "work").mkdir()
    serve = Serve(VllmEngine(tensor_parallel=2), "harness-0123", tmp_path, None, False)
    return Job(
        stage="answer",
        key="k" * 64,
        title="answer: one [kkk]",
        params={},
        inputs={},
        work=str(tmp_path / "work"),
        log=tmp_path / "answer.log",
        lock=0,
        image_stage="answer",
        serve=serve,
    )


def settings(job: Job) -> dict[str, Any]:
    engine = Engine()
    assert job.serve is not None
    chosen = placing.of_server(job.serve.engine, "vLLM")
    with vllm.serving(engine, job, lambda event: None, chosen):
        pass
    assert engine.removed == ["container", "network"]
    return engine.made[0]


def test_the_server_gets_the_gpus_of_its_tensor_parallelism_and_no_other(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,0,1")
    made = settings(job)
    assert [r["DeviceIDs"] for r in made["device_requests"]] == [["GPU-3333", "GPU-0000"]]
    assert "--tensor-parallel-size 2" in " ".join(made["command"])
    # vLLM takes numbers alone there, and the container has no other GPU.
    assert "CUDA_VISIBLE_DEVICES" not in made["environment"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(InputError, match="vLLM needs 2 GPUs, and CUDA_VISIBLE_DEVICES=2 shows 1"):
        settings(job)


def test_one_gpu_is_the_default_and_says_nothing_of_parts(tmp_path: Path) -> None:
    assert VllmEngine().tensor_parallel == 1
    told = arguments(Serve(VllmEngine(), "harness-0123", tmp_path, None, False))
    assert "--tensor-parallel-size" not in told


def test_without_a_gpu_the_image_for_gpus_is_refused_and_another_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_gpus(monkeypatch)
    with pytest.raises(
        InputError, match="row one: vLLM: its image works on NVIDIA GPUs alone"
    ) as e:
        placing.of_server(VllmEngine(), "row one: vLLM")
    assert "base_url" in e.value.hint
    assert placing.of_server(VllmEngine(image="vllm-for-cpus"), "row one: vLLM") == ()


def test_vllm_refuses_bfloat16_on_turing_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    give_gpus(monkeypatch, *some_gpus(1, capability=(7, 5)))
    with pytest.raises(InputError, match=r"bfloat16 on GPU 0 NVIDIA H .*, which is sm_75") as e:
        placing.of_server(VllmEngine(), "row one: vLLM")
    assert "precision: float16" in e.value.hint
    assert len(placing.of_server(VllmEngine(precision="float16"), "row one: vLLM")) == 1


def test_a_gpu_that_docker_cannot_pass_on_to_vllm_is_told_with_the_toolkit(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(2))
    engine = Engine('could not select device driver "" with capabilities: [[gpu]]')
    with (
        pytest.raises(HarnessError, match="vLLM: Docker cannot pass a GPU") as e,
        vllm.serving(engine, job, lambda event: None, some_gpus(2)),
    ):
        pass
    assert "NVIDIA Container Toolkit" in e.value.hint
    assert engine.removed == ["container", "network"]


def test_the_server_has_a_name_for_its_user_caches_below_tmp_and_an_address(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(2))
    own = settings(job)["environment"]
    assert own == ENVIRONMENT
    assert own["VLLM_HOST_IP"] == "127.0.0.1"
    folders = [
        value for name, value in own.items() if name.endswith(("DIR", "HOME", "ROOT", "BASE"))
    ]
    assert len(folders) >= 8
    assert all(Path(value).is_relative_to("/tmp") for value in folders)


@pytest.mark.parametrize("named", [True, False])
def test_the_name_is_what_a_user_with_a_number_alone_is_asked_for(named: bool) -> None:
    code = "import os, getpass; os.setuid(54321); print(getpass.getuser())"
    own = ENVIRONMENT if named else {"HOME": "/tmp"}
    run = [sys.executable, "-S", "-c", code]
    done = subprocess.run(run, env=own, capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("only root becomes another user")
    assert (done.stdout.strip() == "harness") == named
    assert ("uid not found" in done.stderr) != named


def test_compose_gives_vllm_the_variables_of_the_harness() -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["vllm"]
    own = {name: value for name, value in service["environment"].items() if value is not None}
    assert {name: str(value) for name, value in own.items()} == ENVIRONMENT
