"""An order to stop that came where Python can raise nothing is given again."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

SOON_S = 0.01
"""Until what swallowed it has returned."""


@contextlib.contextmanager
def given_again() -> Iterator[None]:
    """Meanwhile a KeyboardInterrupt that a destructor or an extension's callback swallows (as pydantic
    does) is raised anew in the main thread. Else the work would go on as if nobody had asked."""
    handler, hook = signal.signal(signal.SIGALRM, _interrupt), sys.unraisablehook

    def again(unraisable: "sys.UnraisableHookArgs") -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, SOON_S)
        else:
            hook(unraisable)

    sys.unraisablehook = again
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        sys.unraisablehook = hook


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
