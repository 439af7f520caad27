"""Progress of many calls, told at a rate that a terminal can follow."""

import time
from typing import Any

from harness.artefact import events

SHORTEST_PAUSE_S = 0.2


class Progress:
    """`done` of `total` `unit`s of a task, told at most five times a second, and at the end."""

    def __init__(self, task: str, total: int, unit: str) -> None:
        self.task, self.total, self.unit = task, total, unit
        self._last_shown = -SHORTEST_PAUSE_S

    def is_due(self, done: int) -> bool:
        """Whether `show` would tell it; for figures that take time to work out."""
        return time.monotonic() - self._last_shown >= SHORTEST_PAUSE_S or done >= self.total

    def show(self, done: int, **info: Any) -> None:
        if self.is_due(done):
            self._last_shown = time.monotonic()
            events.progress(self.task, done, self.total, self.unit, **info)
