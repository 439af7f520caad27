"""The stage contract: `python -m harness.stage CALL.json`, whatever starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import harness.artefact.call
from harness.artefact import environment
from harness.artefact.call import CALL_FILE, RESULT_FILE, StageCall
from harness.stage import PARENT_VARIABLE
from tests.helpers import FakeStages

LOCK = "1" * 64


@pytest.fixture
def fake(tmp_path: Path) -> FakeStages:
    return FakeStages(tmp_path / "fake")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


class Ended:
    """How a stage process ended: its exit code, its events, its log and its result."""

    def __init__(self, process: "subprocess.Popen[str]", work: Path) -> None:
        output, self.log = process.communicate(timeout=30)
        self.code = process.returncode
        self.events = [json.loads(line) for line in output.splitlines()]
        path = work / RESULT_FILE
        self.result: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None

    @property
    def error(self) -> dict[str, Any]:
        (error,) = [e for e in self.events if e["event"] == "error"]
        return error


def start(fake: FakeStages, work: Path, **call: Any) -> "subprocess.Popen[str]":
    path = work / CALL_FILE
    StageCall(
        **{
            "stage": "train",
            "key": "k",
            "params": {},
            "inputs": {},
            "work": str(work),
            "code_version": environment.CODE_VERSIONS["train"],
            **call,
        }
    ).write(path)
    return subprocess.Popen(
        [sys.executable, "-m", "harness.stage", str(path)],
        env=fake.env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(fake: FakeStages, work: Path, **call: Any) -> Ended:
    return Ended(start(fake, work, **call), work)


def image_file(fake: FakeStages, image: str, lock: str) -> None:
    path = fake.folder / "image.json"
    path.write_text(json.dumps({"image": image, "lock": lock, "base": "python"}))
    fake.env["HARNESS_IMAGE_FILE"] = str(path)


def test_standard_output_carries_events_alone_and_prints_go_to_the_log(
    fake: FakeStages, work: Path
) -> None:
    ended = run(fake, work)
    assert ended.code == 0, ended.log
    assert ended.events == [
        {
            "event": "progress",
            "task": "working",
            "done": done,
            "total": 2,
            "unit": "step",
            "info": info,
        }
        for done, info in ((1, {"loss": 0.5}), (2, {}))
    ]
    assert "a print of a library" in ended.log
    assert "a warning of a library" in ended.log


def test_the_result_says_what_was_made_and_what_it_was_made_in(
    fake: FakeStages, work: Path
) -> None:
    result = run(fake, work, inputs={"data": "/data"}).result
    assert result is not None
    assert result["keep"] == ["model"]
    assert result["counts"] == {"tries": 1}
    assert result["used"]["inputs"] == {"data": "/data"}
    here = result["used"]["environment"]
    assert here["python"] == ".".join(map(str, sys.version_info[:3]))
    assert here["packages"]["pytest"] == pytest.__version__
    assert here["image"] is None
    assert here["cpus"] >= 1
    assert here["memory_bytes"] > 0
    assert 0 <= result["cost"]["stage_seconds"] < 30


@pytest.mark.parametrize(
    ("what", "code", "message", "hint"),
    [
        ("refuse", 2, "the data set is empty", "Name another."),
        ("fail", 1, "the loss is not a number", "Lower the learning rate."),
        ("break", 1, "KeyError: 'learning_rate'", "The log has the details"),
        ("no memory", 1, "the CPU's memory ran out", "limits.memory"),
        ("no memory to map a file", 1, "the CPU's memory ran out", "limits.memory"),
        ("no GPU memory", 1, "the GPU's memory ran out", "a GPU with more memory free"),
        ("a broken GPU", 1, "the GPU failed: CUDA error: unspecified launch failure", "dmesg"),
        (
            "disk full",
            1,
            "no space left on the device while writing /volume/model.bin",
            "run the same command again",
        ),
    ],
)
def test_a_fault_ends_in_one_message_with_the_way_out_and_its_exit_code(
    fake: FakeStages, work: Path, what: str, code: int, message: str, hint: str
) -> None:
    fake.order("train", what)
    ended = run(fake, work)
    assert ended.code == ended.error["exit_code"] == code
    assert ended.error["message"] == message
    assert hint in ended.error["hint"]
    assert ended.result is None
    assert ("Traceback" in ended.log) == (what == "break")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_stage_and_its_work_stays(
    fake: FakeStages, work: Path, number: signal.Signals
) -> None:
    fake.order("train", "wait")
    process = start(fake, work)
    fake.wait_until_waiting()
    process.send_signal(number)
    ended = Ended(process, work)
    assert ended.code == 130
    assert ended.error["message"] == "stopped"
    assert "Traceback" not in ended.log
    assert (work / "state.txt").read_text() == "x"
    assert ended.result is None

    fake.order("train", None)
    again = run(fake, work)
    assert again.result is not None
    assert again.result["counts"] == {"tries": 2}


def test_an_order_to_stop_that_a_destructor_swallows_is_given_again(
    fake: FakeStages, work: Path
) -> None:
    fake.order("train", "swallow and wait")
    process = start(fake, work)
    fake.wait_until_waiting()
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert Ended(process, work).code == 130
    assert time.monotonic() - asked < 15


def test_a_stage_ends_without_a_look_for_garbage_among_all_that_it_imported(
    fake: FakeStages, work: Path
) -> None:
    fake.order("train", "leave garbage")
    ended = run(fake, work)
    assert ended.code == 0
    assert "looked for garbage" not in ended.log


def test_a_call_that_another_version_of_the_harness_wrote_is_refused_without_a_traceback(
    fake: FakeStages, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.artefact.call, "CALL_FORMAT", harness.artefact.call.CALL_FORMAT + 1)
    ended = run(fake, work)
    assert ended.code == 2
    assert "not built from this checkout" in ended.error["message"]
    assert ended.error["hint"] == "Build it anew: docker compose build"
    assert not fake.runs()


def test_another_version_of_the_stages_code_than_planned_is_refused(
    fake: FakeStages, work: Path
) -> None:
    planned = environment.CODE_VERSIONS["train"] + 1
    ended = run(fake, work, code_version=planned)
    assert ended.code == 2
    assert f"version {planned} was planned" in ended.error["message"]
    assert ended.error["hint"] == "Build it anew: docker compose build train"
    assert not fake.runs()


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (("train-cpu", "2" * 64), "but this is train-cpu with lock 222222222222"),
        (("eval-cpu", LOCK), "but this is eval-cpu with lock 111111111111"),
        (None, "but this is no pinned image"),
    ],
)
def test_another_image_than_planned_is_refused(
    fake: FakeStages, work: Path, here: tuple[str, str] | None, said: str
) -> None:
    if here:
        image_file(fake, *here)
    ended = run(fake, work, environment={"image": "train-cpu", "lock": LOCK})
    assert ended.code == 2
    assert said in ended.error["message"]
    assert "planned for train-cpu with lock 111111111111" in ended.error["message"]
    assert ended.error["hint"].endswith("docker compose build train")
    assert not fake.runs()


def test_the_planned_image_runs_and_is_recorded(fake: FakeStages, work: Path) -> None:
    image_file(fake, "train-cpu", LOCK)
    ended = run(fake, work, environment={"image": "train-cpu", "lock": LOCK})
    assert ended.code == 0
    assert ended.result is not None
    assert ended.result["used"]["environment"]["image"]["lock"] == LOCK


def test_a_stage_whose_executor_is_gone_before_it_begins_does_nothing(
    fake: FakeStages, work: Path
) -> None:
    fake.env[PARENT_VARIABLE] = "1"
    assert run(fake, work).code == 130
    fake.env[PARENT_VARIABLE] = str(os.getpid())
    assert run(fake, work).code == 0
    assert len(fake.runs()) == 1


def test_a_work_folder_that_another_process_holds_is_left_alone(tmp_path: Path) -> None:
    from harness import stage as stage_module
    from harness.artefact.call import StageCall
    from harness.errors import HarnessError

    call = StageCall("gen", "k", {}, {}, str(tmp_path))
    with (
        stage_module._alone(call),
        pytest.raises(HarnessError, match="another process still works"),
        stage_module._alone(call),
    ):
        pass


def test_a_work_folder_on_which_another_machine_has_a_lease_is_left_alone_and_then_taken_over(
    fake: FakeStages, work: Path
) -> None:
    fake.order("train", "until told")
    first = start(fake, work, lease_seconds=1.0)
    fake.wait_until_waiting()
    refused = run(fake, work, lease_seconds=1.0)
    assert refused.code == 1
    assert "another process still works" in refused.error["message"]
    assert any("waiting up to 2 s" in e.get("message", "") for e in refused.events)
    assert len(fake.runs("train")) == 1

    first.send_signal(signal.SIGSTOP)  # its machine is gone
    try:
        fake.order("train", None)
        assert run(fake, work, lease_seconds=1.0).code == 0
    finally:
        first.kill()
        first.communicate()
