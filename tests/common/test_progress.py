"""A stage's progress at the terminal, in words."""

import io

import pytest
from rich.console import Console

from harness.common.progress import ProgressView, counted


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
