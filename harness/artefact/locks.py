"""The locks of a volume: one kind for all who work on it, found out once and noted there."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness.artefact.file_system import FileSystem, LockKind, file_system_of
from harness.errors import HarnessError, InputError

if TYPE_CHECKING:
    from harness.artefact.leases import Leases

VARIABLE = "HARNESS_LOCKS"
ASKED = f"{VARIABLE} says so"
NOTE = ".kind.json"
LEASE_SECONDS = 120.0
"""Longer than a file server's restart, and than NFS keeps a folder's attributes (60 s, nfs(5))."""
NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
WATCHED = 1 / 4
"""Of a lease's seconds, how often is asked whether it was lost while a stage works under it."""
FLOCK_POLL_S, LEASE_POLL_S = 0.2, 1.0
"""A try for a lease is some ten requests to the file server."""


@dataclass(frozen=True)
class Kind:
    """Which locks the volume has, as it stands noted there."""

    kind: LockKind
    why: str
    is_shared: bool
    """Whether the machine that noted it saw a network's file system there."""
    host: str
    seconds: float = LEASE_SECONDS
    """After which a lease of which nothing is seen is another's to take."""


class Locks:
    """The locks in one folder of a volume.

    An flock ends with its owner and with every process that inherited its descriptor, at once. Where
    flock does not reach every machine, a lease does the same (harness.artefact.lease_keeper); only that
    one whose whole machine is gone is taken over after `Kind.seconds`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def file_system(self) -> FileSystem:
        return file_system_of(self.folder)

    @cached_property
    def kind(self) -> Kind:
        """As noted on the volume; the first to ask finds it out and notes it.

        Raises:
            InputError: this process would take other locks than those who are there already.
        """
        noted = self.noted()
        if noted is None:
            note(self.folder, self.find_out())
            noted = self.noted()
            assert noted is not None
        self._check(noted)
        return noted

    @property
    def lease_seconds(self) -> float | None:
        """After how long a lease may be taken over; None where the locks are flock."""
        return self.kind.seconds if self.kind.kind == "lease" else None

    def noted(self) -> Kind | None:
        try:
            return Kind(**json.loads((self.folder / NOTE).read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, RecursionError):
            raise InputError(
                f"{self.folder / NOTE} cannot be read, so the volume's kind of lock is not known",
                "Once no run works on the volume, remove it: the next run finds out and notes it anew.",
            ) from None

    def find_out(self) -> Kind:
        """Which kind would be noted here and now."""
        wanted = _wanted()
        kind, why = self.file_system.lock_kind()
        if wanted is not None:
            kind, why = wanted, ASKED
        elif kind == "flock" and (refusal := _refusal(self.folder)):
            kind, why = "lease", f"{self.file_system.type} refuses flock: {refusal}"
        return Kind(kind, why, self.file_system.is_shared, socket.gethostname())

    def _check(self, noted: Kind) -> None:
        wanted = _wanted()
        is_asked = wanted is not None or noted.why == ASKED
        if wanted is not None and wanted != noted.kind:
            reason = f"{VARIABLE} says {wanted} here"
            way = f"Unset {VARIABLE}, or set it to {noted.kind}."
        elif (
            noted.kind == "flock" and not is_asked and noted.is_shared != self.file_system.is_shared
        ):
            reason = f"here it is on {self.file_system}, where flock does not meet that one"
            way = (
                f"Set {VARIABLE}=lease on every machine; or, if all runs are on one machine and see "
                f"one another's locks, {VARIABLE}=flock."
            )
        else:
            return
        raise InputError(
            f"the volume {self.folder.parent} has {noted.kind} for its locks, as {noted.host} noted "
            f"({noted.why}), and {reason}: two runs would not see each other",
            f"{way} To have another kind noted, remove {self.folder / NOTE} while no run works on the "
            "volume.",
        )

    @cached_property
    def _leases(self) -> "Leases":
        from harness.artefact.leases import Leases

        return Leases(self.kind.seconds)

    @contextlib.contextmanager
    def lock(self, name: str, waiting: Callable[[str], None]) -> Iterator[int]:
        """Hold a lock; `waiting` is told once who holds it. Yields the descriptor that holds it also
        where another process inherits it."""
        is_told = False
        while True:
            with self.try_lock(name) as descriptor:
                if descriptor is not None:
                    yield descriptor
                    return
            if not is_told:
                waiting(self._holder(name))
                is_told = True
            time.sleep(FLOCK_POLL_S if self.kind.kind == "flock" else LEASE_POLL_S)

    @contextlib.contextmanager
    def try_lock(self, name: str) -> Iterator[int | None]:
        """The same, or None at once where another process has it."""
        path = self.folder / name
        if self.kind.kind == "flock":
            with path.open("a+", encoding="utf-8") as file:
                is_held = try_flock(file)
                if is_held:
                    _sign(file)
                yield file.fileno() if is_held else None
            return
        descriptor = self._leases.take(path)
        if descriptor is None:
            yield None
            return
        try:
            with path.open("a+", encoding="utf-8") as file:
                _sign(file)
            yield descriptor
        finally:
            os.close(descriptor)
            self._leases.given_back(path)

    def is_locked(self, name: str) -> bool:
        """Whether a process has it: this one too."""
        path = self.folder / name
        if not path.exists():
            return False
        with self.try_lock(name) as descriptor:
            if descriptor is not None:
                return False
        if self.kind.kind == "flock":
            return True
        from harness.artefact.leases import is_left_behind

        return not is_left_behind(path, self.kind.seconds)

    def seen_holder(self, name: str) -> str:
        """Who holds it, without a try for it: `process 7 on host`, `another process`; empty where
        nobody is seen to. Of an flock only this machine's processes are."""
        from harness.artefact.leases import is_left_behind

        path = self.folder / name
        try:
            noted = self.noted()
            if noted is None or not path.exists():
                return ""
            is_held = _has_flock(path)
            if noted.kind == "lease":
                is_held = not is_left_behind(path, noted.seconds)
            return self._holder(name) if is_held else ""
        except (OSError, InputError):
            return ""

    def check(self, name: str) -> None:
        """Raises LeaseLost where a lock that this process holds may be another's by now."""
        if "kind" in self.__dict__ and self.kind.kind == "lease":
            self._leases.check(self.folder / name)

    @contextlib.contextmanager
    def watched(self, name: str, lost: Callable[[HarnessError], None]) -> Iterator[None]:
        """Meanwhile `lost` is called once, from a thread of its own, where `check` would raise."""
        from harness.artefact.leases import LeaseLost

        left = threading.Event()

        def watch() -> None:
            while not left.wait(self.kind.seconds * WATCHED):
                try:
                    self.check(name)
                except LeaseLost as e:
                    lost(e)
                    return
                except (HarnessError, OSError):
                    # Its keeper cannot be asked just now, which says nothing of the lease.
                    continue

        if self.kind.kind == "lease":
            # Not waited for at the end: a keeper may not answer while the file server does not.
            threading.Thread(target=watch, name=f"watches {name}", daemon=True).start()
        try:
            yield
        finally:
            left.set()

    def _is_kept_here(self, name: str) -> bool:
        from harness.artefact.leases import keeper_of

        return _is_alive(str(keeper_of(self.folder / name)))

    def _holder(self, name: str) -> str:
        """Who holds a lock, for what its owner wrote into it: a killed owner's stage may live on."""
        try:
            owner = (self.folder / name).read_text(encoding="utf-8").strip()
        except OSError:
            owner = ""
        words = owner.split()
        is_here = len(words) == 4 and words[3] == socket.gethostname()
        if is_here and not _is_alive(words[1]):
            if self.kind.kind == "lease" and not self._is_kept_here(name):
                return f"a lease that nobody renews, up to {self.kind.seconds:.0f} s"
            return "what a killed run left (see `ps`)"
        return owner or "another process"


