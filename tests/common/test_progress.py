"""A stage's progress at the terminal, in words."""

import contextlib
import io
import re

import pytest
from rich.console import Console

from harness.common.board import Board
from harness.common.progress import ProgressView, counted, progress_event
from harness.errors import HarnessError, Interrupted


def said(done: int, total: int | None, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with ProgressView(console, "gen") as view:
        for at in (1, done):
            view.show({"event": "progress", "task": "instructions", "done": at, "total": total,
                       "unit": "instruction"})  # fmt: skip
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_total_that_is_passed_is_not_told_any_more(terminal: bool) -> None:
    assert "of 16 instructions" in said(16, 16, False)
    text = said(20, 16, terminal)
    assert "20 of 16" not in text
    assert "20/16" not in text
    if terminal:
        assert "20/20" in text


def test_one_thing_is_told_in_the_singular() -> None:
    assert counted(1, "file") == "1 file"
    assert counted(0, "file") == "0 files"
    assert "1 instruction," in said(1, None, False)


@pytest.mark.parametrize("error", [HarnessError("no loss"), Interrupted("stopped")])
@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_left_of_a_stage_that_failed_is_how_far_it_was(
    terminal: bool, error: HarnessError
) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    with contextlib.suppress(HarnessError), ProgressView(console, "answer") as view:
        for task, at in (("loading", 1), ("answer", 3), ("answer", 40), ("answer", 41)):
            view.show({"event": "progress", "task": task, "done": at, "total": 50,
                       "unit": "prompt"})  # fmt: skip
        raise error
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    if not terminal:
        assert text == (
            "answer\n  loading: 1 of 50 prompts, 0 s\n  answer: 3 of 50 prompts, 0 s\n"
            "  answer: 41 of 50 prompts, 0 s\n"
        )
        return
    outcome = "stopped" if isinstance(error, Interrupted) else "failed"
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", text).split()
    last = " ".join(lines).rpartition("loading")[2]
    assert re.search(rf"answer: {outcome} \S+ 41/50 prompts 0:00:00$", last)
    assert "loading:" not in text


def test_slow_steps_have_a_guess_of_the_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    clock = 0.0
    with ProgressView(console, "judge") as view, Board(console, 1) as board:
        view._bars.get_time = board.bars.get_time = lambda: clock
        with board.view("judge: one [k]") as line:
            for done in (0, 8, 16, 24):
                event = progress_event("judge", done, 80, "question")
                view.show(event)
                line.show(event)
                clock += 60
            for task in (view._bars.tasks[-1], board.bars.tasks[-1]):
                assert task.time_remaining == 7 * 60


def test_the_last_figures_are_told_once() -> None:
    console = Console(file=io.StringIO(), width=120)
    with ProgressView(console, "gen") as view:
        for at in (1, 2, 2, 2):
            view.show({"event": "progress", "task": "save", "done": at, "total": 2, "unit": "MiB"})
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("2 of 2 MiB") == 1
