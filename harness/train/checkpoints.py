"""Checkpoints that can be trusted: a marker, written last, says that one was finished."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness.artefact.network_files import sync
from harness.common.device_faults import more_memory

MARKER = "finished.json"
STOP = "train_stop"
"""Asks several processes to stop, with a checkpoint."""
GOES_ON = "With more memory free the same command goes on from the last checkpoint."
STATES = 3
"""Copies of what is trained: the weights and, usually, two states of the optimizer."""
PROBE_BYTES = 32 * 2**20
KEPT = 2
FULL_BELOW = 64 * 2**20
"""Bytes. With less than this left after a failed write, the disk is taken to be full."""


def way_on(on_cpu: bool, other: str = "") -> str:
    """What to do where memory ran out. `other`: what would help beside more of it, up to an `or`."""
    return f"Take {other}{more_memory(on_cpu)}. {GOES_ON}"


class Finished(NamedTuple):
    folder: Path
    step: int
    log_bytes: int
    """How long the training log was at this step."""


def seal(folder: Path, step: int, log: Path) -> None:
    """Mark the checkpoint as finished, once its files and the log are on the disk; drop older ones."""
    for path in [log, *_files(folder)]:
        sync(path)
    unfinished = folder / f"{MARKER}.tmp"
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in _files(folder)}
    record = {"step": step, "log_bytes": log.stat().st_size, "files": sizes}
    unfinished.write_text(json.dumps(record))
    sync(unfinished)
    unfinished.rename(folder / MARKER)
    sync(folder)
    sync(folder.parent)
    for old in _all_finished(folder.parent)[:-KEPT]:
        shutil.rmtree(old.folder)


def resume(parent: Path, log: Path) -> Finished | None:
    """The newest finished checkpoint below `parent`, as the log now stands too: what is unfinished
    goes, and what the log says of steps that will be run again."""
    log_bytes = log.stat().st_size if log.exists() else 0
    finished = [f for f in _all_finished(parent) if f.log_bytes <= log_bytes]
    for folder in parent.glob("checkpoint-*"):
        if folder not in {f.folder for f in finished}:
            shutil.rmtree(folder)
    last = finished[-1] if finished else None
    if log.exists():
        with log.open("r+b") as file:
            file.truncate(last.log_bytes if last else 0)
    return last


def newest(parent: Path) -> Finished | None:
    """The newest finished checkpoint below `parent`."""
    finished = _all_finished(parent)
    return finished[-1] if finished else None


def expected_seconds(model: Any, folder: Path) -> float:
    """What a checkpoint of this model will take on the disk of `folder`, by a trial."""
    trained = [p for p in model.parameters() if p.requires_grad]
    size = STATES * sum(p.numel() * p.element_size() for p in trained)
    if size < PROBE_BYTES:
        return 0.0
    probe = folder / ".disk-probe"
    started = time.monotonic()
    try:
        probe.write_bytes(os.urandom(2**20) * (PROBE_BYTES // 2**20))
        sync(probe)
    finally:
        probe.unlink(missing_ok=True)
    return float(size / PROBE_BYTES * (time.monotonic() - started))


def keep(kept: Path, step: int, write: Callable[[Path], None]) -> None:
    """Have `write` write the weights of a step into a folder of its own below `kept`, which a stop
    leaves whole or not at all. A resumed training writes those of its steps again."""
    part, final = kept / f"{step}.part", kept / str(step)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    for path in _files(part):
        sync(path)
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    sync(kept)


def drop_from(parent: Path, step: int) -> None:
    """Remove the checkpoints of this step and of later ones."""
    for finished in _all_finished(parent):
        if finished.step >= step:
            shutil.rmtree(finished.folder)


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
    """Those whose files are all there and as long as they were. Oldest first."""
    finished = []
    for marker in parent.glob(f"checkpoint-*/{MARKER}"):
        try:
            record = json.loads(marker.read_text())
            is_complete = all(
                (marker.parent / name).stat().st_size == size
                for name, size in record["files"].items()
            )
        except (OSError, ValueError, KeyError):
            continue
        if is_complete:
            finished.append(Finished(marker.parent, record["step"], record["log_bytes"]))
    return sorted(finished, key=lambda f: f.step)


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(MARKER)]
