"""JSON files that need not be there, or be sound: what they would say is then not known."""

import json
from pathlib import Path
from typing import Any

from harness.common.text_files import read_text


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where the file cannot be read, is no JSON, is nested too deeply
    for Python, or holds something else."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