def _is_alive(process: str) -> bool:
    """Whether a process of this number is here and has not ended: where nobody asks how, it stays."""
    try:
        return Path("/proc", process, "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _wanted() -> LockKind | None:
    """What HARNESS_LOCKS says. Raises InputError where that is no kind of lock."""
    match os.environ.get(VARIABLE, ""):
        case "":
            return None
        case "flock" | "lease" as kind:
            return kind
        case text:
            raise InputError(f"{VARIABLE} is {text!r}; it can be flock or lease")


def _refusal(folder: Path) -> str:
    """What the file system says where it has no flock at all; else empty."""
    probe = folder / f".probe-{socket.gethostname()}-{os.getpid()}"
    try:
        with probe.open("a+", encoding="utf-8") as file:
            try_flock(file)
    except OSError as e:
        if e.errno in NO_FLOCK:
            return str(e.strerror)
        raise
    finally:
        probe.unlink(missing_ok=True)
    return ""


def try_flock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _has_flock(path: Path) -> bool:
    """Whether a process of this machine has an flock on the file, as the kernel lists them."""
    status = path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    # A line with an arrow is of a process that waits.
    return any(words[1] == "FLOCK" and words[5] == device for words in lines)


def note(folder: Path, kind: Kind) -> None:
    """Note the kind unless another has: of several at once the first one counts."""
    path = folder / NOTE
    part = path.with_name(f"{NOTE}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}")
    part.write_text(json.dumps(asdict(kind), indent=2) + "\n", encoding="utf-8")
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:
        # A file system without hard links: of two alike it does not matter which stays.
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sign(file: IO[str]) -> None:
    """Write into a lock who holds it."""
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
