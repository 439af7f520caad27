"""Judged pairs, whoever judged them."""

import math
from dataclasses import dataclass
from typing import Any

from harness.judge.scores import DRAW, is_judgement


@dataclass(frozen=True)
class JudgedPair:
    """One prompt: the model's output and the baseline's (None: not stored), and the preference (1 the
    baseline, 2 the model; None: there is none). first: whether the model's output was shown first,
    None where it is not known or nothing was shown. number: the preference as stored, if a number."""

    instruction: str
    output: str | None
    baseline: str | None
    preference: float | None
    first: bool | None = None
    number: float | None = None

    @property
    def share(self) -> float:
        """What it adds to the win rate: 0 to 1."""
        return (self.preference or DRAW) - 1


def as_preference(value: Any) -> tuple[float | None, float | None]:
    """A stored preference: the judgement that it is, and the number, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, None
    try:
        number = float(value)
    except OverflowError:
        return None, None
    if math.isnan(number):
        return None, None
    if not math.isfinite(number) or not is_judgement(number):
        return None, number if math.isfinite(number) else None
    return number or DRAW, number
