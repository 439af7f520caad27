"""Many stages at a time: which run beside each other, what each has, and how they end together."""

import functools
import io
import json
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.artefact import environment
from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.errors import HarnessError, InputError, Interrupted
from harness.run import schedule
from harness.run.executors import StageFailed, StagesFailed
from harness.run.machine import Machine
from harness.run.runner import Runner
from tests.helpers import (
    HARNESS,
    ROOT,
    TINY,
    FakeStages,
    InstantExecutor,
    evaluation,
    give_gpus,
    harness,
    is_alive,
    planned,
    some_gpus,
    start,
    until,
    write_row,
    write_rows,
)

GIB = 2**30
MODEL = {"random": {"config": {"model_type": "qwen2", **TINY}}}
MACHINE = Machine((), 4, 64 * GIB)


class Together:
    """Runs rows in this process, and notes which stages run at the same time."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "volume")
        self.store.prepare()
        self.output = io.StringIO()
        self.jobs: list[Any] = []
        self.began: list[str] = []
        """`STAGE ROW`, as they began."""
        self.beside: set[frozenset[str]] = set()
        """Pairs that ran at the same time."""
        self.during: Callable[[Any], None] = lambda job: time.sleep(0.05)
        self.once_planned: Callable[[], object] = lambda: None
        self._now: set[str] = set()
        self._lock = threading.Lock()

    def _outcome(self, job: Any) -> dict[str, Any]:
        name = " ".join(job.title.split()[:2]).replace(":", "")
        with self._lock:
            self.jobs.append(job)
            self.began.append(name)
            self.beside |= {frozenset({name, other}) for other in self._now}
            self._now.add(name)
        try:
            self.during(job)
        finally:
            with self._lock:
                self._now.remove(name)
        return {}

    def run(
        self,
        *specs: Path,
        jobs: int | None = None,
        machine: Machine = MACHINE,
        only: Sequence[str] = (),
    ) -> None:
        executor = InstantExecutor(self._outcome)
        files = Files(None, None, self.store.files_folder)
        console = Console(file=self.output, width=200)
        runner = Runner(self.store, files, executor, console)
        plans = planned(self.store.root, *specs)
        self.once_planned()
        schedule.run(runner, lambda: executor, plans, only, jobs, machine)

    def were_beside(self, *names: str) -> bool:
        return frozenset(names) in self.beside


@pytest.fixture
def together(tmp_path: Path) -> Together:
    return Together(tmp_path)


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    return tmp_path / "specs"


def meeting(count: int) -> Callable[[Any], None]:
    """Stages that end only once `count` of them run."""
    barrier = threading.Barrier(count)
    return lambda job: barrier.wait(10) and None


def test_stages_that_do_not_need_one_another_run_at_the_same_time_and_others_in_order(
    specs: Path, together: Together
) -> None:
    together.during = meeting(2)
    together.run(*write_rows(specs, 2), jobs=2)
    assert sorted(together.began) == sorted(
        f"{stage} row{i}" for stage in ("train", "answer", "judge") for i in (0, 1)
    )
    assert together.were_beside("train row0", "train row1")
    for row in ("row0", "row1"):
        own = [name.split()[0] for name in together.began if name.endswith(row)]
        assert own == ["train", "answer", "judge"]
        assert set(together.store.remembered(row)) == {f"local: {stage}" for stage in own}
    assert not any(len({name.split()[1] for name in pair}) == 1 for pair in together.beside)


def test_no_more_stages_run_at_a_time_than_are_asked_for(specs: Path, together: Together) -> None:
    together.run(*write_rows(specs, 4), jobs=2)
    first_two = {frozenset({"train row0", "train row1"})}
    assert first_two <= together.beside
    assert not together.were_beside("train row0", "train row2")
    alone = Together(specs.parent / "alone")
    alone.run(*write_rows(specs, 3), jobs=1)
    assert not alone.beside
    assert alone.began == [
        f"{stage} row{i}" for i in range(3) for stage in ("train", "answer", "judge")
    ]


@pytest.mark.parametrize(("cpus", "most"), [(1, 1), (2, 2), (3, 3)])
def test_left_to_itself_a_machine_runs_as_many_as_it_has_threads_for(
    specs: Path, together: Together, cpus: int, most: int
) -> None:
    now: list[int] = []
    running = threading.Semaphore(0)

    def count(job: Any) -> None:
        running.release()
        now.append(running._value)
        time.sleep(0.2)
        running.acquire()

    together.during = count
    together.run(*write_rows(specs, 4), only=["train"], machine=Machine((), cpus, 64 * GIB))
    assert max(now) == most


def test_a_training_whose_threads_are_open_has_the_machine_to_itself_unless_jobs_are_asked_for(
    specs: Path, together: Together
) -> None:
    rows = write_rows(specs, 2, train=None, eval=None)
    rows = [
        write_row(
            specs, f"row{i}", model=MODEL, gen=None, data="seeds.jsonl", train={"steps": i + 1}
        )
        for i in (0, 1)
    ]
    together.run(*rows, machine=Machine((), environment.cpus(), 64 * GIB))
    assert not together.beside
    assert {job.share.threads for job in together.jobs} == {None}

    asked = Together(specs.parent / "asked")
    asked.during = meeting(2)
    asked.run(*rows, jobs=2, machine=Machine((), 2, 64 * GIB))
    assert {job.share.threads for job in asked.jobs} == {1}
    assert (
        "get 1 of 2 threads each where their spec leaves `threads` open" in asked.output.getvalue()
    )


def test_a_stage_of_which_the_spec_says_the_threads_is_told_nothing_of_them(
    specs: Path, together: Together
) -> None:
    together.run(*write_rows(specs, 2), jobs=2, machine=Machine((), 2, 64 * GIB))
    assert {job.share.threads for job in together.jobs} == {None}
    assert "threads each" not in together.output.getvalue()


def paid(model: str, port: int = 9) -> dict[str, Any]:
    return {"model": model, "base_url": f"http://127.0.0.1:{port}/v1"}


def judged_rows(specs: Path, *judges: dict[str, Any]) -> list[Path]:
    """Controls, of which nothing but the judge takes time."""
    rows = []
    for number, judge in enumerate(judges):
        parts = evaluation(specs, judge)
        parts["answer"]["engine"] = {"kind": "null", "output": f"no {number}"}
        rows.append(
            write_row(
                specs,
                f"judged{number}",
                model=None,
                template=None,
                gen=None,
                train=None,
                eval=parts,
            )
        )
    return rows


def test_what_calls_an_endpoint_runs_beside_what_works_on_the_cpu(
    specs: Path, together: Together
) -> None:
    judged = judged_rows(specs, paid("gpt-4"))
    together.run(*judged, only=["answer"], jobs=1)
    (row,) = write_rows(specs, 1, eval=None)
    together.during = meeting(2)
    together.run(*judged, row, machine=Machine((), 1, 64 * GIB))
    assert together.were_beside("judge judged0", "train row0")


def test_of_stages_that_call_one_endpoint_one_runs_at_a_time(
    specs: Path, together: Together
) -> None:
    judged = judged_rows(specs, paid("gpt-4"), paid("gpt-4"), paid("gpt-5"))
    together.run(*judged, only=["answer"], jobs=1)
    together.run(*judged, jobs=3)
    assert not together.were_beside("judge judged0", "judge judged1")
    assert together.were_beside("judge judged0", "judge judged2")


def handed(job: Any) -> list[int]:
    return [gpu.index for gpu in job.own_gpus()]


def test_gpus_are_handed_out_one_by_one_and_given_back(
    specs: Path, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    held: list[int] = []
    lock = threading.Lock()

    def check(job: Any) -> None:
        mine = handed(job)
        with lock:
            assert not set(mine) & set(held), "a GPU that another stage has"
            held.extend(mine)
        time.sleep(0.05)
        with lock:
            for index in mine:
                held.remove(index)

    together.during = check
    together.run(*write_rows(specs, 5), machine=Machine.here())
    assert {tuple(handed(j)) for j in together.jobs if j.stage == "train"} == {(0,), (2,)}
    assert {tuple(handed(j)) for j in together.jobs if j.stage == "judge"} == {()}
    assert together.were_beside("train row0", "train row1")


def test_a_training_on_several_gpus_is_not_overtaken_for_ever_by_those_on_one(
    specs: Path, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch, *some_gpus(2))
    rows = write_rows(specs, 4, eval=None)
    write_row(specs, "row1", model=MODEL, gen=None, data="seeds.jsonl",
              train={"steps": 9, "launch": {"processes": 2}})  # fmt: skip
    together.run(*rows, machine=Machine.here())
    # The last two begin in the same moment, in threads of their own.
    assert together.began[:2] == ["train row0", "train row1"]
    assert sorted(together.began[2:]) == ["train row2", "train row3"]
    wide = next(job for job in together.jobs if job.title.startswith("train: row1"))
    assert handed(wide) == [0, 1]
    assert together.were_beside("train row2", "train row3")
    assert not together.were_beside("train row0", "train row1")


def test_a_card_that_cannot_do_what_a_training_asks_for_is_handed_to_another(
    specs: Path, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = some_gpus(1)[0], some_gpus(2, capability=(7, 5))[1]
    give_gpus(monkeypatch, new, old)
    rows = write_rows(specs, 3, eval=None, train={"steps": 1, "tf32": True})
    write_row(specs, "row2", model=MODEL, gen=None, data="seeds.jsonl", train={"steps": 7})
    for number in (0, 1):
        write_row(specs, f"row{number}", model=MODEL, gen=None, data="seeds.jsonl",
                  train={"steps": number + 1, "tf32": True})  # fmt: skip
    together.run(*rows, machine=Machine.here())
    cards = {job.title.split()[1]: handed(job) for job in together.jobs}
    assert cards["row0"] == cards["row1"] == [0]


def test_a_stage_that_would_not_fit_beside_another_into_memory_waits_for_it(
    specs: Path, together: Together
) -> None:
    together.run(*write_rows(specs, 2), jobs=2, machine=Machine((), 4, GIB))
    assert not together.were_beside("train row0", "train row1")
    assert len(together.began) == 6


def test_a_stage_that_the_machine_has_no_memory_for_is_refused_before_anything_runs(
    specs: Path, together: Together
) -> None:
    with pytest.raises(InputError, match=r"row row0: its train stage will need about .* MiB") as e:
        together.run(*write_rows(specs, 2), jobs=2, machine=Machine((), 4, GIB // 4))
    assert "this machine has 256.0 MiB" in e.value.message
    assert "--jobs 1" in e.value.hint
    assert not together.began
    together.run(*write_rows(specs, 2), machine=Machine((), 4, GIB // 4))
    assert not together.beside


def failing(together: Together, stage: str, row: str) -> Callable[[Any], None]:
    def during(job: Any) -> None:
        if job.title.startswith(f"{stage}: {row} "):
            raise StageFailed(job, "no loss", "Mend it.", 1)
        time.sleep(0.02)

    return during


def test_a_failed_stage_stops_only_what_needs_it(
    specs: Path, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, outcomes = write_rows(specs, 3), list[str]()
    monkeypatch.setattr(schedule.Board, "count", lambda board, outcome: outcomes.append(outcome))
    together.during = failing(together, "train", "row1")
    with pytest.raises(StagesFailed, match=r"train: row1 \[\w+\] failed: no loss") as caught:
        together.run(*rows, jobs=2)
    assert re.search(r"Not run because of it: answer: row1 \[\w+\], judge: row1", caught.value.hint)
    assert sorted(together.began) == sorted(
        ["train row1", *(f"{s} row{i}" for i in (0, 2) for s in ("train", "answer", "judge"))]
    )
    assert re.search(r"^train: row1 \[\w+\]: failed: no loss$", together.output.getvalue(), re.M)
    assert Counter(outcomes) == {"done": 6, "failed": 1, "not run": 2}
    together.began.clear()
    together.during = lambda job: None
    together.run(*rows, jobs=2)
    assert together.began == ["train row1", "answer row1", "judge row1"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_damaged_artefact_or_a_fault_around_a_stage_stops_only_what_needs_it(
    specs: Path, together: Together, jobs: int
) -> None:
    rows = write_rows(specs, 4)
    together.run(rows[1], only=["train"], jobs=1)
    trained = planned(together.store.root, rows[1])[0].stages[0]
    assert trained.artefact is not None
    (model,) = (p for p in trained.artefact.folder.rglob("*") if p.name != "manifest.json")
    model.chmod(0o644)
    model.write_text("something else")
    together.began.clear()

    def during(job: Any) -> None:
        if job.title.startswith("train: row2 "):
            raise HarnessError("the lock was lost", "Look at the volume.")

    together.during = during
    with pytest.raises(StagesFailed) as caught:
        together.run(*rows, jobs=jobs)
    error = caught.value
    assert error.exit_code == 1
    assert error.message.startswith("2 stages failed\n- ")
    assert re.search(
        r"answer: row1 \[\w+\] failed: the artefact train/\w+ was changed", error.message
    )
    assert re.search(
        r"train: row2 \[\w+\] failed: the lock was lost\n  Look at the volume\.", error.message
    )
    left_out = r"Not run because of it: .*judge: row1 .*answer: row2 .*judge: row2|"
    left_out += r"Not run because of it: .*answer: row2 .*judge: row2 .*judge: row1"
    assert re.search(left_out, error.hint)
    whole = [name for name in together.began if name.endswith(("row0", "row3"))]
    assert len(whole) == 6


def edit_manifest(volume: Path, stage: str) -> Path:
    """Of the only artefact of the stage."""
    (path,) = volume.glob(f"artefacts/{stage}/*/manifest.json")
    path.write_text(path.read_text().replace('"stage"', '"stages"'))
    return path


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_damaged_once_it_is_planned_for_reuse_stops_only_what_needs_it(
    specs: Path, together: Together, jobs: int
) -> None:
    rows = write_rows(specs, 3)
    together.run(rows[1], only=["train"], jobs=1)
    together.began.clear()
    together.once_planned = lambda: edit_manifest(together.store.root, "train")
    with pytest.raises(StagesFailed) as caught:
        together.run(*rows, jobs=jobs)
    assert caught.value.exit_code == 1
    assert re.match(
        r"train: row1 \[\w+\] failed: the artefact train/\w+ was changed", caught.value.message
    )
    assert re.search(r"Not run because of it: answer: row1 .* judge: row1", caught.value.hint)
    assert sorted(together.began) == sorted(
        f"{s} row{i}" for i in (0, 2) for s in ("train", "answer", "judge")
    )


@pytest.mark.parametrize("error", [Interrupted("stopped"), OSError(28, "no space")])
def test_what_would_hit_every_row_ends_the_others_in_order(
    specs: Path, together: Together, error: Exception
) -> None:
    ended: list[str] = []

    def during(job: Any) -> None:
        if "row0" in job.title:
            until(lambda: len(together.began) == 2)
            raise error
        assert job.stop.wait(10)
        ended.append(job.title)
        raise Interrupted("stopped")

    together.during = during
    with pytest.raises(type(error)) as caught:
        together.run(*write_rows(specs, 4), jobs=2)
    assert caught.value is error
    assert len(ended) == 1
    assert len(together.began) == 2


@pytest.mark.parametrize("jobs", [1, 2, None])
def test_what_another_process_holds_is_set_aside_and_waited_for_when_all_else_is_done(
    specs: Path, together: Together, jobs: int | None
) -> None:
    rows = write_rows(specs, 2)
    held = planned(together.store.root, rows[0])[0].stages[0]
    with together.store.lock(held.stage, held.key):
        thread = threading.Thread(target=together.run, args=rows, kwargs={"jobs": jobs})
        thread.start()
        until(lambda: "waiting for process" in together.output.getvalue())
        assert together.began == ["train row1", "answer row1", "judge row1"]
        time.sleep(1.5)
    thread.join(20)
    assert together.began[3:] == ["train row0", "answer row0", "judge row0"]
    said = re.findall(r"train: row0 \[\w+\]: waiting for process", together.output.getvalue())
    assert len(said) == 1


def test_a_single_chain_is_shown_as_it_always_was(specs: Path, together: Together) -> None:
    together.run(*write_rows(specs, 1))
    assert re.search(r"^train: row0 \[\w+\]\n  done in ", together.output.getvalue(), re.M)


def test_what_is_there_is_not_run_again(specs: Path, together: Together) -> None:
    rows = write_rows(specs, 2)
    together.run(*rows, jobs=2)
    together.began.clear()
    together.run(*rows, jobs=2)
    assert together.began == []
    assert together.output.getvalue().count("there already") == 6


# In processes of their own.

in_time = functools.partial(until, seconds=60)
"""Two interpreters begin at a time, perhaps beside other tests."""


@pytest.fixture
def fake(tmp_path: Path) -> FakeStages:
    return FakeStages(tmp_path / "fake")


def tries(volume: Path) -> dict[str, int]:
    """Stage and key of each artefact -> how often its stage was begun."""
    manifests = (json.loads(p.read_text()) for p in volume.glob("artefacts/*/*/manifest.json"))
    return {f"{m['stage']} {m['key']}": m["counts"]["tries"] for m in manifests}


def test_two_at_a_time_make_the_same_keys_and_the_same_matrix_as_one(
    specs: Path, fake: FakeStages, tmp_path: Path
) -> None:
    rows = write_rows(specs, 3)
    fake.order("train", "until told")
    process = start(fake.env, "run", *rows, "--jobs", "2", "--volume", tmp_path / "two")
    in_time(lambda: len(fake.runs("train")) == 2)
    (fake.folder / "go").touch()
    two, _ = process.communicate(timeout=60)
    assert process.returncode == 0, two
    one = harness(fake.env, "run", *rows, "--jobs", "1", "--volume", tmp_path / "one")
    assert one.returncode == 0, one.stdout
    assert len(tries(tmp_path / "one")) == 9
    assert tries(tmp_path / "one") == tries(tmp_path / "two")
    matrix = one.stdout[one.stdout.index("row ") : one.stdout.index("look at it")]
    assert matrix.count("\n") == 4
    assert matrix in two
    for line in two.splitlines():
        if "working:" in line:
            assert re.match(r"(train|answer|judge): row\d \[\w{12}\]: working: \d of 2 steps", line)


def test_rows_that_would_reuse_a_damaged_artefact_are_left_out_and_the_others_run(
    specs: Path, fake: FakeStages, tmp_path: Path
) -> None:
    first, shares, other = *write_rows(specs, 1), specs / "shares.yaml", *write_rows(specs, 2)[1:]
    shares.write_text(first.read_text().replace("row: row0", "row: shares"))
    options = ("--jobs", "2", "--volume", tmp_path)
    assert harness(fake.env, "run", first, "--only", "train", *options).returncode == 0
    artefact = edit_manifest(tmp_path, "train").parent
    done = harness(fake.env, "run", first, shares, other, *options)
    assert done.returncode == 1, done.stdout
    fault = f"the artefact train/{artefact.name} was changed after it was made: "
    assert f"left out: {first}: {fault}" in done.stdout
    assert f"left out: {shares}: {fault}" in done.stdout
    assert f"error: {shares}, {first}: {fault}" in done.stdout
    assert f"gc --yes train/{artefact.name}" in done.stdout
    assert "Traceback" not in done.stdout
    assert [run.split()[0] for run in fake.runs()] == ["train", "train", "answer", "judge"]
    alone = harness(fake.env, "run", first, *options)
    assert alone.returncode == 1
    assert f"error: {first}: {fault}" in alone.stdout


def test_ctrl_c_ends_all_stages_in_order_and_the_same_command_goes_on(
    specs: Path, fake: FakeStages, tmp_path: Path
) -> None:
    rows, volume = write_rows(specs, 3), tmp_path / "volume"
    fake.order("train", "wait")
    process = start(fake.env, "run", *rows, "-j", "2", "--volume", volume)
    in_time(lambda: len(fake.runs("train")) == 2)
    in_time((fake.folder / "waiting").exists)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "stopping: 2 stages get 30 s to end in order; Ctrl-C again kills" in output
    assert "2 stages were stopped; what they have made so far is kept: train: row0" in output
    assert "Run the same command again to go on." in output
    assert "Traceback" not in output
    assert not any(is_alive(int(run.split()[2])) for run in fake.runs())
    assert not list(volume.glob("artefacts/train/*"))
    fake.order("train", None)
    again = harness(fake.env, "run", *rows, "-j", "2", "--volume", volume)
    assert again.returncode == 0, again.stdout
    counts = [n for name, n in tries(volume).items() if name.startswith("train")]
    assert sorted(counts) == [1, 2, 2]


def test_a_second_ctrl_c_kills_what_does_not_end(
    specs: Path, fake: FakeStages, tmp_path: Path
) -> None:
    fake.order("train", "ignore and wait")
    process = start(fake.env, "run", *write_rows(specs, 2), "-j", "2", "--volume", tmp_path / "v")
    in_time(lambda: len(fake.runs("train")) == 2)
    in_time((fake.folder / "waiting").exists)
    in_time((fake.folder / "helper").exists)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 130, output
    assert "killing what has not ended" in output
    assert not any(is_alive(int(run.split()[2])) for run in fake.runs())
    helper = int((fake.folder / "helper").read_text())
    in_time(lambda: not is_alive(helper))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_tells_what_failed_before_it(
    specs: Path, fake: FakeStages, tmp_path: Path, jobs: str
) -> None:
    rows, volume = write_rows(specs, 3), tmp_path / "volume"
    keys = [planned(volume, row)[0].stages[0].key[:12] for row in rows]
    for key, order in zip(keys, ["fail", "wait", "wait"], strict=True):
        fake.order(f"train-{key}", order)
    process = start(fake.env, "run", *rows, "-j", jobs, "--volume", volume)
    in_time(lambda: len(fake.runs("train")) == 1 + int(jobs))
    in_time((fake.folder / "waiting").exists)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    end = output[output.index("error: ") :]
    assert "stopped; what" in end
    assert re.search(
        rf"Before that 1 stage failed:\n- train: row0 \[{keys[0]}\] failed: the loss is not a number\n"
        r"  Lower the learning rate\.\n  The whole log: \S+\nRun the same command again to go on\.",
        end,
    )


@pytest.mark.parametrize(
    ("jobs", "order", "apart"),
    [("1", signal.SIGTERM, 0.2), ("2", signal.SIGTERM, 0.2), ("2", signal.SIGINT, 0.05)],
)
def test_one_order_that_comes_as_two_signals_kills_nothing_and_a_later_one_does(
    specs: Path, fake: FakeStages, tmp_path: Path, jobs: str, order: signal.Signals, apart: float
) -> None:
    fake.order("train", "ignore and wait")
    process = start(fake.env, "run", *write_rows(specs, 2), "-j", jobs, "--volume", tmp_path / "v")
    in_time(lambda: len(fake.runs("train")) == int(jobs))
    in_time((fake.folder / "helper").exists)
    process.send_signal(order)
    time.sleep(apart)
    process.send_signal(order)
    time.sleep(1.2)
    assert process.poll() is None
    assert all(is_alive(int(run.split()[2])) for run in fake.runs())
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 130, output
    assert not any(is_alive(int(run.split()[2])) for run in fake.runs())


def test_that_what_has_not_ended_is_killed_is_said_once(
    specs: Path, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def during(job: Any) -> None:
        until(lambda: len(together.began) == 2)
        if job.title.startswith("train: row0 "):
            for _ in range(4):
                signal.pthread_kill(main, signal.SIGINT)
                time.sleep(0.3)
            goes_on.set()
        assert goes_on.wait(10)

    together.during = during
    with pytest.raises(Interrupted):
        together.run(*write_rows(specs, 2), jobs=2)
    assert together.output.getvalue().count("killing what has not ended") == 1


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_run_whose_output_nothing_reads_any_more_ends_in_order_and_says_how_it_goes_on(
    specs: Path, fake: FakeStages, tmp_path: Path, jobs: str
) -> None:
    rows, volume = write_rows(specs, 3), tmp_path / "volume"
    keys = [planned(volume, row)[0].stages[0].key[:12] for row in rows]
    for key, order in zip(keys, ["until told", "wait", "wait"], strict=True):
        fake.order(f"train-{key}", order)
    command = ["run", *map(str, rows), "-j", jobs, "--volume", str(volume)]
    process = subprocess.Popen(
        [*HARNESS, *command],
        env=fake.env,
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    in_time(lambda: len(fake.runs("train")) == int(jobs))
    in_time((fake.folder / "waiting").exists)
    process.stdout.close()
    (fake.folder / "go").touch()
    said = process.stderr.read()
    assert process.wait(30) == 130, said
    assert "nothing reads this command's output any more" in said
    assert said.endswith("Run the same command again to go on.\n")
    assert "Traceback" not in said
    assert not any(is_alive(int(run.split()[2])) for run in fake.runs())
    for key in keys:
        fake.order(f"train-{key}", None)
    again = harness(fake.env, *command)
    assert again.returncode == 0, again.stdout


def test_a_killed_harness_takes_all_its_stages_with_it(
    specs: Path, fake: FakeStages, tmp_path: Path
) -> None:
    fake.order("train", "wait")
    process = start(fake.env, "run", *write_rows(specs, 2), "-j", "2", "--volume", tmp_path / "v")
    in_time(lambda: len(fake.runs("train")) == 2)
    in_time((fake.folder / "waiting").exists)
    process.kill()
    process.communicate()
    in_time(lambda: not any(is_alive(int(run.split()[2])) for run in fake.runs()))


def test_two_runs_on_one_volume_take_other_rows_and_make_nothing_twice(
    specs: Path, fake: FakeStages, tmp_path: Path
) -> None:
    rows, volume = write_rows(specs, 2), tmp_path / "volume"
    first_key = planned(volume, rows[0])[0].stages[0].key[:12]
    fake.order(f"train-{first_key}", "until told")
    first = start(fake.env, "run", *rows, "--jobs", "1", "--volume", volume)
    in_time(lambda: len(fake.runs("train")) == 1)
    second = start(fake.env, "run", *rows, "--jobs", "1", "--volume", volume)
    in_time(lambda: len(fake.runs("judge")) == 1)
    (fake.folder / "go").touch()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert len(fake.runs()) == 6
    assert set(tries(volume).values()) == {1}
    assert [o.count("row1") > 0 for o in outputs] == [True, True]


def test_no_jobs_at_all_and_what_is_no_number_are_refused(specs: Path, fake: FakeStages) -> None:
    (row,) = write_rows(specs, 1)
    for arguments, env in (
        (["--jobs", "0"], {}),
        (["-j", "two"], {}),
        (["-j", "1.5"], {}),
        ([], {"HARNESS_JOBS": "-1"}),
    ):
        refused = harness({**fake.env, **env}, "run", row, *arguments)
        assert refused.returncode == 2, refused.stdout
        assert "--jobs" in refused.stdout
        assert "is no integer from 1" in refused.stdout
        assert "Traceback" not in refused.stdout
    assert not fake.runs()
