"""The progress of several stages at a time, on a terminal of 80 columns and without one."""

import io
import re

import pytest
from rich.console import Console

from harness.common.board import Board

LONG = "judge: study-line-02-338-default-prompt (train seed 2, judging 1) [0123456789ab]"
EVENT = {"event": "progress", "task": "steps", "done": 3, "total": 40, "unit": "step"}


def shown(terminal: bool, width: int = 80) -> str:
    console = Console(
        file=io.StringIO(), force_terminal=terminal, width=width, height=20, color_system=None
    )
    with Board(console, 7) as board:
        long, short = board.view(LONG), board.view("train: two [ba9876543210]")
        with long, short:
            long.show({**EVENT, "info": {"loss": 0.5}})  # type: ignore[typeddict-item]
            short.show({**EVENT, "task": "loading", "total": None})  # type: ignore[typeddict-item]
            board.count("done")
            board.count("done")
            short.show({"event": "note", "message": "a \x1b[2Jnote [bold]"})
            board.bars.refresh()
        long.say("done in 2.0 s")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_each_stage_has_one_line_that_fits_the_terminal(width: int) -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", shown(True, width))
    lines = [line.rstrip() for line in re.split(r"[\r\n]", text) if line.strip()]
    bars = [line for line in lines if "3/40 steps" in line]
    assert bars
    assert all(len(line) <= width for line in bars)
    assert all(re.match(r"  judge: study-line-02", line) for line in bars)
    assert all(re.search(r"3/40 steps +\d:\d\d", line) for line in bars)
    assert any(line.startswith("  train: two ") and "3 steps" in line for line in lines)
    assert any(line.startswith("  all stages ") and "2/7 done" in line for line in lines)
    assert any("loss 0.5" in line for line in lines) == (width == 120)


def test_without_a_terminal_every_line_says_which_stage_it_is_of() -> None:
    lines = shown(False, 200).splitlines()
    assert lines == [
        LONG,
        "train: two [ba9876543210]",
        f"{LONG}: steps: 3 of 40 steps, 0 s (loss 0.5)",
        "train: two [ba9876543210]: loading: 3 steps, 0 s",
        "train: two [ba9876543210]: a \ufffd[2Jnote [bold]",
        f"{LONG}: done in 2.0 s",
    ]


def test_a_new_task_of_a_stage_begins_its_bar_anew_and_its_time_goes_on() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=20)
    with Board(console, 1) as board, board.view("train: one [k]") as view:
        view.show({**EVENT, "done": 40})  # type: ignore[typeddict-item]
        view.show({**EVENT, "task": "saving", "done": 1, "total": 4, "unit": "file"})  # type: ignore[typeddict-item]
        task = board.bars.tasks[-1]
        assert (task.completed, task.total, task.fields["figures"]) == (1, 4, "1/4 files")
        assert task.fields["began"] <= task.start_time
        view.show({**EVENT, "task": "saving", "done": 5, "total": 4, "unit": "file"})  # type: ignore[typeddict-item]
        assert board.bars.tasks[-1].fields["figures"] == "5 files"


def test_the_last_line_says_what_became_of_all_stages() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with Board(console, 4) as board:
        board.count("done")
        board.count("failed")
        for _ in range(2):
            board.count("not run")
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().rpartition("all stages")[2]
    assert "1/4 done, 1 failed, 2 not run" in last
