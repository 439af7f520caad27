"""Long lines at the terminal and in a pipe."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from harness import cli
from harness.cli.views.terminal import show_checks
from harness.cli.workspace import make_console
from harness.common.hanging import hanging, print_hanging
from harness.run.doctor_check import Check

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


def test_an_error_is_broken_between_words_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stream)
        cli._complain(f"2 files cannot be had\n{'some words ' * 20}", "")
        lines = [line.rstrip() for line in stream.getvalue().splitlines()]
        assert lines[0].endswith("2 files cannot be had")
        assert (max(map(len, lines[1:])) <= 80) == stream.isatty()


def test_what_stands_behind_a_line_break_hangs_too() -> None:
    console = Console(file=io.StringIO(), width=40)
    text = (
        "  no fetch brings this: start a server, or another,\nor first make it: harness run\n\nEnd."
    )
    assert hanging(console, Text(text), 4).plain.splitlines() == [
        "  no fetch brings this: start a server,",
        "    or another,",
        "    or first make it: harness run",
        "    ",
        "    End.",
    ]
