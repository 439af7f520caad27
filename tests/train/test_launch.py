"""Several processes under torchrun, and DeepSpeed: the loss curve of one process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness.artefact import events
from harness.artefact.call import CALL_FILE, RESULT_FILE, StageCall
from harness.errors import HarnessError, InputError
from harness.spec.model_source import ModelSource
from harness.spec.train import Launch, Train
from harness.train import checkpoints, launch, process
from harness.train.run import run
from tests.helpers import ROOT, give_gpus, some_gpus, until
from tests.modeling.calls import EXAMPLES, log_of, random_model, train_call

STILL = random_model(attention_dropout=0.0)
SETTINGS = {"batch_size": 4, "epochs": 2, "checkpoint_steps": 2, "validation": {"share": 0.2}}


def written(call: StageCall) -> StageCall:
    call.write(call.folder / CALL_FILE)
    return call


def losses(call: StageCall) -> list[float]:
    lines = log_of(call)
    return [line["loss"] for line in lines if "loss" in line]


def test_another_machine_trains_on_the_gpus_that_its_caller_lets_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CALL_FILE).touch()
    devices: list[Any] = []
    monkeypatch.setattr(launch, "run_workers", lambda *told: devices.append(told[-1]) or 0)
    two = Launch(processes=2, machines=2)
    give_gpus(monkeypatch, *some_gpus(4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,0")
    assert launch.join(tmp_path, two, "key") == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(InputError, match="this machine's part of the training needs 2 GPUs"):
        launch.join(tmp_path, two, "key")
    assert devices == [{"CUDA_VISIBLE_DEVICES": "GPU-3333,GPU-1111"}]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], dict[str, Any]]:
    call = train_call(tmp_path_factory.mktemp("alone"), model=STILL, **SETTINGS)
    result = run(call)
    return losses(call), result.metrics


def test_two_processes_have_the_loss_curve_of_one(
    tmp_path: Path, alone: tuple[list[float], dict[str, Any]]
) -> None:
    """The last step of an epoch has fewer examples than there are places: one gets none."""
    call = written(train_call(tmp_path, model=STILL, launch={"processes": 2}, **SETTINGS))
    result = run(call)
    assert losses(call) == pytest.approx(alone[0], rel=1e-4)
    assert result.used["processes"] == 2
    held_out, expected = result.metrics["held_out_loss"], alone[1]["held_out_loss"]
    assert held_out.value == pytest.approx(expected.value, rel=1e-4)
    assert held_out.tokens == expected.tokens
    assert result.counts["tokens"] == 2 * (
        sum(len(r["output"]) + 1 for r in EXAMPLES) - held_out.tokens
    )


def test_two_processes_that_were_killed_go_on_to_the_very_same_weights(tmp_path: Path) -> None:
    weights = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        settings = SETTINGS | {"epochs": 6, "launch": {"processes": 2}}
        call = written(train_call(tmp_path / name, model=STILL, **settings))
        if name == "killed":
            kill_after_a_checkpoint(call)
            last = checkpoints.newest(call.folder / "checkpoints")
            assert last is not None
            assert last.step < 18
        run(call)
        weights.append((call.folder / "model" / "model.safetensors").read_bytes())
        assert len(losses(call)) == 18
    assert weights[0] == weights[1]


def kill_after_a_checkpoint(call: StageCall) -> None:
    """SIGKILL the stage's process: the workers must not outlive it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.stage", str(call.folder / CALL_FILE)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: checkpoints.newest(call.folder / "checkpoints") is not None, 120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not workers_of(call), 30)


def workers_of(call: StageCall) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(call.folder / CALL_FILE).encode() in words:
            found.append(path.parent.name)
    return found


def test_what_a_worker_says_is_wrong_is_what_the_stage_says(tmp_path: Path) -> None:
    lora = {"target_modules": ["qkv"]}
    call = written(train_call(tmp_path, method="lora", lora=lora, launch={"processes": 2}))
    with pytest.raises(InputError, match="no linear layer qkv"):
        run(call)


def test_a_worker_that_dies_without_a_word_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "run_workers", lambda *given: -9)
    call = written(train_call(tmp_path, launch={"processes": 2}))
    with pytest.raises(HarnessError, match="exit code -9") as caught:
        run(call)
    assert "same command again" in caught.value.hint


@pytest.mark.parametrize("address", ["", "host", "host:", ":29500", "host:port"])
def test_machines_that_do_not_know_where_to_meet_are_told_how_to_say_it(address: str) -> None:
    with pytest.raises(InputError, match="HARNESS_RENDEZVOUS") as caught:
        launch.rendezvous(Launch(machines=2), {"HARNESS_RENDEZVOUS": address})
    assert "HARNESS_RENDEZVOUS=" in caught.value.hint


