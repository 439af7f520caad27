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
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.artefact import environment
from harness.errors import HarnessError

KEEPER = "harness.artefact.lease_keeper"
MESSAGE_BYTES = 65_536
PASSED_ON = ("PATH", "LD_LIBRARY_PATH")


class LeaseLost(HarnessError):
    """Another may have taken a lease that this process took."""


@dataclass(frozen=True)
class Hold:
    """What a new keeper needs to go on with a lease."""

    pipe: int
    """The reading end."""
    generation: int
    """Of the lease's log: while it is the newest, nobody else took the lease."""


@dataclass
class Leases:
    """This process's, kept by a process beside it that is started with the first of them; where that
    one ends, another goes on with what nobody took meanwhile."""

    seconds: float
    """How long nothing is to be seen of a lease's holder before another takes it."""
    _control: socket.socket | None = None
    _keeper: "subprocess.Popen[bytes] | None" = None
    _number: int = 0
    """Of the last request."""
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _held: dict[Path, Hold] = field(default_factory=dict)
    _lost: dict[Path, str] = field(default_factory=dict)
    """Of those held: what a new keeper could not go on with, and why."""

    def take(self, path: Path) -> int | None:
        """Take the lease at once; None where another has it. The descriptor is to be closed, and
        `given_back` called, when it is no longer needed; while any process has a copy of it open, the
        lease is held.

        Raises:
            HarnessError: the volume cannot keep leases.
        """
        reading, writing = os.pipe()
        is_held = False
        try:
            with self._turn:
                reply = self._ask("take", path, reading)
                if reply["held"]:
                    is_held = True
                    self._held[path] = Hold(reading, reply["generation"])
        except BaseException:
            os.close(writing)
            raise
        finally:
            if not is_held:
                os.close(reading)
        if is_held:
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
        with self._turn:
            try:
                # Where no keeper can be had, the lease's time runs out.
                with contextlib.suppress(HarnessError):
                    self._ask("give back", path)
            finally:
                self._lost.pop(path, None)
                hold = self._held.pop(path, None)
                if hold is not None:
                    os.close(hold.pipe)

    def check(self, path: Path) -> None:
        """Raises LeaseLost where this process took the lease and another may have taken it since."""
        with self._turn:
            if path not in self._held or (
                self._ask("say", path)["held"] and path not in self._lost
            ):
                return
            reason = self._lost.get(path) or (
                f"this machine did not reach the volume for {self.seconds:.0f} s"
            )
        raise LeaseLost(
            f"the lease {path.name} was lost: {reason}, and another may work on the same artefact now",
            "Run the same command again: it waits for the other, or goes on from what is there.",
        )

    def _ask(self, what: str, path: Path, pipe: int | None = None) -> dict[str, Any]:
        """The keeper's reply, or where it has ended a new one's; in this thread's turn."""
        for _ in range(2):
            reply = self._send(self._control or self._begin(), what, path, pipe)
            if reply is not None:
                return reply
            self._end()
        raise HarnessError(
            "the process that keeps this run's leases has ended, and so did another that was started "
            f"in its place (asked for {path.name})",
            "Run the same command again.",
        )

    def _send(
        self,
        control: socket.socket,
        what: str,
        path: Path,
        pipe: int | None,
        after: int | None = None,
    ) -> dict[str, Any] | None:
        self._number += 1
        request = {"number": self._number, "what": what, "path": str(path), "after": after}
        try:
            pipes = [] if pipe is None else [pipe]
            socket.send_fds(control, [json.dumps(request).encode()], pipes)
            return self._reply_to(self._number, control)
        except OSError:
            return None

    @staticmethod
    def _reply_to(number: int, control: socket.socket) -> dict[str, Any] | None:
        """Past replies to requests that were interrupted before; None where the keeper has ended."""
        while message := control.recv(MESSAGE_BYTES):
            reply = dict(json.loads(message))
            if reply["number"] == number:
                return reply
        return None

    def _begin(self) -> socket.socket:
        """Start a keeper, which goes on with what the one before it kept."""
        self._control = control = self._start()
        try:
            for path, hold in self._held.items():
                if path not in self._lost:
                    self._retake(control, path, hold)
        except BaseException:
            self._end()
            raise
        threading.Thread(target=_watch, args=(weakref.ref(self), self._keeper), daemon=True).start()
        return control

    def _retake(self, control: socket.socket, path: Path, hold: Hold) -> None:
        reply = self._send(control, "take", path, hold.pipe, hold.generation)
        if reply is None:
            return
        if reply["held"]:
            self._held[path] = Hold(hold.pipe, reply["generation"])
            return
        reason = "another took it before a new one went on with it"
        if "fault" in reply:
            reason = f"a new one could not go on with it ({reply['fault']})"
        self._lost[path] = f"the process that kept it ended, {reason}"

    def _end(self) -> None:
        """A keeper that is not asked any more must not renew what the next one takes."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait()

    def go_on_without(self, keeper: "subprocess.Popen[bytes]") -> None:
        """This keeper has ended: start another at once where a lease is held."""
        with self._turn:
            if self._keeper is keeper and self._held:
                self._end()
                # What fails here is said by the next request.
                with contextlib.suppress(OSError):
                    self._begin()

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


def _watch(leases: "weakref.ref[Leases]", keeper: "subprocess.Popen[bytes]") -> None:
    """Nothing may be asked of a keeper for hours, and its leases run out in minutes."""
    keeper.wait()
    alive = leases()
    if alive is not None:
        alive.go_on_without(keeper)


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
