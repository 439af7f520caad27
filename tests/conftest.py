"""What tests of several parts share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder of real inputs, ../shared/data, is not beside the checkout")
    return SHARED / "data"
