"""What more replicates would most likely do for a verdict that is inconclusive."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.evidence import Evidence
from harness.report.sides import KINDS, Ours, freedom, share_of_range
from harness.stats.intervals import Side, half_width

USUAL_SPREAD = 0.01
"""Standard deviation between trainings, as a share of the score's range, that is taken where there is
one training, to foretell how many would decide: 1 point of a percentage."""
MOST_ADDED = 20
"""Replicates of one kind beyond which nothing is foretold."""
COSTS = {"judge": 1, "sampling": 2, "train": 8}
"""What a replicate of each kind costs beside the others, roughly."""
DECIDED = ("reproduced", "not reproduced")

More = tuple[tuple[str, int], ...]
"""How many replicates of a kind: ((`train`, 2),)."""


@dataclass(frozen=True)
class Foretold:
    """What more replicates would do."""

    more: More
    """Empty where none would decide."""
    limit: float
    """Half of the interval of the difference that endless replicates would leave, at least."""
    is_first: bool = False
    """Whether `more` are the first of their kind, which would only show what others could do."""


def decide(low: float, high: float, margin: float, may_be_reproduced: bool = True) -> str:
    """The verdict that an interval of the difference gives."""
    if low >= -margin and high <= margin and may_be_reproduced:
        return "reproduced"
    if low > margin or high < -margin:
        return "not reproduced"
    return "inconclusive"


def foretell(evidence: Evidence, ours: Ours, theirs: Side, margin: float) -> Foretold:
    """The cheapest number of replicates of one kind with which the interval, about the present
    difference, would give a verdict.

    What a kind without replicates adds to the error over prompts is not known before there are two of
    it, and neither is how much more of them would take off: where the most that they can take off
    would decide, the first of them are asked for.
    """
    counts = (
        evidence.count(0),
        evidence.count(1) / evidence.count(0),
        evidence.count(2) / evidence.count(1),
    )
    low, high = ours.side.low - theirs.high, ours.side.high - theirs.low

    def decides(numbers: Sequence[float], prompts: bool = True) -> bool:
        half = _half_with(evidence, ours, theirs, numbers, margin, prompts)
        several = numbers[0] > 1 or not evidence.trains
        return decide(low - half, high + half, margin, several) in DECIDED

    possible = {"train": evidence.trains, "sampling": evidence.samples, "judge": evidence.judges}
    # Of one training no other replicate says what trainings differ by.
    alone = evidence.trains and counts[0] == 1
    kinds = [kind for kind in KINDS if possible[kind] and (kind == "train" or not alone)]
    found: list[tuple[int, str, int]] = []
    for kind in kinds:
        for added in range(1, MOST_ADDED + 1):
            more = [n + added * (kind == other) for n, other in zip(counts, KINDS, strict=True)]
            if decides(more):
                found.append((COSTS[kind] * added, kind, added))
                break
    unknown = [kind for kind in kinds if counts[KINDS.index(kind)] == 1]
    endless = [math.inf] * len(KINDS)
    limit = _half_with(evidence, ours, theirs, endless, margin, not unknown)
    if found:
        _, kind, added = min(found)
        return Foretold(((kind, added),), limit)
    if unknown and decides(endless, prompts=False):
        kind = min(unknown, key=COSTS.__getitem__)
        return Foretold(((kind, 2 if kind == "train" else 1),), limit, is_first=True)
    return Foretold((), limit)


def _half_with(
    evidence: Evidence,
    ours: Ours,
    theirs: Side,
    counts: Sequence[float],
    margin: float | None,
    with_prompts: bool,
) -> float:
    """Half of the interval of the difference with other numbers of replicates: trainings, samplings
    of each, judgings of each of these. Where there is one training, trainings are taken to differ by
    USUAL_SPREAD. with_prompts: whether our error over prompts stays; else replicates take it off."""
    a, b, c = counts
    found = ours.split
    parts = found.parts if found else {}
    divisors = {"train": 1.0, "sampling": b, "judge": b * c}
    single = math.fsum(part.single / divisors[kind] for kind, part in parts.items())
    # What small samples add to the error stays with the prompts.
    prompts = ours.side.low_error**2 if with_prompts else 0.0
    if with_prompts and found is not None:
        prompts += found.prompts - found.top.columns
    common = parts["train"].common if "train" in parts else ours.between
    if evidence.trains and evidence.count(0) == 1:
        common = share_of_range(USUAL_SPREAD, evidence, margin) ** 2
    known = prompts + theirs.low_error**2
    many = 2 * freedom(ours.judged)
    if evidence.trains:
        between = (1 + 1 / a) * (common + single)
        return half_width(max(0.0, known - single), between, a - 1, many)
    if ours.replicated:
        number = {"sampling": b, "judge": c}[ours.replicated]
        between = (1 + 1 / number) * (parts[ours.replicated].common + single)
        return half_width(max(0.0, known - single), between, number - 1, many)
    return half_width(known + single, 0.0, 1, many)


def in_words(foretold: Foretold) -> str:
    if not foretold.more:
        return (
            f"replicates alone would not decide it: endless ones would leave ±{foretold.limit:.2g}"
        )
    ((kind, count),) = foretold.more
    what = {"train": "training", "sampling": "sampling", "judge": "judging"}[kind]
    does = "show whether replicates can" if foretold.is_first else "most likely"
    return f"{count} more {what}{'s' * (count > 1)} would {does} decide it"
