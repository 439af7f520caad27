"""Logs of stages and of their jobs, to which each attempt appends."""

from pathlib import Path

BEGINNING = "--- "
"""With this an attempt begins in a log."""
LOG_TAIL = 12
"""Lines of a failed stage's log that are shown."""


def tail(log: Path, count: int = LOG_TAIL) -> list[str]:
    """The last lines of a log's last attempt; none where there is no log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    begins = [i for i, line in enumerate(lines) if line.startswith(BEGINNING)]
    own = lines[begins[-1] + 1 :] if begins else lines
    return [line for line in own if line.strip()][-count:]
