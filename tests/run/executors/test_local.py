"""The local executor: events, failures, and every way of being stopped."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artefact.call import CALL_FILE, StageCall
from harness.artefact.keys import Files
from harness.common import env_variables
from harness.common.logs import LOG_TAIL
from harness.errors import InputError, Interrupted
from harness.run.executors import EventReader, Job, Share, StageFailed, child, stopped
from harness.run.executors.local import LocalExecutor
from harness.spec.train import Train
from tests.helpers import (
    HARNESS,
    FakeStages,
    give_gpus,
    harness,
    is_alive,
    planned,
    some_gpus,
    start,
    until,
    write_row,
)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    fake = FakeStages(tmp_path / "fake")
    for name in ("PYTHONPATH", "FAKE_STAGES"):
        monkeypatch.setenv(name, fake.env[name])
    return fake


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    (tmp_path / "work").mkdir()
    with (tmp_path / "lock").open("a") as lock:
        yield Job(
            stage="train",
            key="k" * 64,
            title="train: one [kkk]",
            params={},
            inputs={"data": str(tmp_path)},
            work=str(tmp_path / "work"),
            log=tmp_path / "logs" / "train.log",
            lock=lock.fileno(),
            image_stage="train",
        )


def run(job: Job) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    LocalExecutor().run(job, Files(None, None), events.append)
    return events


def test_the_stages_events_reach_the_caller_and_its_prints_the_log(
    fake: FakeStages, job: Job
) -> None:
    events = run(job)
    assert [(e["event"], e["done"], e["total"]) for e in events] == [
        ("progress", 1, 2),
        ("progress", 2, 2),
    ]
    log = job.log.read_text()
    assert "local executor" in log
    assert "a print of a library" in log


def test_the_call_names_the_inputs_and_holds_no_key(
    fake: FakeStages, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    job = replace(job, secrets=("SOME_KEY",))
    run(job)
    call = StageCall.read(job.folder / CALL_FILE)
    assert call.inputs == {"data": str(job.inputs["data"])}
    assert call.work == str(job.folder)
    written = [
        p for p in job.folder.parent.rglob("*") if p.is_file() and fake.folder not in p.parents
    ]
    assert len(written) > 3
    assert not [p for p in written if b"sk-very-secret" in p.read_bytes()]


FURTHER = ("FTP_PROXY", "ftp_proxy")
WAYS = {
    "HF_ENDPOINT": "https://mirror.example",
    "HF_TOKEN": "hf_secretsecret",
    "HF_TOKEN_FILE": "/secret/token",
    "HUGGING_FACE_HUB_TOKEN": "hf_oldersecret",
    "HF_TOKEN_PATH": "/secret/token",
    "HF_OIDC_ID_TOKEN": "secret",
    "HUGGINGFACE_CO_STAGING": "1",
    **dict.fromkeys(env_variables.PROXY, "http://proxy.example:3128"),
    **dict.fromkeys(env_variables.NO_PROXY, "example.com"),
    **dict.fromkeys(FURTHER, "http://proxy.example:3128"),
}
PROXIES = {*env_variables.PROXY, *env_variables.NO_PROXY, *FURTHER}


@pytest.mark.parametrize(
    ("stage", "network", "passed"),
    [
        ("fetch", True, set(WAYS)),
        ("gen", True, PROXIES),
        ("gen", False, set()),
        ("train", False, set()),
    ],
)
def test_the_way_to_the_hub_and_the_proxies_reach_only_the_stages_that_may_use_them(
    fake: FakeStages,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    network: bool,
    passed: set[str],
) -> None:
    for name, value in WAYS.items():
        monkeypatch.setenv(name, value)
    for name in env_variables.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    job = replace(job, stage=stage, network=network)
    run(job)
    had = json.loads((fake.folder / "variables").read_text())
    assert {name: had[name] for name in WAYS if name in had} == {n: WAYS[n] for n in passed}
    offline = {name: had.get(name) for name in env_variables.OFFLINE}
    assert offline == (dict.fromkeys(offline) if stage == "fetch" else env_variables.OFFLINE)
    assert had.items() >= env_variables.QUIET.items()


@pytest.mark.parametrize("stage", ["train", "answer", "judge"])
def test_a_stage_has_pytorchs_own_kernels_alone_and_memory_in_segments_that_grow(
    fake: FakeStages, job: Job, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Of what PyTorch reads when it is imported: a C compiler would be needed for the others."""
    for name in env_variables.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    job = replace(job, stage=stage)
    run(job)
    had = json.loads((fake.folder / "variables").read_text())
    assert had["TORCH_DISABLE_NATIVE_JIT"] == "1"
    assert had["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.parametrize("name", env_variables.ALLOCATOR)
def test_a_gpus_memory_is_divided_as_the_caller_has_it(
    fake: FakeStages, job: Job, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:128")
    run(job)
    had = json.loads((fake.folder / "variables").read_text())
    passed = {n: had[n] for n in env_variables.ALLOCATOR if n in had}
    assert passed == {name: "max_split_size_mb:128"}


@pytest.mark.parametrize(
    ("processes", "may_use", "shown"),
    [
        (1, None, "GPU-0000"),
        (2, None, "GPU-0000,GPU-1111"),
        (1, "2", "GPU-2222"),
        (2, "GPU-2,GPU-0,GPU-1", "GPU-2222,GPU-0000"),
    ],
)
def test_a_stage_sees_the_gpus_that_it_works_on_and_no_other(
    fake: FakeStages,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    may_use: str | None,
    shown: str,
) -> None:
    give_gpus(monkeypatch, *some_gpus(3))
    if may_use is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", may_use)
    job = replace(job, params={"train": Train.model_validate({"launch": {"processes": processes}})})
    run(job)
    had = json.loads((fake.folder / "variables").read_text())
    assert had["CUDA_VISIBLE_DEVICES"] == shown
    call = StageCall.read(job.folder / CALL_FILE)
    assert ",".join(gpu["uuid"] for gpu in call.gpus) == shown
    used = json.loads((job.folder / "result.json").read_text())["used"]
    assert used["environment"]["gpus"] == call.gpus


def test_a_stage_without_a_model_of_its_own_and_one_on_the_cpu_see_no_gpu(
    fake: FakeStages, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    job = replace(job, stage="gen")
    run(job)
    assert json.loads((fake.folder / "variables").read_text())["CUDA_VISIBLE_DEVICES"] == ""
    give_gpus(monkeypatch, *some_gpus(1))
    job = replace(job, stage="train")
    monkeypatch.setattr("harness.artefact.environment.accelerator", lambda: "cpu")
    job = replace(job, params={"train": Train()})
    run(job)
    assert json.loads((fake.folder / "variables").read_text())["CUDA_VISIBLE_DEVICES"] == ""
    used = json.loads((job.folder / "result.json").read_text())["used"]
    assert "gpus" not in used["environment"]


@pytest.mark.parametrize(
    ("installed", "refused"), [("13.0.96", True), ("12.8.90", False), ("", False)]
)
def test_an_old_driver_is_refused_beforehand_where_the_cuda_installed_here_needs_a_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, refused: bool
) -> None:
    (plan,) = planned(tmp_path / "volume", write_row(tmp_path / "specs"))
    give_gpus(monkeypatch, *some_gpus(1, driver="570.1"))
    packages = {"nvidia-cuda-runtime": installed} if installed else {}
    monkeypatch.setattr("harness.artefact.environment.installed_packages", lambda: packages)
    if not refused:
        LocalExecutor().check(plan.stages)
        return
    with pytest.raises(
        InputError, match=r"row one: its train stage cannot use GPU 0 NVIDIA H.*580"
    ):
        LocalExecutor().check(plan.stages)


def test_a_build_of_torch_for_the_cpu_is_refused_beforehand_where_a_gpu_is_to_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plan,) = planned(tmp_path / "volume", write_row(tmp_path / "specs"))
    give_gpus(monkeypatch, *some_gpus(1))
    monkeypatch.setattr(
        "harness.artefact.environment.installed_packages", lambda: {"torch": "2.13.0+cpu"}
    )
    LocalExecutor().check([stage for stage in plan.stages if stage.stage == "gen"])
    with pytest.raises(InputError, match="row one: its train stage is to run on a GPU") as e:
        LocalExecutor().check(plan.stages)
    assert "ACCELERATOR=cuda make install" in e.value.hint
    monkeypatch.setattr("harness.artefact.environment.accelerator", lambda: "cpu")
    LocalExecutor().check(plan.stages)


def test_an_environment_without_a_stages_packages_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plan,) = planned(tmp_path / "volume", write_row(tmp_path / "specs"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "torch" else find(n))
    LocalExecutor().check([stage for stage in plan.stages if stage.stage == "gen"])
    with pytest.raises(
        InputError, match="row one: its train stage needs torch, not installed"
    ) as e:
        LocalExecutor().check(plan.stages)
    assert "make install" in e.value.hint
    assert "--executor docker" in e.value.hint


@pytest.mark.parametrize("setting", ["tf32", "liger_kernels"])
def test_what_only_a_gpu_can_do_is_refused_before_anything_runs_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    give_gpus(monkeypatch)
    spec = write_row(tmp_path / "specs", train={"steps": 1, setting: True})
    (plan,) = planned(tmp_path / "volume", spec)
    with pytest.raises(InputError, match=rf"row one: train\.{setting}: .* none is used here") as e:
        LocalExecutor().check(plan.stages)
    assert f"Set train.{setting}: false" in e.value.hint
    LocalExecutor().check([stage for stage in plan.stages if stage.stage == "gen"])


def test_the_key_and_the_work_of_a_stopped_stage_do_not_depend_on_the_gpu_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for may_use in ("0", "2"):
        give_gpus(monkeypatch, *some_gpus(3))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", may_use)
        (plan,) = planned(tmp_path / "volume", write_row(tmp_path / "specs"))
        keys.append([stage.key for stage in plan.stages])
    assert keys[0] == keys[1]


@pytest.mark.parametrize("own", ["OPENAI_API_KEY", "TEAM_KEY", "HF_TOKEN", None])
def test_of_keys_and_their_files_a_stage_has_its_own_alone(
    fake: FakeStages, job: Job, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    names = ("OPENAI_API_KEY", "MISTRAL_API_KEY", "TEAM_KEY", "HF_TOKEN")
    keys = {v for name in names for v in (name, f"{name}_FILE")}
    for variable in keys:
        monkeypatch.setenv(variable, "secret")
    job = replace(job, stage="gen", network=own is not None)
    job = replace(job, secrets=(own,) if own else ())
    job = replace(job, others_keys=frozenset({"TEAM_KEY", "OPENAI_API_KEY", "HF_TOKEN"}))
    run(job)
    had = json.loads((fake.folder / "variables").read_text())
    assert keys & set(had) == ({own, f"{own}_FILE"} if own else set())


def test_a_failure_shows_the_end_of_this_tries_log_and_where_the_whole_log_is(
    fake: FakeStages, job: Job
) -> None:
    job.log.parent.mkdir()
    job.log.write_text("--- an earlier try\nits last line\n")
    fake.order("train", "fail")
    with pytest.raises(StageFailed) as caught:
        run(job)
    error = caught.value
    assert error.exit_code == 1
    assert error.message == "train: one [kkk] failed: the loss is not a number"
    hint = error.hint.splitlines()
    assert hint[0] == "Lower the learning rate."
    assert hint[1] == "The last lines of its log:"
    assert hint[2 : 2 + LOG_TAIL] == [f"  | library line {n}" for n in range(20 - LOG_TAIL, 20)]
    assert hint[-1] == f"The whole log: {job.log}"

    fake.order("train", "be killed")  # says less than LOG_TAIL lines itself
    with pytest.raises(StageFailed) as caught:
        run(job)
    assert "a print of a library" in caught.value.hint
    assert "library line" not in caught.value.hint
    assert "library line 0" in job.log.read_text()


def test_a_stage_that_refuses_its_input_ends_with_exit_code_2_and_no_log_lines(
    fake: FakeStages, job: Job
) -> None:
    fake.order("train", "refuse")
    with pytest.raises(StageFailed) as caught:
        run(job)
    assert caught.value.exit_code == 2
    assert "the data set is empty" in caught.value.message
    assert "Name another." in caught.value.hint
    assert "last lines" not in caught.value.hint


def test_a_stage_killed_from_outside_says_so_and_hints_at_memory(
    fake: FakeStages, job: Job
) -> None:
    fake.order("train", "be killed")
    with pytest.raises(StageFailed) as caught:
        run(job)
    assert caught.value.exit_code == 1
    assert "killed by signal SIGKILL" in caught.value.message
    assert "ran out of memory" in caught.value.message
    assert "Run the same command again to go on." in caught.value.hint


def test_a_stage_that_does_not_stop_is_killed_with_all_it_started(
    fake: FakeStages, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "STOP_SECONDS", 0.3)
    fake.order("train", "ignore and wait")

    def interrupt(event: dict[str, Any]) -> None:
        if event.get("message", "").startswith("stopping"):
            # The terminal went with the same Ctrl-C.
            raise BrokenPipeError
        fake.wait_until_waiting()
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="was stopped; what it has made so far is kept"):
        LocalExecutor().run(job, Files(None, None), interrupt)
    assert not is_alive(fake.pid("train"))
    helper = int((fake.folder / "helper").read_text())
    until(lambda: not is_alive(helper))
    assert (job.folder / "state.txt").exists()


@pytest.mark.parametrize(("order", "kill"), [("wait", False), ("ignore and wait", True)])
def test_asked_from_another_thread_a_stage_ends_in_order_or_is_killed(
    fake: FakeStages, job: Job, order: str, kill: bool
) -> None:
    fake.order("train", order)

    def ask() -> None:
        fake.wait_until_waiting()
        job.stop.set()
        if kill:
            until((fake.folder / "helper").exists)
            job.kill.set()

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(Interrupted, match="was stopped; what it has made so far is kept"):
        run(job)
    asking.join()
    assert not is_alive(fake.pid("train"))
    if kill:
        helper = int((fake.folder / "helper").read_text())
        until(lambda: not is_alive(helper))
    else:
        assert "Traceback" not in job.log.read_text()


@pytest.mark.parametrize(
    ("callers", "threads", "had"),
    [(None, None, None), (None, 3, "3"), ("2", 3, "2"), ("8", 3, "3"), ("all", 3, "3")],
)
def test_a_stage_takes_the_threads_it_is_handed_or_fewer_where_the_caller_has_them_so(
    fake: FakeStages,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    callers: str | None,
    threads: int | None,
    had: str | None,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    if callers is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", callers)
    run(replace(job, share=Share(threads=threads)))
    variables = json.loads((fake.folder / "variables").read_text())
    assert variables.get("OMP_NUM_THREADS") == had
    assert variables.get("MKL_NUM_THREADS") == (None if threads is None else str(threads))


def test_a_stage_that_shares_the_machine_sees_only_the_gpus_it_was_handed(
    fake: FakeStages, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = some_gpus(4)
    give_gpus(monkeypatch, *devices)
    train = Train.model_validate({"launch": {"processes": 2}})
    job = replace(job, params={"train": train}, share=Share(gpus=(devices[3], devices[1])))
    run(job)
    had = json.loads((fake.folder / "variables").read_text())
    assert had["CUDA_VISIBLE_DEVICES"] == "GPU-3333,GPU-1111"


def test_a_fault_while_events_are_shown_leaves_no_stage_behind(fake: FakeStages, job: Job) -> None:
    fake.order("train", "wait")

    def full_disk(event: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        LocalExecutor().run(job, Files(None, None), full_disk)
    assert not is_alive(fake.pid("train"))


def test_of_a_stage_that_had_made_nothing_nothing_is_said_to_be_kept(job: Job) -> None:
    job.call_path.write_text("{}")
    (job.folder / ".stage-lock").write_text("7")
    (job.folder / "trainer_log.jsonl").touch()
    assert stopped(job).message == f"{job.title} was stopped before it had made anything."
    (job.folder / "trainer_log.jsonl").write_text("{}")
    assert stopped(job).message.endswith("what it has made so far is kept.")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_the_stage_ends_cleanly_and_the_same_command_goes_on(
    fake: FakeStages, tmp_path: Path, number: signal.Signals
) -> None:
    spec, volume = write_row(tmp_path / "specs"), tmp_path / "volume"
    fake.order("train", "wait")
    process = start(fake.env, "run", spec, "--volume", volume)
    fake.wait_until_waiting()
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)

    assert process.returncode == 130, output
    assert "  stopping: the stage gets 30 s" in output
    assert re.search(r"train: one \[\w+\] was stopped; what it has made so far is kept", output)
    assert "Run the same command again to go on." in output
    assert "Traceback" not in output
    assert not is_alive(fake.pid("train"))
    assert "Traceback" not in next((volume / "logs").glob("train-*")).read_text()
    (work,) = volume.glob("work/train-*")
    assert (work / "state.txt").read_text() == "x"
    assert not list(volume.glob("artefacts/train/*"))

    planned = harness(fake.env, "plan", spec, "--volume", volume)
    assert "an interrupted run is there and goes on" in planned.stdout
    fake.order("train", None)
    again = harness(fake.env, "run", spec, "--volume", volume)
    assert again.returncode == 0, again.stdout
    assert len(fake.runs("gen")) == 1
    (made,) = volume.glob("artefacts/train/*/model/config.json")
    assert made.read_text() == '{"tries": 2}\n'


def test_a_killed_harness_takes_its_stage_with_it(fake: FakeStages, tmp_path: Path) -> None:
    spec, volume = write_row(tmp_path / "specs", train=None), tmp_path / "volume"
    fake.order("gen", "wait")
    process = start(fake.env, "run", spec, "--volume", volume)
    fake.wait_until_waiting()
    process.kill()
    process.communicate()
    stage = fake.pid("gen")
    until(lambda: not is_alive(stage))

    fake.order("gen", None)
    again = harness(fake.env, "run", spec, "--volume", volume)
    assert again.returncode == 0, again.stdout
    assert "waiting" not in again.stdout
    (made,) = volume.glob("artefacts/gen/*/data.jsonl")
    assert made.read_text() == '{"tries": 2}\n'


def test_a_closed_terminal_ends_the_stage(fake: FakeStages, tmp_path: Path) -> None:
    spec, volume = write_row(tmp_path / "specs", train=None), tmp_path / "volume"
    fake.order("gen", "wait")
    # Where the tests themselves run under nohup, the command would rightly ignore the signal.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        process = start(fake.env, "run", spec, "--volume", volume)
    finally:
        signal.signal(signal.SIGHUP, before)
    fake.wait_until_waiting()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=20)
    until(lambda: not is_alive(fake.pid("gen")))


def test_a_failed_stage_ends_the_command_and_keeps_what_was_finished(
    fake: FakeStages, tmp_path: Path
) -> None:
    spec, volume = write_row(tmp_path / "specs"), tmp_path / "volume"
    fake.order("train", "fail")
    failed = harness(fake.env, "run", spec, "--volume", volume)
    assert failed.returncode == 1
    assert "error: train: one" in failed.stdout
    assert "the loss is not a number" in failed.stdout
    assert "| library line 19" in failed.stdout
    (log,) = volume.glob("logs/train-*")
    assert f"The whole log: {log}" in failed.stdout
    assert len(list(volume.glob("artefacts/gen/*"))) == 1
    assert not list(volume.glob("artefacts/train/*"))


def test_a_stage_that_says_nothing_of_what_it_made_has_failed(
    fake: FakeStages, tmp_path: Path
) -> None:
    spec, volume = write_row(tmp_path / "specs", train=None), tmp_path / "volume"
    fake.order("gen", "leave")
    failed = harness(fake.env, "run", spec, "--volume", volume)
    assert failed.returncode == 1
    assert "ended without saying what it made" in failed.stdout
    assert "Its log: " in failed.stdout
    assert not list(volume.glob("artefacts/gen/*"))


def test_progress_shows_as_plain_lines_without_a_terminal(fake: FakeStages, tmp_path: Path) -> None:
    spec = write_row(tmp_path / "specs", train=None)
    done = harness(fake.env, "run", spec, "--volume", tmp_path / "volume")
    assert re.search(r"^  working: 1 of 2 steps, \d+ s \(loss 0\.5\)$", done.stdout, re.MULTILINE)
    assert re.search(r"^  working: 2 of 2 steps, \d+ s$", done.stdout, re.MULTILINE)
    assert "  note: a note of the stage" in done.stdout
    assert "\x1b" not in done.stdout


def test_progress_shows_as_live_bars_on_a_terminal(fake: FakeStages, tmp_path: Path) -> None:
    spec = write_row(tmp_path / "specs", train=None)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*HARNESS, "run", str(spec), "--volume", str(tmp_path / "volume")],
        env={**fake.env, "TERM": "xterm", "LINES": "40"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # what Linux says of a terminal that was closed
        pass
    os.close(ours)
    assert process.wait(10) == 0, shown
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "━" in text
    assert re.search(r"working .* 2/2 +steps", text)


def test_events_cut_anywhere_are_read_whole_and_other_output_goes_to_the_log(job: Job) -> None:
    job.log.parent.mkdir()
    sent = (
        b'{"event": "progress", "task": "t\xc3\xa4sk"}\nloose words\n[1, 2]\n\n'
        b'{"event": "note", "message": "last, without an end of line"}'
    )
    for size in (1, 7, len(sent)):
        events: list[dict[str, Any]] = []
        reader = EventReader(job, events.append)
        for begin in range(0, len(sent), size):
            reader.feed(sent[begin : begin + size])
        reader.finish(0)
        assert [e["event"] for e in events] == ["progress", "note"]
        assert events[0]["task"] == "täsk"
    assert job.log.read_bytes() == b"loose words\n[1, 2]\n\n" * 3
