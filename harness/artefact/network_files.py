"""File operations by the rules of NFS, which hold on a local disk as well.

A handle can go stale between two requests; an answer can be lost and the request, repeated, then fails
although the first was carried out; what another machine wrote is seen for certain once the file, or the
folder, is opened anew; a file that is removed while it is open lives on under a name of the client's.
Sources: RFC 1813 and 8881; nfs(5), "data and metadata coherence".
"""

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PAUSES_S = (0.05, 0.2, 0.8, 2.0)
"""Before each further try of what met a stale handle."""
VISIBLE_WITHIN_S = 5.0
"""How long another machine's finished file may be out of sight in a folder that is in sight."""
REMOVED_WHILE_OPEN = re.compile(r"\.nfs[0-9a-f]{8,}")
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)
"""What file systems say that cannot sync a folder: they keep its names in order by themselves."""


def steadily(action: Callable[[], T]) -> T:
    """What `action` gives, tried anew where a file's handle went stale; it must bear repeating."""
    for pause in PAUSES_S:
        try:
            return action()
        except OSError as e:
            if e.errno != errno.ESTALE:
                raise
        time.sleep(pause)
    return action()


def look_again(folder: Path) -> None:
    """Have the names in a folder be the server's, and not those that this machine remembers."""
    with contextlib.suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))


def is_removed_while_open(path: Path) -> bool:
    """Whether the file goes by itself, once the last process has closed it."""
    return REMOVED_WHILE_OPEN.fullmatch(path.name) is not None


def files_below(folder: Path) -> list[Path]:
    """All files, but those that were removed while they were open."""
    paths = steadily(lambda: [p for p in folder.rglob("*") if not p.is_dir()])
    return sorted(p for p in paths if not is_removed_while_open(p))


def sync(path: Path) -> None:
    """Have a file's or a folder's present content reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in NO_FOLDER_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path, is_done: Callable[[], bool]) -> None:
    """Rename; where an error comes back, `is_done` says whether it was done all the same."""
    try:
        steadily(lambda: source.rename(target))
    except OSError:
        look_again(target.parent)
        if not is_done():
            raise


def remove(entry: Path, aside: Path) -> None:
    """Remove a file or folder; a folder with files that a process still has open goes to `aside`."""
    if is_removed_while_open(entry):
        return
    try:
        if entry.is_dir() and not entry.is_symlink():
            steadily(lambda: shutil.rmtree(entry))
        else:
            steadily(entry.unlink)
    except FileNotFoundError:
        if entry.exists():
            raise
    except OSError as e:
        if e.errno not in (errno.EBUSY, errno.ENOTEMPTY) or not entry.is_dir():
            raise
        entry.rename(aside)
