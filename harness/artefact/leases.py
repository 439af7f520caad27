"""Locks of a volume whose file system has none that reach every machine: leases with a heartbeat.

filelock's generation log is what is kept on the volume. It needs hard links, and no clock that two
machines share: a lease is taken over once its heartbeat stood still for a time that the one who takes
it has measured by itself.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.artefact import environment
from harness.errors import HarnessError

KEEPER = "harness.artefact.lease_keeper"
MESSAGE_BYTES = 65_536
PASSED_ON = ("PATH", "LD_LIBRARY_PATH")


@dataclass
class Leases:
    """This process's, kept by a process beside it that is started with the first of them."""

    seconds: float
    """How long nothing is to be seen of a lease's holder before another takes it."""
    _control: socket.socket | None = None
    _keeper: "subprocess.Popen[bytes] | None" = None
    _number: int = 0
    """Of the last request."""
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _held: set[Path] = field(default_factory=set)

    def take(self, path: Path) -> int | None:
        """Take the lease at once; None where another has it. The descriptor is to be closed, and
        `given_back` called, when it is no longer needed; while any process has a copy of it open, the
        lease is held.

        Raises:
            HarnessError: the volume cannot keep leases.
        """
        reading, writing = os.pipe()
        try:
            reply = self._ask("take", path, reading)
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        if reply["held"]:
            self._held.add(path)
            return writing
        os.close(writing)
        if "fault" in reply:
            raise HarnessError(
                f"the lease {path} cannot be taken: {reply['fault']}",
                "Leases need a file system with hard links, and one user for all that work on the "
                "volume. Put the volume (--volume) on another.",
            )
        return None

    def given_back(self, path: Path) -> None:
        """This process's copy of the lease's descriptor is closed."""
        self._held.discard(path)
        with contextlib.suppress(HarnessError):
            self._ask("give back", path)

    def check(self, path: Path) -> None:
        """Raises HarnessError where this process took the lease and another may have taken it since."""
        if path in self._held and not self._ask("say", path)["held"]:
            raise HarnessError(
                f"the lease {path.name} was lost: this machine did not reach the volume for "
                f"{self.seconds:.0f} s, and another may work on the same artefact now",
                "Run the same command again: it waits for the other, or goes on from what is there.",
            )

    def _ask(self, what: str, path: Path, pipe: int | None = None) -> dict[str, Any]:
        with self._turn:
            self._number += 1
            request = {"number": self._number, "what": what, "path": str(path)}
            control = self._control = self._control or self._start()
            try:
                pipes = [] if pipe is None else [pipe]
                socket.send_fds(control, [json.dumps(request).encode()], pipes)
                reply = self._reply_to(self._number, control)
            except OSError:
                reply = None
            if reply is None:
                self._control = None
                raise HarnessError(
                    f"the process that keeps this run's leases has ended (asked for {path.name})",
                    "Run the same command again.",
                )
        return reply

    @staticmethod
    def _reply_to(number: int, control: socket.socket) -> dict[str, Any] | None:
        """Past the replies to requests that were interrupted before; None where the keeper has ended."""
        while message := control.recv(MESSAGE_BYTES):
            reply = dict(json.loads(message))
            if reply["number"] == number:
                return reply
        return None

    def _start(self) -> socket.socket:
        ours, keepers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with keepers:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", KEEPER, str(keepers.fileno()), str(self.seconds)],
                pass_fds=(keepers.fileno(),),
                # No key of the harness's is its business.
                env={
                    "PYTHONPATH": str(environment.root()),
                    **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        return ours


def is_left_behind(path: Path, seconds: float) -> bool:
    """Whether no heartbeat was written for so long, all by the clock of the volume's server."""
    holders = path.with_name(f"{path.name}.rw") / "holders"
    probe = path.with_name(f".now-{socket.gethostname()}-{os.getpid()}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        beats = [_fresh_mtime(p) for p in holders.iterdir()]
    except FileNotFoundError:
        return True
    return all(now - beat >= seconds for beat in beats)


def keeper_of(path: Path) -> int | None:
    """The number of the process that wrote the lease's heartbeats, on the machine that took it; None
    where nobody has it."""
    folder = path.with_name(f"{path.name}.rw")
    try:
        newest = max(p for p in (folder / "gen").iterdir() if p.name.isdigit())
        token = _value(newest, "writer")
        return int(_value(folder / "holders" / token, "pid"))
    except (OSError, ValueError):
        return None


def _value(record: Path, name: str) -> str:
    """Of a NAME=VALUE line in one of filelock's records. Raises ValueError where it has none."""
    for line in record.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}="):
            return line.partition("=")[2]
    raise ValueError(name)


def _fresh_mtime(path: Path) -> float:
    """An open file's attributes are the server's; those of a name may be this machine's old copy."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime
