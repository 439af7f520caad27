"""Submitted stages at the terminal. All text is escaped: logs may hold a model's words."""

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.common.progress import plain, say
from harness.run.slurm.status import StageStatus

STYLES = {"done": "green", "running": "cyan", "failed": "red", "cancelled": "yellow"}
HEADINGS = ("stage", "state", "job", "node", "since", "why")


def show_queue(console: Console, statuses: Sequence[StageStatus]) -> None:
    """A line a stage; below them what failed with its log's last lines, and a sum."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(
            heading, overflow="fold", no_wrap=heading in ("state", "job", "node", "since")
        )
    for status in statuses:
        state = Text(status.state, STYLES.get(status.state, ""))
        why = "see below" if status.state == "failed" else plain(status.why)
        title, since = Text(plain(status.stage.title)), _ago(status.since)
        table.add_row(title, state, status.job, status.node, since, Text(why))
    console.print(table)
    for status in statuses:
        if status.state == "failed":
            _failure(console, status)
    for status in statuses:
        if status.warning:
            say(console, f"warning: {status.warning} ({status.stage.title})", "yellow")
    counts = Counter(status.state for status in statuses)
    say(console, ", ".join(f"{count} {state}" for state, count in counts.items()))


def _failure(console: Console, status: StageStatus) -> None:
    where = f" on {status.node}" if status.node else ""
    say(console, f"{status.stage.title} failed{where}: {plain(status.why)}", "red")
    for line in status.tail:
        say(console, f"  | {plain(line)}")
    if status.log is not None:
        say(console, f"  The whole log: {status.log}")


def _ago(moment: float | None) -> str:
    if moment is None:
        return ""
    seconds = max(time.time() - moment, 0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
