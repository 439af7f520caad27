"""A person's interrupt: calls in flight are paid for already, and awaited for a short while."""

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from harness.artefact import events
from harness.llm.live import LiveCalls

GRACE_S = 10.0
"""An executor gives a stage longer to stop, and then kills it."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Handles signals, in the main thread, until `close`.

    At the first one while calls are in flight, no new one is begun, and the task that made this
    object is cancelled as soon as they are over, or GRACE_S later; `came` tells it why. Any other
    signal does what it did before.
    """

    def __init__(self, live: Sequence[LiveCalls]) -> None:
        self.came = False
        self._live = live
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._stop: asyncio.Task[None] | None = None
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            before = signal.getsignal(number)
            if callable(before):
                self._before[number] = before
                signal.signal(number, self._handle)

    def close(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._stop is not None:
            self._stop.cancel()

    @property
    def _in_flight(self) -> int:
        return sum(live.in_flight for live in self._live)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.came or not self._in_flight:
            self._before[number](number, frame)
            return
        self.came = True
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._stop = asyncio.create_task(self._end())

    async def _end(self) -> None:
        events.note(
            f"stopping: the {self._in_flight} calls in flight are awaited for up to "
            f"{GRACE_S:g} s, as they are paid for; a second interrupt drops them"
        )
        await asyncio.gather(*(live.drain(GRACE_S) for live in self._live))
        assert self._task is not None
        self._task.cancel()
