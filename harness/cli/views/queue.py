"""Submitted stages at the terminal. All text is escaped: logs may hold a model's words."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.common.hanging import in_columns
from harness.common.progress import plain, say
from harness.run.slurm.status import StageStatus

WIDE = 120
"""Columns of a terminal from which on a stage is one line of a table."""
STYLES = {"done": "green", "running": "cyan", "failed": "red", "cancelled": "yellow"}


def show_queue(console: Console, statuses: Sequence[StageStatus]) -> None:
    """A line a stage, on a narrow terminal several; below them what failed with its log's last lines,
    and a sum."""
    is_wide = console.width >= WIDE
    headings = ("stage", "state", "job", "node", "since", "why") if is_wide else ("state", "stage")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in ("stage", "why"))
    lines = [headings]
    for status in statuses:
        state = Text(status.state, STYLES.get(status.state, ""))
        why = "see below" if status.state == "failed" else plain(status.why)
        title, since = plain(status.stage.title), _ago(status.since)
        if is_wide:
            table.add_row(Text(title), state, status.job, status.node, since, Text(why))
            why = " ".join(why.split())
            lines.append((title, status.state, status.job, status.node, since, why))
        else:
            job = f"job {status.job}" if status.job else ""
            on = f"on {status.node}" if status.node else ""
            where = ", ".join(filter(None, [job, on, since]))
            table.add_row(state, Text("\n".join(filter(None, [title, where, why]))))
    if console.soft_wrap and is_wide:
        say(console, "\n".join(in_columns(lines)))
    else:
        console.print(table)
    for status in statuses:
        if status.state == "failed":
            _failure(console, status)
    for status in statuses:
        if status.warning:
            say(console, f"warning: {status.warning} ({status.stage.title})", "yellow")
    counts = Counter(status.state for status in statuses)
    say(console, ", ".join(f"{count} {state}" for state, count in counts.items()))


def as_json(statuses: Sequence[StageStatus]) -> str:
    """All that is known of each stage."""
    return json.dumps([_facts(status) for status in statuses], indent=2)


def _facts(status: StageStatus) -> dict[str, object]:
    stage, since = status.stage, status.since
    return {
        "stage": stage.stage,
        "row": stage.row,
        "label": stage.label,
        "key": stage.key,
        "state": status.state,
        "job": status.job,
        "node": status.node,
        "since": datetime.fromtimestamp(since, UTC).isoformat("T", "seconds") if since else None,
        "why": status.why,
        "log": str(status.log) if status.log is not None else None,
        "tail": list(status.tail),
        "warning": status.warning,
    }


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
