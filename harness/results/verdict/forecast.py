"""What more replicates would do for a verdict that is inconclusive."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

from harness.common import numbers
from harness.results.verdict.evidence import Evidence
from harness.results.verdict.sides import KIND_WORDS, KINDS, Reproduced, freedom, share_of_range
from harness.stats.intervals import ScoreSpan, half_width

USUAL_SPREAD = 0.01
"""Standard deviation between trainings, as a share of the score's range, that is taken where there is
one training, to foretell how many would decide: 1 point of a percentage."""
SPREADS = (0.006, 0.0085, 0.012, 0.018, 0.025)
"""What it could be, all as likely, where the chance of a verdict is averaged over it: spread evenly
over the logarithms from half of USUAL_SPREAD to what the verdict allows for, three times it."""
MOST_ADDED = 20
"""Replicates of one kind beyond which nothing is foretold."""
COSTS = {"judge": 1, "sampling": 2, "train": 8}
"""What a replicate of each kind costs beside the others, roughly."""
LIKELY = 0.7
"""The chance with which a number of replicates is to give a verdict, where any number does."""
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of each thing that the chance is averaged over."""
DECIDED = ("reproduced", "not reproduced")

More = tuple[tuple[str, int], ...]
"""How many replicates of a kind: ((`train`, 2),)."""


@dataclass(frozen=True)
class Foretold:
    """What more replicates would do."""

    more: More
    """Empty where none would decide."""
    limit: float
    """Half of the interval of the difference that endless replicates would leave, at least; with what
    unjudged prompts leave open."""
    unjudged: float = 0.0
    """Half of what unjudged prompts of both sides leave open, which is in `limit`."""
    chance: float | None = None
    """Of a verdict with `more`: over what they may be like, given those at hand."""
    is_first: bool = False
    """Whether `more` are the first of their kind, which would only show what others could do."""


def decide(low: float, high: float, margin: float, may_be_reproduced: bool = True) -> str:
    """The verdict that an interval of the difference gives."""
    if low >= -margin and high <= margin and may_be_reproduced:
        return "reproduced"
    if low > margin or high < -margin:
        return "not reproduced"
    return "inconclusive"


def foretell(
    evidence: Evidence, reproduced: Reproduced, reported_span: ScoreSpan, margin: float
) -> Foretold:
    """The cheapest number of replicates of one kind that would give a verdict with a chance of LIKELY;
    where none has it, the cheapest that would with the interval about the present difference.

    What a kind without replicates adds to the error over prompts is not known before there are two of
    it, and neither is how much more of them would take off: where the most that they can take off
    would decide, the first of them are asked for.
    """
    counts = evidence.counts
    low, high = reproduced.span.low - reported_span.high, reproduced.span.high - reported_span.low

    def decides(
        numbers: Sequence[float], moved: float = 0.0, between: float | None = None,
        prompts: bool = True,
    ) -> bool:  # fmt: skip
        half = half_with(evidence, reproduced, reported_span, numbers, margin, prompts, between)
        several = numbers[0] > 1 or not evidence.trains
        return decide(low + moved - half, high + moved + half, margin, several) in DECIDED

    kinds = kinds_of(evidence)
    candidates: list[tuple[bool, int, str, int, float]] = []
    for kind in kinds:
        for added in range(1, MOST_ADDED + 1):
            more = with_more(counts, kind, added)
            if not decides(more):
                continue
            futures = _futures(evidence, reproduced, kind, added, margin)
            chance = sum(decides(more, *future) for future in futures) / len(futures)
            candidates.append((chance < LIKELY, COSTS[kind] * added, kind, added, chance))
            if chance >= LIKELY:
                break
    unknown = first_of_a_kind(evidence)
    endless = [math.inf] * len(KINDS)
    unjudged = (high - low) / 2
    limit = unjudged + half_with(evidence, reproduced, reported_span, endless, margin, not unknown)
    if candidates:
        *_, kind, added, chance = min(candidates)
        return Foretold(((kind, added),), limit, unjudged, round(chance, 2))
    if unknown and decides(endless, prompts=False):
        return Foretold(unknown, limit, unjudged, is_first=True)
    return Foretold((), limit, unjudged)


def kinds_of(evidence: Evidence) -> list[str]:
    """Of replicates that there may be more of. Of one training no other replicate says what trainings
    differ by."""
    if evidence.trained_once:
        return ["train"]
    possible = {"train": evidence.trains, "sampling": evidence.samples, "judge": evidence.judges}
    return [kind for kind in KINDS if possible[kind]]


def first_of_a_kind(evidence: Evidence) -> More:
    """So many more of the cheapest kind of replicate of which there is one alone as would show what
    each of them adds to the error; empty: there is no such kind."""
    alone = [kind for kind in kinds_of(evidence) if evidence.counts[KINDS.index(kind)] == 1]
    if not alone:
        return ()
    kind = min(alone, key=COSTS.__getitem__)
    return ((kind, 2 if kind == "train" else 1),)


