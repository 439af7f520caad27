"""The process that keeps a harness's leases, called with a socket's descriptor and a number of seconds.

It lives apart from the harness so that a lease does not end with it: with each lease it is given the
reading end of a pipe, and keeps that lease until every process that holds the other end is gone, the
harness and the stages that inherited it, however they ended. That is what the kernel does for an flock.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

from filelock import SoftFileLockProtocolError, SoftReadWriteLock, Timeout
from filelock._soft_rw._protocol import Participant, Snapshot

MESSAGE_BYTES = 65_536
BEATS = 6
"""Heartbeats in the time after which a lease counts as left behind."""


def lease(path: str, seconds: float) -> SoftReadWriteLock:
    """A lease that others may take once they saw nothing of its holder for so many seconds, by their
    own clock."""
    return SoftReadWriteLock(
        path,
        0,
        is_singleton=False,
        heartbeat_interval=seconds / BEATS,
        stale_threshold=seconds,
    )


class Heir(Participant):
    """Takes the place of a keeper that has ended, in one step and only where nobody else did: at the
    generation at which that one took the lease."""

    def __init__(self, *arguments: Any, after: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._after = after

    def _is_stale(self, token: str) -> bool:
        return True

    def _commit(
        self, latest: Snapshot, writer: str | None, readers: frozenset[str], stale: frozenset[str]
    ) -> int | None:
        if latest.generation != self._after and self.token not in latest.members:
            return None
        return super()._commit(latest, writer, readers, stale)


def _inherit(target: SoftReadWriteLock, after: int) -> None:
    """Have the lease's next holder be an heir: filelock has no way for that from outside."""
    new = target._new_participant
    target._new_participant = partial(Heir, *new.args, after=after, **new.keywords)  # type: ignore[assignment, misc]


@dataclass(frozen=True, eq=False)
class Held:
    pipe: int
    path: str


class Keeper:
    """Takes and gives back leases as it is asked, one request at a time."""

    def __init__(self, control: socket.socket, seconds: float) -> None:
        self._control = control
        self._seconds = seconds
        self._leases: dict[str, SoftReadWriteLock] = {}
        """Also those that others hold: how long nothing was seen of them is remembered in these."""
        self._held: dict[str, Held] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._has_harness = True

    def serve(self) -> None:
        """Until the harness is gone, and everything that inherited a lease."""
        while self._has_harness or self._held:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    self._answer()
                elif key.data in self._held.values():
                    self._release(key.data)

    def _answer(self) -> None:
        try:
            message, pipes, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 1)
        except ConnectionError:
            message, pipes = b"", []
        if not message:
            self._has_harness = False
            self._selector.unregister(self._control)
            return
        request = json.loads(message)
        reply = {
            "number": request["number"],
            **self._carry_out(request["what"], request["path"], pipes, request["after"]),
        }
        # Where the harness is gone meanwhile, the next message says so.
        with contextlib.suppress(OSError):
            self._control.send(json.dumps(reply).encode())

    def _carry_out(
        self, what: str, path: str, pipes: list[int], after: int | None
    ) -> dict[str, Any]:
        if what == "take":
            return self._take(path, pipes[0], after)
        held = self._held.get(path)
        if what == "give back" and held is not None and _is_at_end(held.pipe):
            self._release(held)
        return {"held": path in self._held and self._leases[path].compromise is None}

    def _take(self, path: str, pipe: int, after: int | None) -> dict[str, Any]:
        if path in self._held:
            os.close(pipe)
            return {"held": False}
        try:
            target = self._leases.setdefault(path, lease(path, self._seconds))
            if after is not None:
                _inherit(target, after)
            target.acquire_write(blocking=False)
        except Timeout:
            os.close(pipe)
            if after is not None:
                # An heir can take it at that one generation alone.
                del self._leases[path]
            return {"held": False}
        except (OSError, RuntimeError, SoftFileLockProtocolError) as e:
            os.close(pipe)
            return {"held": False, "fault": f"{type(e).__name__}: {e}"}
        self._held[path] = Held(pipe, path)
        self._selector.register(pipe, selectors.EVENT_READ, self._held[path])
        return {"held": True, "generation": target.generation}

    def _release(self, held: Held) -> None:
        self._selector.unregister(held.pipe)
        os.close(held.pipe)
        del self._held[held.path]
        # A lease that was lost, or whose file server is gone, is nobody's to give back.
        with contextlib.suppress(OSError, RuntimeError, SoftFileLockProtocolError):
            self._leases.pop(held.path).release(force=True)


def _is_at_end(pipe: int) -> bool:
    """Whether nobody holds the other end: nothing is ever written into it."""
    os.set_blocking(pipe, False)
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


def main(descriptor: int, seconds: float) -> None:
    # A batch system signals every process of a job: this one ends when the others have.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Keeper(socket.socket(fileno=descriptor), seconds).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
