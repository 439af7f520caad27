"""Long lines at the terminal, and those with line breaks of their own."""

import io

from harness.cli.views.hanging import hanging
from rich.console import Console
from rich.text import Text


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
