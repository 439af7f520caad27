"""How a training's steps were dealt out to micro-batches: each start of it may choose anew."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.spec.train import Train

FILE = "micro_batches.json"


class Dealt(NamedTuple):
    after: int
    """Steps before the first that it is of."""
    of_a_step: int
    """Micro-batches."""
    crowded: bool
    """Whether others' use of the GPU decided it."""


def begin(work: Path, dealt: Dealt) -> None:
    """Of all steps from here on; what an earlier start chose for these is undone."""
    before = [entry for entry in read(work) if entry.after < dealt.after]
    if not before or before[-1][1:] != dealt[1:]:
        before.append(dealt)
    part = work / f"{FILE}.part"
    part.write_text(json.dumps(before), encoding="ascii")
    part.replace(work / FILE)


def read(work: Path) -> list[Dealt]:
    path = work / FILE
    return [Dealt(*entry) for entry in json.loads(path.read_text("ascii"))] if path.exists() else []


def record(dealt: Sequence[Dealt], params: Train, steps: int) -> list[dict[str, Any]]:
    """For the manifest: which steps had how many micro-batches, of how many examples."""
    per_step = params.batch_size * params.accumulation
    ends = [*(entry.after for entry in dealt[1:]), steps]
    return [
        {
            "steps": [entry.after + 1, end],
            "of_a_step": entry.of_a_step,
            "examples": per_step // entry.of_a_step,
        }
        for entry, end in zip(dealt, ends, strict=True)
    ]


def why_not_repeatable(dealt: Sequence[Dealt]) -> list[str]:
    """What may deal out the same training's steps otherwise another time, in words."""
    reasons = []
    if any(entry.crowded for entry in dealt):
        reasons.append("others' use of the GPU decided how many examples went at once")
    if len({entry.of_a_step for entry in dealt}) > 1:
        reasons.append("it was gone on with in micro-batches of another size")
    return reasons
