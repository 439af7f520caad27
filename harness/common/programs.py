"""Other programs, called for what they say."""

import subprocess
from collections.abc import Sequence
from typing import Any


def answer_of(command: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Its exit code, and what it wrote, as text. `options`: of subprocess.run.

    Raises:
        OSError: it cannot be run.
        TimeoutExpired: it took longer than `timeout`.
    """
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, **options
    )
