"""Checkpoints that can be trusted: a marker, written last, says that one was finished."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

MARKER = "finished.json"
KEPT = 2
FULL_BELOW = 64 * 2**20
"""Bytes. With less than this left after a failed write, the disk is taken to be full."""


class Finished(NamedTuple):
    folder: Path
    step: int
    log_bytes: int
    """How long the training log was at this step."""


def seal(folder: Path, step: int, log: Path) -> None:
    """Mark the checkpoint as finished, once its files and the log are on the disk; drop older ones."""
    for path in [log, *(p for p in folder.rglob("*") if p.is_file())]:
        _to_disk(path)
    unfinished = folder / f"{MARKER}.tmp"
    unfinished.write_text(json.dumps({"step": step, "log_bytes": log.stat().st_size}))
    _to_disk(unfinished)
    unfinished.rename(folder / MARKER)
    _to_disk(folder)
    _to_disk(folder.parent)
    for old in _all_finished(folder.parent)[:-KEPT]:
        shutil.rmtree(old.folder)


def last_finished(parent: Path) -> Finished | None:
    """The newest finished checkpoint below `parent`; the unfinished ones are removed."""
    finished = _all_finished(parent)
    for folder in parent.glob("checkpoint-*"):
        if folder not in {f.folder for f in finished}:
            shutil.rmtree(folder)
    return finished[-1] if finished else None


@contextmanager
def honest_disk_faults(folder: Path) -> Iterator[None]:
    """Raise OSError, with its errno, where a library hides a failed write in an error of its own."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError) as e:
        # What safetensors and torch.save say of a full disk.
        if "(os error " in str(e):
            code = int(str(e).rsplit("(os error ", 1)[1].split(")")[0])
        elif "inline_container.cc" in str(e):
            full = shutil.disk_usage(folder).free < FULL_BELOW
            code = errno.ENOSPC if full else errno.EIO
        else:
            raise
        raise OSError(code, os.strerror(code), str(folder)) from e


def _all_finished(parent: Path) -> list[Finished]:
    """Oldest first."""
    found = []
    for marker in parent.glob(f"checkpoint-*/{MARKER}"):
        said = json.loads(marker.read_text())
        found.append(Finished(marker.parent, said["step"], said["log_bytes"]))
    return sorted(found, key=lambda f: f.step)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
