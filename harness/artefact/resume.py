"""What an interrupted run wrote down line by line."""

from pathlib import Path


def whole_lines(path: Path) -> list[str]:
    """The lines of an ASCII file, none where there is no file. A last line that the interruption tore
    is cut off, in the file too, so that the run can go on behind it."""
    if not path.exists():
        return []
    text = path.read_text(encoding="ascii")
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        path.write_text(complete, encoding="ascii")
    return complete.splitlines()
