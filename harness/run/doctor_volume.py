"""What `harness doctor` finds out of a volume: file system, locks, renames, clock and caches."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from harness.artefact import caches, environment
from harness.artefact.file_system import file_system_of
from harness.artefact.locks import Kind, Locks, note
from harness.common.numbers import byte_size
from harness.common.paths import nearest_folder
from harness.errors import HarnessError
from harness.run.doctor_check import Check

PROBE = """
import sys
from pathlib import Path
from harness.artefact.locks import Locks
with Locks(Path(sys.argv[1])).try_lock("doctor") as lock:
    sys.exit(3 if lock is None else 4)
"""
SHUT_OUT, LET_IN = 3, 4
RENAMES = 200
CLOCK_S = 2.0
"""How far the file server's clock may be from this machine's before it is worth a word."""


def examine(volume: Path) -> Iterator[Check]:
    place = nearest_folder(volume.resolve())
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".harness-doctor-", dir=place))
    except OSError as e:
        yield Check(False, "volume's locks", f"not tried: {e.strerror}", "any run")
        return
    try:
        kind, fault = _kind(volume, scratch)
        yield _locks(scratch, kind, fault)
        yield _renames(scratch)
        yield _clock(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    yield _caches(volume)


def _kind(volume: Path, scratch: Path) -> tuple[Kind, HarnessError | None]:
    """As noted on the volume, or as the next run will note it; and what keeps a run from here."""
    locks = Locks(volume / "locks")
    try:
        if locks.noted() is None:
            return Locks(scratch).find_out(), None
        return locks.kind, None
    except HarnessError as e:
        return Locks(scratch).find_out(), e


def _locks(scratch: Path, kind: Kind, fault: HarnessError | None) -> Check:
    """Have a second process try for a lock that this one holds."""
    what = "volume's locks"
    state = f"on {file_system_of(scratch)}: {kind.kind}, as {kind.why}"
    if fault is not None:
        return Check(False, what, f"{state}; {fault.message}", f"any run here. {fault.hint}")
    note(scratch, kind)
    try:
        with Locks(scratch).try_lock("doctor"):
            code = _second_process(scratch)
        freed = _second_process(scratch)
    except (HarnessError, OSError) as e:
        return Check(False, what, f"{state}; cannot be taken: {e}", "any run")
    if (code, freed) == (SHUT_OUT, LET_IN):
        return Check(True, what, f"{state}; two processes here exclude each other")
    how = "both got it" if code == LET_IN else "the second process did not come to an end in order"
    return Check(
        False,
        what,
        f"{state}; {how}",
        "two runs at a time. Set HARNESS_LOCKS=lease on every machine",
    )


def _second_process(scratch: Path) -> int:
    env = {**os.environ, "PYTHONPATH": str(environment.root())}
    command = [sys.executable, "-c", PROBE, str(scratch)]
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode


def _renames(scratch: Path) -> Check:
    """Whether a file that is replaced is seen whole at any time, and a folder that is there stays."""
    path = scratch / "file"
    path.write_text("0" * 4096)
    faults: set[str] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                text = path.read_text()
                if len(text) != 4096 or len(set(text)) != 1:
                    faults.add("a reader saw a part of a file")
            except OSError as e:
                if e.errno != errno.ESTALE:
                    faults.add(f"a reader met: {e.strerror}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(RENAMES):
            part = scratch / "part"
            part.write_text(str(number % 10) * 4096)
            part.replace(path)
        for name in ("one", "two"):
            (scratch / name / "inside").mkdir(parents=True)
        with contextlib.suppress(OSError):
            (scratch / "one").rename(scratch / "two")
            faults.add("a folder took the place of another that was not empty")
    except OSError as e:
        faults.add(str(e))
    finally:
        ended.set()
        reader.join()
    state = "; ".join(sorted(faults)) or f"atomic ({RENAMES} seen by a reader)"
    return Check(
        not faults, "volume's renames", state, "" if not faults else "safe sealing: any run"
    )


def _clock(scratch: Path) -> Check:
    probe = scratch / "clock"
    before = time.time()
    probe.touch()
    apart = probe.stat().st_mtime - (before + time.time()) / 2
    near = abs(apart) <= CLOCK_S
    word = "ahead of" if apart > 0 else "behind"
    state = "as this machine's" if near else f"{abs(apart):.0f} s {word} this machine's"
    prevents = (
        "" if near else "times in manifests and logs to be compared; locks do not depend on it"
    )
    return Check(near, "volume's clock", state, prevents)


def _caches(volume: Path) -> Check:
    folder = caches.cache_folder(volume)
    place = nearest_folder(folder)
    system = file_system_of(folder)
    named = "HARNESS_CACHE" if os.environ.get(caches.VARIABLE) else "HARNESS_CACHE is not set"
    state = f"{folder} on {system}, {byte_size(shutil.disk_usage(place).free)} free ({named})"
    if not os.access(place, os.W_OK):
        return Check(False, "caches", f"{state}, not writable", "any run; name another folder")
    prevents = "quick starts: other machines share it. Name a folder on a local disk"
    return Check(not system.is_shared, "caches", state, prevents if system.is_shared else "")
