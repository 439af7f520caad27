"""What tests of the matrix and the tables share: a volume, and rows with all four stages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import evaluation, write_row


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def row(tmp_path: Path) -> Callable[..., Path]:
    """Writes a row with all four stages whose teacher and judge are (so the spec says) real."""
    folder = tmp_path / "specs"

    def write(name: str = "one", **changes: Any) -> Path:
        judge = {"model": "judge"}
        return write_row(folder, name, **{"eval": evaluation(folder, judge=judge), **changes})

    return write