def with_more(counts: Sequence[float], kind: str, added: float) -> list[float]:
    return [n + added * (kind == other) for n, other in zip(counts, KINDS, strict=True)]


def _futures(
    evidence: Evidence, reproduced: Reproduced, kind: str, added: int, margin: float
) -> list[tuple[float, float | None]]:
    """How far `added` replicates would move the mean over all, and the variance between all of them
    (None: it does not enter), in cases that are all as likely.

    The new ones are drawn from what the present ones, which are few, let their variance be; where
    there is one training, from SPREADS. Prompts and the reported number stay what they are.
    """
    variance_split = reproduced.split
    part = variance_split.parts.get(kind) if variance_split else None
    above = {"train": 1, "sampling": evidence.count(0), "judge": evidence.count(1)}[kind]
    count = evidence.count(KINDS.index(kind)) / above
    enters = kind == "train" or reproduced.replicated == kind
    present_squares = 0.0
    if kind == "train" and count == 1:
        variances = [share_of_range(share, evidence, margin) ** 2 for share in SPREADS]
    elif enters:
        present_squares = reproduced.df * reproduced.between
        variances = [present_squares / value for value in _chi_square(reproduced.df)]
    else:
        variances = [part.variance if part else 0.0]
    futures: list[tuple[float, float | None]] = []
    for z, variance in itertools.product(map(NormalDist().inv_cdf, QUANTILES), variances):
        # From the mean over those at hand to that over all.
        moved = z * math.sqrt(variance / above * (1 / count - 1 / (count + added)))
        if not enters:
            futures.append((moved, None))
            continue
        chi_squares = _chi_square(added - 1) if added > 1 else (0.0,)
        squares = [present_squares + variance * (z * z + other) for other in chi_squares]
        futures += [(moved, total / (count + added - 1)) for total in squares]
    return futures


@cache
def _chi_square(df: int) -> tuple[float, ...]:
    """Its QUANTILES."""
    from scipy.special import chdtri

    return tuple(float(chdtri(df, 1 - share)) for share in QUANTILES)


def half_with(
    evidence: Evidence,
    reproduced: Reproduced,
    reported_span: ScoreSpan,
    counts: Sequence[float],
    margin: float | None,
    with_prompts: bool,
    spread: float | None = None,
) -> float:
    """Half of the interval of the difference with other numbers of replicates: trainings, samplings
    of each, judgings of each of these. Where there is one training, trainings are taken to differ by
    USUAL_SPREAD. with_prompts: whether our error over prompts stays; else replicates take it off.
    spread: the variance between the replicates that would be found; else it is the present one."""
    a, b, c = counts
    variance_split = reproduced.split
    parts = variance_split.parts if variance_split else {}
    divisors = {"train": 1.0, "sampling": b, "judge": b * c}
    single = math.fsum(part.single / divisors[kind] for kind, part in parts.items())
    # What small samples add to the error stays with the prompts.
    prompts = reproduced.span.low_error**2 if with_prompts else 0.0
    if with_prompts and variance_split is not None:
        prompts += variance_split.prompts - variance_split.top.columns
    common = parts["train"].common if "train" in parts else reproduced.between
    if evidence.trained_once:
        common = share_of_range(USUAL_SPREAD, evidence, margin) ** 2
    prompt_variance = prompts + reported_span.low_error**2
    many = 2 * freedom(reproduced.judged)
    if evidence.trains:
        between = (1 + 1 / a) * (common + single if spread is None else spread)
        return half_width(max(0.0, prompt_variance - single), between, a - 1, many)
    if reproduced.replicated:
        number = {"sampling": b, "judge": c}[reproduced.replicated]
        current = parts[reproduced.replicated].common + single
        between = (1 + 1 / number) * (current if spread is None else spread)
        return half_width(max(0.0, prompt_variance - single), between, number - 1, many)
    return half_width(prompt_variance + single, 0.0, 1, many)


def more_in_words(more: More) -> str:
    """`2 more trainings`."""
    ((kind, count),) = more
    return f"{count} more {KIND_WORDS[kind][count > 1]}"


def in_words(foretold: Foretold) -> str:
    if not foretold.more:
        of_it = f", ±{foretold.unjudged:.2g} of it by unjudged prompts" * (foretold.unjudged > 0)
        return (
            f"replicates alone would not decide it: endless ones would leave ±{foretold.limit:.2g}"
            + of_it
        )
    more = more_in_words(foretold.more)
    if foretold.chance is None:
        return f"{more} would show whether replicates can decide it"
    return f"{more} would decide it with a chance of about {numbers.percent(foretold.chance, digits=0)}"
