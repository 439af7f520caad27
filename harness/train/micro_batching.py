"""How a training's steps were dealt out to micro-batches: each start of it may choose anew."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from harness.artefact.store import write_atomically
from harness.spec.train import Train

FILE = "micro_batches.json"


class Dealt(NamedTuple):
    after: int
    """Steps before the first that it is of."""
    of_a_step: int | None
    """Micro-batches; None where that was not noted, or what was noted is lost."""
    crowded: bool
    """Whether others' use of the GPU decided it."""


def begin(work: Path, dealt: Dealt) -> None:
    """Of all steps from here on; what an earlier start chose for these is undone."""
    before = [entry for entry in read(work) if entry.after < dealt.after]
    if dealt.after and (not before or before[0].after):
        before.insert(0, Dealt(0, None, False))
    if not before or before[-1][1:] != dealt[1:]:
        before.append(dealt)
    write_atomically(work / FILE, json.dumps(before))


def read(work: Path) -> list[Dealt]:
    """Empty where there is no record, or a torn one."""
    try:
        return [Dealt(*entry) for entry in json.loads((work / FILE).read_text("utf-8"))]
    except (FileNotFoundError, ValueError, TypeError):
        return []


class StepSizes(TypedDict):
    """In a manifest: how many micro-batches a range of steps had, of how many examples; None where that
    is not known."""

    steps: list[int]
    of_a_step: int | None
    examples: int | None


def record(dealt: Sequence[Dealt], params: Train, steps: int) -> list[StepSizes]:
    """For the manifest: which steps had how many micro-batches."""
    per_step = params.batch_size * params.accumulation
    sizes = [
        entry for i, entry in enumerate(dealt) if not i or entry.of_a_step != dealt[i - 1].of_a_step
    ]
    ends = [*(entry.after for entry in sizes[1:]), steps]
    return [
        {
            "steps": [entry.after + 1, end],
            "of_a_step": entry.of_a_step,
            "examples": entry.of_a_step and per_step // entry.of_a_step,
        }
        for entry, end in zip(sizes, ends, strict=True)
    ]


def note(recorded: StepSizes, params: Train) -> str:
    """What is told of steps that had not, as far as is known, the spec's micro-batches."""
    steps = "the steps {} to {}".format(*recorded["steps"])
    if recorded["of_a_step"] is None:
        return f"how many examples went at once in {steps} is not known: the record of them is lost"
    return (
        f"{recorded['examples']} examples at once in {steps}, not {params.batch_size}: the GPU's free "
        "memory had room for them; the same but for rounding"
    )


def why_not_repeatable(dealt: Sequence[Dealt]) -> list[str]:
    """What may deal out the same training's steps otherwise another time, in words."""
    reasons = []
    if any(entry.of_a_step is None for entry in dealt):
        reasons.append("of some steps it is not known how many examples went at once")
    if any(entry.crowded for entry in dealt):
        reasons.append("others' use of the GPU decided how many examples went at once")
    if len({entry.of_a_step for entry in dealt} - {None}) > 1:
        reasons.append("it was gone on with in micro-batches of another size")
    return reasons
