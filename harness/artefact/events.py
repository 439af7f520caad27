"""What a stage tells its executor while it works: one JSON object a line on standard output.

Events: `progress` (task, done, total, unit, info), `note` (one line for the person) and `error`
(message, hint, exit_code). Everything else a stage or its libraries print belongs on standard error.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO

SHORTEST_PAUSE_S = 0.2
_stream: TextIO = sys.stdout
_untold: Callable[[], None] | None = None
"""Tells the last progress, where it was left out."""


def claim_stdout() -> None:
    """Keep the real standard output for events and send every other print to standard error."""
    global _stream
    _stream = sys.stdout
    sys.stdout = sys.stderr


def emit(event: str, **fields: Any) -> None:
    _stream.write(json.dumps({"event": event, **fields}) + "\n")
    _stream.flush()


def progress(task: str, done: int, total: int | None, unit: str, **info: Any) -> None:
    """`done` of `total` (None: not known) `unit`s of `task`; `info` holds figures to show beside it."""
    global _untold
    _untold = None
    emit("progress", task=task, done=done, total=total, unit=unit, info=info)


def error(message: str, hint: str, exit_code: int) -> None:
    """The stage ends with a fault: how far it was, and what it is."""
    if _untold is not None:
        _untold()
    emit("error", message=message, hint=hint, exit_code=exit_code)


def note(message: str) -> None:
    emit("note", message=message)


class Progress:
    """`done` of `total` `unit`s of a task, told at most five times a second, and at the end, also where
    that is a fault."""

    def __init__(self, task: str, total: int, unit: str) -> None:
        self.task, self.total, self.unit = task, total, unit
        self._last_shown = -SHORTEST_PAUSE_S

    def is_due(self, done: int) -> bool:
        """Whether `show` would tell it; for figures that take time to work out."""
        return time.monotonic() - self._last_shown >= SHORTEST_PAUSE_S or done >= self.total

    def show(self, done: int, **info: Any) -> None:
        global _untold
        figures = (self.task, done, self.total, self.unit)
        if self.is_due(done):
            self._last_shown = time.monotonic()
            progress(*figures, **info)
        else:
            _untold = partial(progress, *figures, **info)
