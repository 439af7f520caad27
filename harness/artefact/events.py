"""What a stage tells its executor while it works: one JSON object a line on standard output.

Events: `progress` (task, done, total, unit, info), `note` (one line for the person) and `error`
(message, hint, exit_code). Everything else a stage or its libraries print belongs on standard error.
"""

import json
import sys
from typing import Any, TextIO

_stream: TextIO = sys.stdout


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
    emit("progress", task=task, done=done, total=total, unit=unit, info=info)


def note(message: str) -> None:
    emit("note", message=message)
