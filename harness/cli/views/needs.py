"""What rows need, at the terminal."""

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from harness.common.progress import plain
from harness.run.needs import NeededItem, RowNeeds

MOST_NAMED = 4
"""Of what a command brings."""
COLOURS = {"there": "green", "missing": "yellow", "not known": "dim"}


def show_needs(console: Console, needs: RowNeeds) -> None:
    """A line a thing, what is missing in yellow, and the command that brings it."""
    if not needs.items:
        return
    console.print("[bold]needs[/]", highlight=False)
    for item in needs.items:
        words = escape(plain(_words(item)))
        console.print(
            f"  {item.kind:<8} [{COLOURS[item.state]}]{item.state:<9}[/] {words}",
            highlight=False,
            soft_wrap=True,
        )
    if needs.command:
        fetched = [item.name for item in needs.missing if item.is_fetched]
        is_all = len(fetched) == len(needs.missing)
        listed = ", ".join(fetched) if len(fetched) <= MOST_NAMED else f"{len(fetched)} of these"
        what = "what is missing of these is" if is_all else f"{listed}:"
        _line(console, f"{what} brought by: {needs.command}")
    for advice in dict.fromkeys(item.advice for item in needs.missing if not item.is_fetched):
        _line(console, f"no fetch brings this: {advice}")


def _line(console: Console, text: str) -> None:
    console.print(escape(plain(f"  {text}")), highlight=False, soft_wrap=True)


def _words(item: NeededItem) -> str:
    size = decimal(item.bytes) if item.bytes is not None else ""
    return "  ".join(filter(None, [item.name, size, item.address, item.note]))
