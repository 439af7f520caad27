"""Texts from files that people give: UTF-8, with or without a byte-order mark, which is no text."""

from pathlib import Path

ENCODING = "utf-8-sig"
"""For what is read; a file that the harness writes has no such mark."""


def read_text(path: Path) -> str:
    """Raises OSError, or UnicodeDecodeError for what is no UTF-8."""
    return path.read_text(encoding=ENCODING)


def read_lines(path: Path) -> list[str]:
    """The lines that hold something. A line ends at a newline alone: other ends of lines that Unicode
    knows, such as U+2028 and U+0085, may stand within a text in JSON."""
    return [line for line in read_text(path).split("\n") if line.strip()]
