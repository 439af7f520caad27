"""Long lines at the terminal and in a pipe."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from harness import cli
from harness.cli.views.terminal import show_checks, show_matrix
from harness.cli.workspace import make_console
from harness.common.hanging import hanging, print_hanging
from harness.common.progress import ProgressView, say
from harness.run.doctor_check import Check
from tests.helpers import write_row
from tests.results.matrix_rows import lines

LONG = " ".join(["[bold]word"] * 30)
WHOLE = "/a/path/" + "x" * 90


def test_at_a_terminal_a_long_line_hangs_and_words_stay_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(text: str) -> list[str]:
        print_hanging(make_console(), text)
        return capsys.readouterr().out.splitlines()

    monkeypatch.setenv("COLUMNS", "80")
    first, *rest = printed(f"- {LONG} {WHOLE}")
    assert not first.startswith(" ")
    assert all(line.startswith("    ") for line in rest)
    assert rest.pop() == f"    {WHOLE}"
    assert max(map(len, [first, *rest])) <= 80
    monkeypatch.delenv("COLUMNS")
    assert printed(f"- {LONG}\nbelow") == [f"- {LONG}", "    below"]


def test_the_doctors_lines_hang_below_what_they_say() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    show_checks(console, [Check(False, "Slurm", "words " * 30, "more words " * 20)])
    first, *rest = out.getvalue().splitlines()
    assert first.startswith("no  Slurm   ")
    start = next(n for n, line in enumerate(rest) if line.startswith("    without it: "))
    assert start
    assert all(line.startswith(" " * 29 + "words") for line in rest[:start])
    assert all(line.startswith(" " * 16) for line in rest[start + 1 :])
    assert max(map(len, [first, *rest])) <= 80


def test_what_a_stage_says_and_the_matrix_hang_and_no_line_ends_in_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = write_row(tmp_path, title="one", varied={"data": "many words " * 20})
    for width in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        say(make_console(), f"look 1: {LONG}\n  note: {LONG}", "yellow")
        with ProgressView(make_console(), f"judge: {'a row ' * 30}") as view:
            view.say(LONG)
        show_matrix(make_console(), lines(tmp_path / "runs", specs))
        printed = capsys.readouterr().out.splitlines()
        assert max(map(len, printed)) <= width
        assert [line for line in printed if line != line.rstrip()] == []
        begins = [line.split()[0] for line in printed if not line.startswith("    ")]
        assert begins[:5] == ["look", "note:", "judge:", "[bold]word", "one"]
        varied = next(n for n, line in enumerate(printed) if line.startswith("  varied"))
        assert printed[varied + 1].startswith(f"{'':16}")
    monkeypatch.delenv("COLUMNS")
    say(make_console(), f"look 1: {LONG}\n  note: {LONG}")
    assert capsys.readouterr().out == f"look 1: {LONG}\n  note: {LONG}\n"


def test_an_error_is_broken_between_words_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stream)
        cli._complain(f"2 files cannot be had\n{'some words ' * 20}", f"Get them: {LONG}")
        lines = [line.rstrip() for line in stream.getvalue().splitlines()]
        assert lines[0].endswith("2 files cannot be had")
        hint = next(n for n, line in enumerate(lines) if line.startswith("Get them: "))
        for part in (lines[1:hint], lines[hint:]):
            assert (max(map(len, part)) <= 80) == stream.isatty()
            assert all(line.startswith("    ") for line in part[1:])


def test_what_stands_behind_a_line_break_hangs_too() -> None:
    console = Console(file=io.StringIO(), width=40)
    text = (
        "  no fetch brings this: start a server, or another,\nor first make it: harness run\n\nEnd."
    )
    assert hanging(console, Text(text), 4).plain.splitlines() == [
        "  no fetch brings this: start a server,",
        "    or another,",
        "    or first make it: harness run",
        "",
        "    End.",
    ]
