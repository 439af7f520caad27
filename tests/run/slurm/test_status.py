"""What is said of a stage, for each thing that Slurm, the volume and the job's notes can say."""

import io
import json
import os
import random
import re
import socket
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.cli.views.queue import as_json, show_queue
from harness.cli.workspace import make_console
from harness.errors import HarnessError, InputError
from harness.run.site import SlurmSite
from harness.run.slurm import grouping, queue, status, tools
from harness.run.slurm.queue import QueuedJob
from harness.run.slurm.records import LOCK, Attempt, MachineFault, Records, Submitted
from harness.run.slurm.submit import Submission
from tests.helpers import planned, write_row

JOB = "12"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Place":
    return Place(tmp_path, monkeypatch)


class Place:
    """A row of one stage that was submitted as a job, and what Slurm says of the job."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.volume = folder / "volume"
        self.spec = write_row(folder / "specs", train=None)
        (self.plan,) = planned(self.volume, self.spec)
        (self.stage,) = self.plan.stages
        self.store = self.stage.planner.store
        self.store.prepare()
        self.records = Records(self.volume / "slurm")
        self.records.prepare()
        self.jobs: dict[str, QueuedJob] = {}
        patch.setattr(queue, "jobs", lambda: dict(self.jobs))
        patch.setattr(queue, "forgotten", lambda refs: {})

    def submit(self, **changes: Any) -> None:
        values = {"submission": "s", "task": None, "job": JOB, "at": time.time(), **changes}
        self.records.write_submitted(Submitted(self.stage.stage, self.stage.key, **values))

    def begin(self, **changes: Any) -> None:
        values = {"job": JOB, "submission": "s", "node": "n1", "started": time.time(), **changes}
        self.records.begin(self.stage.stage, self.stage.key, Attempt(**values))

    def say(self, state: str, **facts: str) -> None:
        self.jobs[JOB] = QueuedJob(JOB, state, **{"comment": "harness:s", **facts})

    def status(self) -> status.StageStatus:
        (found,) = status.statuses([self.plan], self.store)
        return found

    def queued(self) -> dict[grouping.Id, grouping.Place]:
        submission = Submission(self.store, self.stage.planner.files, SlurmSite(), None, Console())
        return submission._queued([self.stage])

    def cancel(self) -> list[Any]:
        return status.cancel([self.plan], self.store, pytest.fail)


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def record(job: str, task: int | None) -> Submitted:
    return Submitted("gen", "k", "s", task, job, name="gen:one")


def test_what_was_never_submitted_is_said_to_be_so_and_slurm_is_not_asked(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "jobs", lambda: pytest.fail("Slurm was asked"))
    assert place.status().state == "not submitted"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "waits while others go first"),
        ("Resources", "waits for nodes to become free"),
        ("(PartitionTimeLimit)", "waits for ever: it asks for more time than its partition gives"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "waits for nodes that are not available"),
        ("SomethingNew", "waits: SomethingNew"),
    ],
)
def test_what_a_job_waits_for_is_said_in_words(place: Place, reason: str, words: str) -> None:
    place.submit()
    place.say("PENDING", reason=reason)
    found = place.status()
    assert (found.state, found.why) == ("pending", words)


def test_a_running_stage_shows_its_last_progress(place: Place) -> None:
    place.submit()
    place.begin()
    place.say("RUNNING", node="n2", start="2026-01-02T03:04:05")
    (place.records.jobs / f"{JOB}_0_log.out").write_text("gen: one\n  working: 1 of 2 steps\n")
    found = place.status()
    assert (found.state, found.node, found.why) == ("running", "n2", "working: 1 of 2 steps")


def test_a_training_that_tells_its_progress_on_another_machine_is_read_there(place: Place) -> None:
    place.submit()
    place.begin()
    place.say("RUNNING", node="n[1-2]")
    (place.records.jobs / f"{JOB}_0_log.out").write_text("waiting for 1 more machines\n")
    event = '{"event": "progress", "task": "train", "done": 3, "total": 9, "unit": "steps"}'
    (place.records.jobs / f"{JOB}_1_log.out").write_text(event + "\n")
    (place.records.jobs / f"{JOB}_4_0_log.out").write_text("of a task of another array\n")
    os.utime(place.records.jobs / f"{JOB}_0_log.out", (1, 1))
    assert place.status().why == "train: 3 of 9 steps"


def test_a_failure_has_the_jobs_own_reason_and_the_stages_last_lines(place: Place) -> None:
    place.submit()
    place.begin()
    place.records.end(place.stage.stage, place.stage.key, "failed", "the loss is not a number")
    log = place.store.log_path(place.stage.stage, place.stage.key)
    log.write_text("\n".join(f"line {n}" for n in range(40)))
    found = place.status()
    assert (found.state, found.why, found.node) == ("failed", "the loss is not a number", "n1")
    assert list(found.tail) == [f"line {n}" for n in range(28, 40)]


def test_the_last_lines_are_never_those_of_an_earlier_attempt(place: Place) -> None:
    place.submit()
    place.begin(skew=-30.0)
    log = place.store.log_path(place.stage.stage, place.stage.key)
    log.write_text("--- an attempt before\nits last line\n")
    os.utime(log, (time.time() + 20,) * 2)  # by the clock of the volume, which is 30 s ahead
    error = place.records.jobs / f"{JOB}_0_log.err"
    error.write_text("--- start 1 on n1\nof its first start\n--- start 2 on n1\n")
    end = ("failed", "its driver is old")
    place.records.end(place.stage.stage, place.stage.key, *end)
    found = place.status()
    assert (list(found.tail), found.log) == ([], error)
    with error.open("a") as file:
        file.write("of its second\n")
    assert list(place.status().tail) == ["of its second"]
    with log.open("a") as file:
        file.write("--- gen: one\nof the stage\n")
    os.utime(log, (time.time() + 31,) * 2)
    assert (list(place.status().tail), place.status().log) == (["of the stage"], log)


def test_the_progress_of_an_earlier_start_is_not_this_ones(place: Place) -> None:
    place.submit()
    place.begin(restart=1)
    place.say("RUNNING", node="n2")
    output = place.records.jobs / f"{JOB}_0_log.out"
    output.write_text("--- start 1\n  working: 1 of 2 steps\n--- start 2\n")
    assert place.status().why == "starting"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("OUT_OF_MEMORY", "it took more memory than it asked for"),
        ("NODE_FAIL", "its node failed"),
        ("TIMEOUT", "its time was up before it had stopped"),
        ("FAILED", "its job ended without a word on n1"),
    ],
)
def test_a_job_that_was_killed_says_by_what(place: Place, state: str, words: str) -> None:
    place.submit()
    place.begin()
    place.say(state)
    found = place.status()
    assert found.state == "failed"
    assert words in found.why


def test_a_job_that_left_nothing_points_at_the_volume(place: Place) -> None:
    place.submit()
    place.say("FAILED", node="n3")
    found = place.status()
    assert f"volume on n3: most often the node does not see {place.volume}" in found.why
    assert (found.state, found.log) == ("failed", None)


def test_a_job_that_slurm_forgot_and_that_left_nothing_is_said_to_be_so(place: Place) -> None:
    place.submit(task=3)
    found = place.status()
    assert (found.state, found.log) == ("not run", None)
    assert "Slurm no longer knows its job" in found.why
    error = place.records.jobs / f"{JOB}_3_0_log.err"
    error.write_text("no module\n")
    found = place.status()
    assert (found.state, found.log, found.tail) == ("failed", error, ["no module"])


def test_no_log_is_named_that_is_not_there(place: Place) -> None:
    place.submit()
    place.begin()
    place.say("NODE_FAIL")
    assert (place.status().state, place.status().log) == ("failed", None)


def test_a_submission_that_was_cut_off_is_said_to_be_so(place: Place) -> None:
    place.submit(job="")
    assert "its submission was cut off, and Slurm knows no job of it" in place.status().why


def test_a_job_whose_submission_was_cut_off_is_known_by_its_own_word_once_slurm_forgot_it(
    place: Place,
) -> None:
    place.submit(job="")
    place.begin()
    log = place.records.jobs / f"{JOB}_0_log.err"
    log.write_text("Killed\n")
    found = place.status()
    assert (found.state, found.job, found.log) == ("failed", JOB, log)
    assert list(found.tail) == ["Killed"]


def test_a_job_whose_number_a_submission_had_not_noted_is_found_submitted_once_and_cancelled(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(tools, "call", called.append)
    place.submit(job="", task=3)
    ref = f"{JOB}_3"
    place.jobs[ref] = QueuedJob(ref, "RUNNING", "n2", comment="harness:s")
    found = place.status()
    assert (found.state, found.job, found.node) == ("running", ref, "n2")
    assert list(place.queued().values()) == [grouping.Place(int(JOB), 3)]
    assert place.cancel() == [place.stage]
    assert called == [["scancel", ref]]
    place.jobs[ref] = QueuedJob(ref, "COMPLETING", "n2", comment="harness:s")
    assert place.status().why == "by harness cancel"
    assert place.queued() == {}


@pytest.mark.parametrize(
    "script", ["echo 'scancel: error: Access/permission denied' >&2; exit 1", None]
)
def test_a_job_that_scancel_does_not_end_is_neither_called_cancelled_nor_submitted_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    if script is not None:
        program(tmp_path / "bin", "scancel", script)
    place.submit()
    place.say("RUNNING", node="n2")
    before = place.records.submitted(place.stage.stage, place.stage.key)
    with pytest.raises(tools.SlurmFault, match=r"^scancel: "):
        place.cancel()
    assert place.records.submitted(place.stage.stage, place.stage.key) == before
    place.submit(cancelled=True)  # as where a cancellation was cut off
    assert place.status().state == "running"
    assert list(place.queued().values()) == [grouping.Place(int(JOB), None)]


@pytest.mark.parametrize(
    "text", ["", "\0\0", "[]", "[" * 100000, "{}", '{"key": 1}', '{"key": "k", "more": 1}']
)
def test_a_damaged_record_is_named_and_its_stage_not_submitted_again(
    place: Place, text: str
) -> None:
    place.submit()
    place.say("RUNNING", node="n2")
    (path,) = (place.records.root / "submitted").iterdir()
    path.write_text(text)
    for look in (place.status, place.queued, place.cancel):
        with pytest.raises(InputError, match=re.escape(f"{path}, which says under which job")) as e:
            look()
        assert "delete this file and submit again" in e.value.hint


def test_a_cancellation_waits_for_a_submission_that_is_at_work(place: Place) -> None:
    place.submit()
    place.say("RUNNING", node="n2")
    told: list[str] = []

    def leave(owner: str) -> None:
        told.append(owner)
        raise KeyboardInterrupt

    with place.store.lock(*LOCK), pytest.raises(KeyboardInterrupt):
        status.cancel([place.plan], place.store, leave)
    assert told == [f"process {os.getpid()} on {socket.gethostname()}"]
    record = place.records.submitted(place.stage.stage, place.stage.key)
    assert record is not None
    assert not record.cancelled


def test_a_requeued_job_says_why_it_waits_again(place: Place) -> None:
    place.submit()
    place.begin()
    place.records.end(place.stage.stage, place.stage.key, "requeued", "its time was up")
    place.say("PENDING", reason="BeginTime")
    found = place.status()
    assert found.state == "pending"
    assert "its time was up" in found.why


def test_a_job_that_slurm_stopped_and_queued_again_is_neither_lost_nor_cancelled(
    place: Place,
) -> None:
    place.submit()
    place.begin()
    end = ("stopped", "Slurm asked it to end")
    place.records.end(place.stage.stage, place.stage.key, *end)
    again = "; Slurm asked it to end at its start number 1, it goes on"
    for state, why in {"COMPLETING": "ending", "PENDING": f"waits for nodes to become free{again}",
                       "RUNNING": f"starting{again}"}.items():  # fmt: skip
        place.say(state, node="n1", reason="Resources")
        assert place.status().why == why


def test_a_job_whose_node_died_is_said_to_go_on(place: Place) -> None:
    place.submit()
    place.begin()
    place.say("PENDING", reason="BeginTime")
    assert "queued again after it was lost on n1" in place.status().why


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        ({"skew": 312.0}, "the clock of n1 is 312 s ahead of the volume's"),
        ({"skew": -40.0}, "the clock of n1 is 40 s behind the volume's"),
        ({"behind": 90.0}, "the clock of n1 is 90 s or more behind the login node's"),
        ({"skew": 1.0}, ""),
    ],
)
def test_clocks_that_are_apart_are_said(place: Place, clock: dict[str, float], words: str) -> None:
    place.submit()
    place.begin(**clock)
    place.say("RUNNING", node="n1")
    assert place.status().warning == words


def test_an_array_in_one_line_of_squeue_is_read_task_by_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = "7_[0-2,5%4]|PENDING||N/A|harness:x|Resources\n7_3|RUNNING|n1|2026|c|None\n"
    monkeypatch.setattr(tools, "call", lambda command: lines)
    found = queue.jobs()
    assert {ref: job.state for ref, job in found.items()} == {
        **{f"7_{n}": "PENDING" for n in (0, 1, 2, 5)},
        "7_3": "RUNNING",
    }
    assert found["7_0"].reason == "Resources"


def test_a_job_of_anothers_may_have_line_breaks_in_its_comment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "7|RUNNING|n1|2026|of\nthree\n\nlines|None\n8|PENDING||N/A|c|Priority\n"
    monkeypatch.setattr(tools, "call", lambda command: said)
    seven, eight = queue.jobs().values()
    assert (seven.comment, seven.reason, eight.ref) == ("of three lines", "None", "8")


@pytest.mark.parametrize(
    "line",
    [
        "no job at all",
        random.Random(1).randbytes(3000).decode(errors="replace"),
        "99_[0-4000000000]|PENDING||N/A|harness:x|Resources",
        "99_[0-400000000]|PENDING||N/A|harness:x|Resources",
        "99_[0-2,...]|PENDING||N/A|harness:x|Resources",
    ],
)
def test_what_squeue_does_not_say_of_jobs_is_not_taken_for_an_empty_queue(
    monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(tools, "call", lambda command: f"7|RUNNING|n1|2026|c|None\n{line}\n")
    with pytest.raises(HarnessError, match=r"^squeue's answer could not be read: ") as e:
        queue.jobs()
    assert type(e.value) is HarnessError
    assert len(e.value.message) < 500


def test_squeue_is_asked_for_a_user_who_has_no_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path, "squeue", 'echo "7|RUNNING|n1|2026|c|$*"')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert "--user=54321 " in queue.jobs()["7"].reason


def test_without_accounting_nothing_is_said_of_forgotten_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(command: list[str]) -> str:
        raise tools.SlurmFault("sacct", "Slurm accounting storage is disabled")

    monkeypatch.setattr(tools, "call", refuse)
    monkeypatch.setattr(queue.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    assert queue.forgotten([record("7", None)]) == {}


def test_accounting_knows_what_became_of_forgotten_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "8| |n1|gen:one|\n7_1|CANCELLED by 1000|n2|gen:one|\n8|NODE_FAIL|n1|gen:one|harness:s\n"
    monkeypatch.setattr(tools, "call", lambda command: said)
    monkeypatch.setattr(queue.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    found = queue.forgotten([record("7", 1), record("8", None)])
    assert {ref: (job.state, job.node) for ref, job in found.items()} == {
        "7_1": ("CANCELLED", "n2"),
        "8": ("NODE_FAIL", "n1"),
    }


@pytest.mark.parametrize("comment", ["harness:another", "", "of somebody's own"])
def test_a_number_that_slurm_gave_out_again_is_not_the_stages_job(
    place: Place, monkeypatch: pytest.MonkeyPatch, comment: str
) -> None:
    called: list[object] = []
    monkeypatch.setattr(tools, "call", called.append)
    place.submit()
    place.say("RUNNING", node="n2", comment=comment)
    assert place.status().state == "not run"
    assert place.cancel() == []
    assert not called
    assert place.queued() == {}
    place.say("RUNNING", node="n2")
    assert list(place.queued().values()) == [grouping.Place(int(JOB), None)]
    assert place.cancel() == [place.stage]
    assert called == [["scancel", JOB]]


def test_accounting_tells_another_job_of_the_same_number_from_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "7|FAILED|n1|gen:one|harness:other\n8|FAILED|n1|wrap|\n9|FAILED|n1|gen:one|\n"
    monkeypatch.setattr(tools, "call", lambda command: said)
    monkeypatch.setattr(queue.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    records = [record(job, None) for job in ("7", "8", "9")]
    found = queue.forgotten(records)
    assert [queue.job_of(r, found) is not None for r in records] == [False, False, True]


def test_a_second_machine_that_ended_first_is_a_failure_with_its_reason_and_log(
    place: Place,
) -> None:
    place.submit()
    place.begin(restart=1)
    name, key = place.stage.stage, place.stage.key
    place.records.tell_fault(name, key, MachineFault("s", 1, 1, "n2", "refused", "no GPU", "Do."))
    place.records.tell_fault(name, key, MachineFault("s", 1, 2, "n3", "failed", "later"))
    place.records.end(name, key, "stopped", "Slurm asked it to end")
    log = place.records.jobs / f"{JOB}_1_log.err"
    log.write_text("error: no GPU\n")
    found = place.status()
    assert (found.state, found.node, found.why) == ("failed", "n2", "no GPU. Do.")
    assert (list(found.tail), found.log) == (["error: no GPU"], log)


def test_a_fault_of_an_earlier_start_says_nothing_of_this_one(place: Place) -> None:
    place.submit()
    place.begin(restart=1)
    name, key = place.stage.stage, place.stage.key
    place.records.tell_fault(name, key, MachineFault("s", 0, 1, "n2", "failed", "no GPU"))
    place.records.end(name, key, "stopped", "Slurm asked it to end")
    assert place.status().state == "cancelled"
    place.say("FAILED")
    found = place.status()
    assert (found.state, "one of its machines" in found.why) == ("failed", True)


def test_a_refusal_and_its_way_out_are_two_sentences(place: Place) -> None:
    place.submit()
    place.begin()
    end = ("refused", "the checkout differs", "Submit again.")
    place.records.end(place.stage.stage, place.stage.key, *end)
    assert place.status().why == "the checkout differs. Submit again."


def test_a_machine_without_slurm_is_told_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch, squeue and scontrol are not on PATH"):
        tools.require()
    for name in ("sbatch", "squeue"):
        (tmp_path / name).touch(0o755)
    with pytest.raises(InputError, match="here: scontrol is not on PATH"):
        tools.require()


def test_a_first_machine_that_ended_first_keeps_its_reason(place: Place) -> None:
    place.submit()
    place.begin()
    name, key = place.stage.stage, place.stage.key
    place.records.end(name, key, "failed", "the loss is not a number")
    place.records.tell_fault(name, key, MachineFault("s", 0, 1, "n2", "failed", "exit code 1"))
    assert place.status().why == "the loss is not a number"


def shown(place: Place, width: int) -> list[str]:
    file = io.StringIO()
    show_queue(Console(file=file, width=width), status.statuses([place.plan], place.store))
    return file.getvalue().splitlines()


def test_on_80_columns_a_stage_has_several_lines_and_nothing_is_cut(place: Place) -> None:
    place.submit(task=17)
    ref = f"{JOB}_17"
    why = "waits for ever: it asks for more time than its partition gives"
    place.jobs[ref] = QueuedJob(ref, "PENDING", comment="harness:s", reason="PartitionTimeLimit")
    narrow, wide = shown(place, 80), shown(place, 200)
    assert [line.strip() for line in narrow[1:4]] == [
        f"pending  {place.stage.title}", f"job {ref}", why
    ]  # fmt: skip
    assert max(map(len, narrow)) <= 80
    assert len(wide) == 3
    for words in (place.stage.title, "pending", ref, why):
        assert words in wide[1]


def test_the_width_that_columns_says_holds_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert make_console().width == 72
    monkeypatch.delenv("COLUMNS")
    assert make_console().width == 200


def test_piped_no_line_of_a_status_is_broken(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    place.submit()
    why = f"waits for /a/path/{'x' * 200}"
    show_queue(make_console(), [replace(place.status(), why=why)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith(f"{place.stage.title}  ")
    assert lines[1].endswith(f"  {why}")


def test_as_json_a_status_has_all_that_is_known_of_a_stage(place: Place) -> None:
    place.submit()
    place.begin()
    end = ("failed", "the loss is not a number")
    place.records.end(place.stage.stage, place.stage.key, *end)
    log = place.store.log_path(place.stage.stage, place.stage.key)
    log.write_text("last words\n")
    (facts,) = json.loads(as_json(status.statuses([place.plan], place.store)))
    assert abs(datetime.fromisoformat(facts.pop("since")).timestamp() - time.time()) < 60
    assert facts == {
        "stage": "gen", "row": "one", "label": "", "key": place.stage.key, "state": "failed",
        "job": JOB, "node": "n1", "why": "the loss is not a number", "log": str(log),
        "tail": ["last words"], "warning": "",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["attempts", "faults"])
def test_notes_of_another_version_are_as_none(place: Place, kind: str) -> None:
    place.submit()
    stage = place.stage
    path = place.records.root / kind / f"{stage.stage}-{stage.key[:16]}.json"
    path.write_text(json.dumps({"attempts": [{"x": 1}]}), encoding="utf-8")
    assert place.records.attempts(stage.stage, stage.key) == []
    assert place.records.fault(stage.stage, stage.key, "s", 0) is None
