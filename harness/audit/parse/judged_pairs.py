"""What models wrote, and judged pairs of it, whoever judged them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from harness.audit.model import Material
from harness.judge.scores import DRAW, is_judgement


@dataclass(frozen=True)
class StoredOutput:
    """share: what it adds to the win rate, None where it was not judged. baseline: the other output,
    if stored. cut: whether the files say that it ended at the token limit."""

    instruction: str
    text: str
    share: float | None = None
    baseline: str | None = None
    cut: bool = False


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

    @property
    def length(self) -> int | None:
        """Of the model's output, in characters."""
        return None if self.output is None else len(self.output)


def judged_outputs(rows: Sequence[JudgedPair], cut: Collection[str] = ()) -> list[StoredOutput]:
    """Those that are stored. cut: prompts whose output ended at the token limit."""
    return [
        StoredOutput(
            row.instruction,
            row.output,
            None if row.preference is None else row.share,
            row.baseline,
            row.instruction in cut,
        )
        for row in rows
        if row.output is not None
    ]


def material_of(rows: Sequence[JudgedPair], **facts: Any) -> Material:
    """The pairs for the checks across results, with what else is known of them."""
    return Material(
        outputs={row.instruction: row.output for row in rows if row.output is not None},
        judgements=[(row.instruction, row.preference) for row in rows],
        **facts,
    )


def as_preference(value: Any) -> tuple[float | None, float | None]:
    """A stored preference: the judgement that it is, and the number, None where it is none; NaN, as
    which pandas writes that there is none, is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, None
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        return None, None
    return (number or DRAW) if is_judgement(number) else None, number
