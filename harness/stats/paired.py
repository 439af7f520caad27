"""Two scores of the same prompts, compared prompt by prompt."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.stats.intervals import Range, half_width, reach
from harness.stats.variance import Crossed, crossed

POWER = 0.8
"""Of the smallest difference that could have been seen."""
STEPS = 20
"""Of the iteration that finds it."""

Rows = Sequence[Sequence[float]]
"""[replicate][prompt]: the grades of a side. A replicate is a training where trainings were repeated;
else there is one, the mean over all runs."""


@dataclass(frozen=True)
class Paired:
    """In the score's units."""

    difference: float
    """First - second."""
    standard_error: float | None
    """None where a part of the prompts is a single one."""
    low: float | None
    high: float | None
    """The 95 % interval."""
    prompts: int
    smallest_seen: float | None
    """The smallest true difference whose interval would have left out 0 with probability POWER."""


def paired(
    first: Rows, second: Rows, bounds: Range | None = None, strata: Sequence[Any] | None = None
) -> Paired:
    """Mean difference over the prompts, its standard error and interval.

    first, second: grades of the same prompts in one order. strata: of each prompt the part of the set
    to which it belongs, where the score is the plain mean of the parts' means.

    Over prompts it is the standard error of the mean of the prompts' differences, so that what both
    sides find hard cancels (Miller 2024, Adding error bars to evals, arXiv 2411.00640, section 4). With
    bounds, a prompt is added at either end of what a difference can be: prompts without a flip do not
    make a difference certain, and the middle of the interval lies a little nearer to 0 than the
    difference (after Bonett and Price 2012, Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data, Journal of Educational and Behavioral Statistics 37).
    What the scores of a side's replicates differ by beyond their prompts' own noise is added, as
    `half_width` has it.
    """
    means = [[math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
             for rows in (first, second)]  # fmt: skip
    differences = [a - b for a, b in zip(*means, strict=True)]
    # At either end, in each of the runs that a side's grades are means of.
    added = 1 / len(first) + 1 / len(second)
    if bounds is not None:
        added *= (bounds[1] - bounds[0]) ** 2
    difference, prompt_variance = _over_prompts(differences, strata, added if bounds else None)
    n = len(differences)
    if prompt_variance is None:
        return Paired(difference, None, None, None, n, None)
    several = [crossed(rows) for rows in (first, second) if len(rows) > 1]
    terms = [(side.between or 0.0) / side.replicates for side in several]
    between = math.fsum(terms)
    prompt_variance = max(
        0.0, prompt_variance - math.fsum(side.within / side.replicates for side in several)
    )
    freedom = _freedom(several, terms)
    half = half_width(prompt_variance, between, freedom, n - 1)
    error = math.sqrt(prompt_variance + between)
    shrunk = n / (n + 2) if bounds else 1.0
    centre = shrunk * difference
    most = bounds[1] - bounds[0] if bounds else math.inf
    low = max(-most, min(centre - half, difference))
    high = min(most, max(centre + half, difference))

    def seen_from(variance: float) -> float:
        """How far from 0 a difference must be to be seen, where prompts give it this variance."""
        return reach(variance, between, freedom, n - 1, POWER) / shrunk

    # The part of the difference at hand that is beyond chance.
    beyond = max(0.0, low, -high)
    smallest = _smallest_seen(seen_from, prompt_variance, beyond, n, bounds)
    return Paired(difference, error, low, high, n, smallest)


def _smallest_seen(
    seen_from: Callable[[float], float],
    prompt_variance: float,
    beyond: float,
    n: int,
    bounds: Range | None,
) -> float:
    """Where a difference is as large as it must be to be seen.

    A difference comes with a variance of its own: at most that of flips all one way, each over the
    whole range of a grade. That of the difference looked for is put in, and that of the one at hand
    taken out, as far as it is beyond chance: flips that happen to go one way are noise all the same.
    """
    if bounds is None:
        return seen_from(prompt_variance)
    spread = bounds[1] - bounds[0]

    def of_flips(difference: float) -> float:
        return max(0.0, (spread - difference) * difference) / n

    rest = max(prompt_variance - of_flips(beyond), (spread / (n + 2)) ** 2)
    smallest = seen_from(rest)
    for _ in range(STEPS):
        smallest = min(spread, seen_from(rest + of_flips(smallest)))
    return smallest


def _freedom(sides: Sequence[Crossed], terms: Sequence[float]) -> float:
    """Of the sum of both sides' variances between replicates: Satterthwaite's, which is never less
    than the smaller of theirs."""
    total = math.fsum(terms)
    if total == 0:
        return math.inf
    squares = math.fsum(t * t / side.df for t, side in zip(terms, sides, strict=True))
    return total * total / squares


def _over_prompts(
    values: Sequence[float], strata: Sequence[Any] | None, added: float | None
) -> tuple[float, float | None]:
    """Mean and its variance; of strata the plain mean of theirs. added: the sum of squares of a pair
    of values that is put to the sample."""
    groups: dict[Any, list[float]] = {}
    for value, name in zip(values, strata or [None] * len(values), strict=True):
        groups.setdefault(name, []).append(value)
    means = [math.fsum(group) / len(group) for group in groups.values()]
    mean: float = math.fsum(means) / len(means)
    if any(len(group) < 2 for group in groups.values()):
        return mean, None
    if len(groups) == 1:
        n = len(values)
        squares = math.fsum(v * v for v in values)
        if added is None:
            return mean, (squares - n * mean**2) / (n - 1) / n
        moved: float = (n * mean / (n + 2)) ** 2
        return mean, ((squares + added) / (n + 2) - moved) / (n + 2)
    variance: float = math.fsum(
        math.fsum((v - group_mean) ** 2 for v in group) / (len(group) - 1) / len(group)
        for group, group_mean in zip(groups.values(), means, strict=True)
    )
    # The added pair weighs as much as in one part of all prompts.
    return mean, float(variance / len(groups) ** 2 + (added or 0.0) / (len(values) + 2) ** 2)


def sign_test(above: int, below: int) -> float | None:
    """Two-sided exact p of as many prompts above as below, those alike left out: of verdicts it is
    McNemar's exact test. None where all are alike."""
    n = above + below
    if n == 0:
        return None
    tail = sum(math.comb(n, k) for k in range(min(above, below) + 1))
    p: float = 2 * tail / 2**n
    return min(1.0, p)


def flips(
    first: Mapping[Any, str], second: Mapping[Any, str], names: Sequence[str]
) -> list[list[int]]:
    """Counts of the prompts that both have: by the first's verdict (lines) and the second's
    (columns), in the order of `names`."""
    table = [[0] * len(names) for _ in names]
    for place, verdict in first.items():
        if place in second:
            table[names.index(verdict)][names.index(second[place])] += 1
    return table
