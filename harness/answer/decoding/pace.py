"""How far the answers are and what is left, from their tokens: whole answers say little at first."""

import time
from collections.abc import Mapping
from typing import TypedDict

ENOUGH_ENDED = 10
"""Answers that must have ended before it is guessed how long the others will be."""


class Speed(TypedDict):
    """The figures to show."""

    tokens: int
    tokens_per_second: int | None
    seconds_left: int | None
    """None until enough answers have ended."""


class Pace:
    """Of the answers of one try. `limits`: prompt's number -> the most tokens of its answer."""

    def __init__(self, limits: Mapping[int, int]) -> None:
        self._left = dict(limits)
        self._started = time.monotonic()
        self._ended = self._tokens = 0

    def end(self, index: int, tokens: int) -> None:
        """An answer of so many tokens ended."""
        del self._left[index]
        self._ended += 1
        self._tokens += tokens

    @property
    def tokens(self) -> int:
        """Of the answers that ended."""
        return self._tokens

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)

    def info(self, making: Mapping[int, int]) -> Speed:
        """making: prompt's number -> tokens so far of an answer in the making.

        The answers that end first are the short ones, so an answer is expected to take the tokens of
        all answers, whole and begun, over the answers that ended: the estimate of a mean where some are
        still under way (exponential lengths). No answer is expected to go past its limit.
        """
        tokens = self._tokens + sum(making.values())
        rate = tokens / self.seconds
        left = None
        if self._ended >= ENOUGH_ENDED and rate > 0:
            mean = tokens / self._ended
            to_make = sum(min(mean, self._left[i] - making.get(i, 0)) for i in self._left)
            left = round(to_make / rate)
        return {
            "tokens": tokens,
            "tokens_per_second": round(rate) if tokens else None,
            "seconds_left": left,
        }
