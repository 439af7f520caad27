"""Which signals order a command to stop, and which of them are an order of their own."""

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

from harness.common import swallowed

ONE_ORDER_SECONDS = 1.0
"""timeout(1) signals its child and then the group that the child is in: one order comes twice."""
ONE_PRESS_SECONDS = 0.25
"""Nobody presses Ctrl-C twice in less: `timeout -s INT` does."""


class StopOrders:
    """Makes a KeyboardInterrupt of each order to stop.

    A signal that comes within a second of the first is the same order, but for a Ctrl-C that somebody
    pressed again.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._was_ctrl_c = False

    @property
    def came(self) -> bool:
        """Whether there was one, whoever heard it."""
        return self._first is not None

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """While a command runs."""
        # A command that a shell began in the background ignores Ctrl-C.
        numbers = [n for n in (signal.SIGTERM, signal.SIGINT) if not _is_ignored(n)]
        before = [(number, signal.signal(number, self._handle)) for number in numbers]
        try:
            with swallowed.given_again():
                yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        is_first = self._first is None
        if self._first is None:
            self._first = now
        passed = now - self._first
        again = number == signal.SIGINT and self._was_ctrl_c and passed > ONE_PRESS_SECONDS
        self._was_ctrl_c = self._was_ctrl_c or number == signal.SIGINT
        if is_first or again or passed > ONE_ORDER_SECONDS:
            raise KeyboardInterrupt


def _is_ignored(number: signal.Signals) -> bool:
    return number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN
