"""What rows need, at the terminal."""

from urllib.parse import urlsplit

from rich.console import Console
from rich.text import Text

from harness.common.hanging import hanging
from harness.common.numbers import byte_size
from harness.common.progress import plain
from harness.run.needs import FETCHED, NeededItem, RowNeeds

MOST_NAMED = 4
"""Of what a command brings."""
COLOURS = {"there": "green", "missing": "yellow", "not known": "dim", "expected": "green"}


COLUMN = 21
"""Where what is needed is named, after its kind and state."""


def show_needs(console: Console, needs: RowNeeds) -> None:
    """Each thing, what is missing in yellow, and the command that brings it; no line is wider than the
    console, but for a word of a command."""
    if not needs.items:
        return
    console.print("[bold]needs[/]", highlight=False)
    for item in needs.items:
        line = Text(f"  {item.kind:<8} ")
        line.append(f"{item.state:<9}", COLOURS[item.state]).append(f" {plain(_words(item))}")
        console.print(hanging(console, line, COLUMN), soft_wrap=True)
    if needs.command:
        fetched = [item.name for item in needs.missing if item.is_fetched]
        is_all = len(fetched) == len(needs.missing)
        listed = ", ".join(fetched) if len(fetched) <= MOST_NAMED else f"{len(fetched)} of these"
        what = "what is missing of these is" if is_all else f"{listed}:"
        _line(console, f"{what} brought by: {needs.command}")
    for advice in dict.fromkeys(item.advice for item in needs.missing if not item.is_fetched):
        _line(console, f"no fetch brings this: {advice}")


def _line(console: Console, text: str) -> None:
    line = Text(f"  {plain(text)}")
    console.print(hanging(console, line, 4, cut_words=False), soft_wrap=True)


def _words(item: NeededItem) -> str:
    size = byte_size(item.bytes) if item.bytes is not None else ""
    is_found = item.kind in FETCHED and item.state == "there"
    address = "" if is_found else repository(item.address)
    return "  ".join(filter(None, [item.name, size, address, item.note]))


def repository(address: str) -> str:
    """An address as far as its repository: host, owner and name."""
    parts = urlsplit(address)
    folders = [folder for folder in parts.path.split("/")[:-1] if folder]
    if not parts.netloc:
        return address
    return "/".join([parts.netloc, *folders[: 3 if folders[:1] == ["datasets"] else 2]])