def test_two_machines_meet_and_train_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: tuple[list[float], dict[str, Any]]
) -> None:
    """Two torchrun agents on this machine stand for them; they share the volume."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    monkeypatch.setenv("HARNESS_RENDEZVOUS", f"127.0.0.1:{port}")
    machines = {"machines": 2}
    call = written(train_call(tmp_path, model=STILL, launch=machines, **SETTINGS))
    joining = (
        "import sys; from pathlib import Path; from harness.train import launch; "
        "from harness.spec.train import Launch; "
        f"sys.exit(launch.join(Path({str(call.folder)!r}), Launch(machines=2), {call.key!r}))"
    )
    other = subprocess.Popen([sys.executable, "-c", joining], cwd=ROOT)
    try:
        result = run(call)
        assert other.wait(60) == 0
    finally:
        other.kill()
    assert losses(call) == pytest.approx(alone[0], rel=1e-4)
    assert result.used["processes"] == 2
    assert [machine["rank"] for machine in result.used["machines"]] == [0, 1]


def test_the_gpus_of_each_machine_stand_in_the_manifest_with_its_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two processes on each of two machines, one after the other in this one."""
    give_gpus(monkeypatch, *some_gpus(4))
    told: list[Any] = []

    def gather(into: list[Any], mine: Any) -> None:
        told.append(mine)
        into[: len(told)] = told

    monkeypatch.setattr(process.torch.distributed, "all_gather_object", gather)
    params = Train(launch=Launch(processes=2, machines=2))
    for rank, visible in ((1, "2,3"), (0, "0,1")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setenv("GROUP_RANK", str(rank))
        for local in "01":
            monkeypatch.setenv("LOCAL_RANK", local)
            machines = process._machines(params, 4)
    used = [(each["rank"], [gpu["index"] for gpu in each["gpus"]]) for each in machines]
    assert used == [(0, [0, 1]), (1, [2, 3])]
    assert process._machines(Train(launch=Launch(processes=2)), 2) == []


needs_a_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="DeepSpeed compiles an extension: needs g++"
)


@needs_a_compiler
@pytest.mark.parametrize(
    ("settings", "processes"),
    [
        ({"stage": 2, "offload_optimizer": True}, 1),
        ({"stage": 2}, 2),
        ({"stage": 3}, 2),
    ],
    ids=["zero2-offload", "zero2", "zero3"],
)
def test_deepspeed_has_the_loss_curve_of_a_run_without_it(
    tmp_path: Path,
    settings: dict[str, Any],
    processes: int,
    alone: tuple[list[float], dict[str, Any]],
) -> None:
    call = written(
        train_call(
            tmp_path, model=STILL, deepspeed=settings, launch={"processes": processes}, **SETTINGS
        )
    )
    # In a process of its own, as always: compiling wants setuptools before anybody's distutils.
    stage = [sys.executable, "-m", "harness.stage", str(call.folder / CALL_FILE)]
    done = subprocess.run(
        stage, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    result = json.loads((call.folder / RESULT_FILE).read_text())
    assert losses(call) == pytest.approx(alone[0], rel=1e-3)
    assert result["metrics"]["held_out_loss"]["value"] == pytest.approx(
        alone[1]["held_out_loss"].value, rel=1e-3
    )
    assert (call.folder / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(("model", "at_once"), [(STILL, 1), ({"path": {"path": "a"}}, 3)])
def test_processes_make_random_weights_one_after_the_other_and_read_a_folders_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], at_once: int
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    notes: list[str] = []
    monkeypatch.setattr(events, "note", notes.append)
    call, source = train_call(tmp_path), ModelSource.model_validate(model)
    inside, most, all_in = 0, 0, threading.Barrier(at_once)

    def load() -> None:
        nonlocal inside, most
        with process._in_turn(call, source, 3):
            inside += 1
            most = max(most, inside)
            all_in.wait(30)
            time.sleep(0.05)
            inside -= 1

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (inside, most) == (0, at_once)
    said = "3 processes make the model's random weights one after the other"
    assert notes == ([said] * 3 if at_once == 1 else [])


def test_one_process_waits_for_none(tmp_path: Path) -> None:
    call = train_call(tmp_path)
    source = ModelSource.model_validate(STILL)
    with process._in_turn(call, source, 2), process._in_turn(call, source, 1):
        pass
