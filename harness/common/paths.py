"""What is at a path: the files, how large they are, or what is there of the path itself."""

import errno
import shutil
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""The numbers of an OSError that say that there is no space left, for anybody or for this user."""


def nearest_folder(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def files_of(path: Path) -> list[Path]:
    """All files below a folder; a file itself."""
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all below a folder."""
    return sum(p.stat().st_size for p in files_of(path))


def remove(path: Path) -> None:
    """A file, a folder with all that is in it, or a link itself, where one is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
