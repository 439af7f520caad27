"""JSON files that need not be sound."""

from pathlib import Path

import pytest

from harness.common.json_files import read_object


@pytest.mark.parametrize(
    "content",
    [b"[1]", b'"text"', b'{"a": 1', b"\xff\xfe", b'{"a": ' + b"[" * 100_000, b"", None],
    ids=["list", "text", "cut", "no UTF-8", "nested too deeply", "empty", "absent"],
)
def test_what_is_no_object_that_can_be_read_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert read_object(tmp_path / "a.json") is None
    assert read_object(tmp_path) is None


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a byte-order mark"])
def test_an_object_is_read(tmp_path: Path, mark: str) -> None:
    (tmp_path / "a.json").write_text(mark + '{"a": [1]}', encoding="utf-8")
    assert read_object(tmp_path / "a.json") == {"a": [1]}
