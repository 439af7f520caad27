"""What a retired judge would have said of a model that only today's judge has judged.

Of bridging models both judges' verdicts are known, prompt by prompt. Each gives a shift, the retired
judge's less today's, on the log-odds scale: a win rate near 0 or 100 cannot then be shifted beyond
them. Over bridging models the shifts are a normal random-effects sample, whose
predictive distribution says what the shift of another model may be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from harness.stats.intervals import LEVEL

FEWEST_PROMPTS = 30
"""That both judges must have judged of a bridging model; of fewer the error of a shift is not known."""
FEW_MODELS = 2
"""Up to so many bridging models say nothing of their spread: it is SPREAD."""
SPREAD = 0.6
"""Log-odds: standard deviation of the shift between models where there are too few to tell it. With it
an interval from one or two models holds the other models of the boards in 95 to 96 % of cases
(benchmarks/judge_bridge.py)."""
NEAREST = 0.0005
"""To a share of 0 or 1 that a score is taken to be."""
PRIOR_MEDIAN, PRIOR_SCALE, PRIOR_DF = 0.45, 1.0, 8
"""Prior of the spread's logarithm where there are more models: Student's t about log(PRIOR_MEDIAN).

Nine pairs of judges on AlpacaEval's published boards (5 to 28 models each; Paule-Mandel) have spreads
of 0.04 to 0.96 log-odds, whose logarithms have the mean log(0.20) and a standard deviation of 0.99,
with eight degrees of freedom. The median is taken higher than theirs, so that coverage is about 95 %
for spreads of up to ten points as well (benchmarks/README.md, also of priors that cover more).
"""
_GRID = [-6.0 + 0.1 * step for step in range(96)]
"""Logarithms of the spread over which its posterior is summed: 0.002 to 33 log-odds."""


@dataclass(frozen=True)
class Shift:
    """The retired judge's log-odds of winning less today's, of one model's answers."""

    value: float
    error: float
    """Standard error over the prompts that both judged."""
    prompts: int


@dataclass(frozen=True)
class Predicted:
    """The shift of a model that the retired judge has not seen; log-odds."""

    mean: float
    low: float
    high: float
    """The prediction interval."""
    mean_error: float
    """Standard error of the mean over models: what more prompts or bridging models make smaller."""
    spread: float
    """Standard deviation of the shift between models; the posterior's root mean square where it is
    estimated."""
    models: int


def log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def of_log_odds(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def shift(retired: Sequence[float], today: Sequence[float]) -> Shift:
    """The paired shift of one model: retired[i] and today[i] are a prompt's scores, 0 (lost) to 1.

    One win and one loss, half of each, are added to either judge's, which keeps the log-odds finite
    (Anscombe 1956, On estimating binomial response relations, Biometrika 43). The error is the delta
    method's on the paired scores.

    Raises:
        ValueError: of fewer than FEWEST_PROMPTS prompts, or lists of different lengths.
    """
    n = len(retired)
    if n != len(today):
        raise ValueError(f"{n} scores of the retired judge, {len(today)} of today's")
    if n < FEWEST_PROMPTS:
        raise ValueError(f"{n} prompts judged by both, {FEWEST_PROMPTS} are needed")
    old, new = ((math.fsum(scores) + 0.5) / (n + 1) for scores in (retired, today))
    of_old, of_new = 1 / (old * (1 - old)), 1 / (new * (1 - new))
    moved = [of_old * a - of_new * b for a, b in zip(retired, today, strict=True)]
    centre = math.fsum(moved) / n
    # The same added scores, so that judges who agree everywhere are not known to without error.
    added = [of_old, -of_new]
    squares = math.fsum((m - centre) ** 2 for m in moved) + 0.5 * math.fsum(a * a for a in added)
    return Shift(log_odds(old) - log_odds(new), math.sqrt(squares / n / (n + 1)), n)


def predict(shifts: Sequence[Shift], level: float = LEVEL) -> Predicted:
    """The predictive distribution of another model's true shift.

    Normal shifts about a mean of which nothing is known beforehand, with the spread as SPREAD or, of
    more than FEW_MODELS, summed over its posterior (Roever 2020, Bayesian random-effects meta-analysis
    using the bayesmeta R package, Journal of Statistical Software 93(6), sections 2.3 to 2.6). There a
    prompt's variance is the mean over the models.

    Raises:
        ValueError: without a shift.
    """
    if not shifts:
        raise ValueError("no bridging model")
    estimated = len(shifts) > FEW_MODELS
    shifts = _equally_noisy(shifts) if estimated else shifts
    spreads = [math.exp(x) for x in _GRID] if estimated else [SPREAD]
    points = [_given(spread, shifts) for spread in spreads]
    top = max(point.log_weight for point in points)
    prior = [_log_prior(s) if estimated else 0.0 for s in spreads]
    weights = [math.exp(point.log_weight - top + p) for point, p in zip(points, prior, strict=True)]
    total = math.fsum(weights)
    weights = [weight / total for weight in weights]
    mean = math.fsum(w * p.mean for w, p in zip(weights, points, strict=True))
    mean_variance = math.fsum(
        w * (p.variance + (p.mean - mean) ** 2) for w, p in zip(weights, points, strict=True)
    )
    spread = math.sqrt(math.fsum(w * s * s for w, s in zip(weights, spreads, strict=True)))
    parts = [
        (w, NormalDist(p.mean, math.sqrt(s * s + p.variance)))
        for w, p, s in zip(weights, points, spreads, strict=True)
        if w > 1e-12
    ]
    low, high = (_quantile(parts, (1 + side * level) / 2) for side in (-1, 1))
    return Predicted(mean, low, high, math.sqrt(mean_variance), spread, len(shifts))


def _equally_noisy(shifts: Sequence[Shift]) -> list[Shift]:
    """The shifts with errors by their prompts and the mean of a prompt's variance over the models.

    Of few prompts a model's own error hangs together with its shift, both being made of a few wins: far
    shifts then weigh least, and the spread comes out too small (Boehning et al. 2002, Some general
    points in estimating heterogeneity variance with the DerSimonian-Laird estimator, Biostatistics 3).
    """
    variance = math.fsum(s.error * s.error * s.prompts for s in shifts) / len(shifts)
    return [replace(s, error=math.sqrt(variance / s.prompts)) for s in shifts]


@dataclass(frozen=True)
class Bridged:
    """A score in the retired judge's terms, a share of 1, with its interval."""

    value: float
    low: float
    high: float
    slope: float
    """How much of a change of today's score is left in it: the factor of its standard errors."""
    bridge_error: float
    """Standard error of the mean shift over models, as a share."""
    spread: float
    """Standard deviation of the shift between models, as a share."""


def bridged(share: float, low: float, high: float, predicted: Predicted) -> Bridged:
    """A score under today's judge with its interval (shares of 1, kept off 0 and 1 by NEAREST), as the
    retired judge would have it.

    The interval of the sum of log-odds and shift is made of the two apart, squared on each side (Zou
    and Donner 2008, Construction of confidence limits about effect measures, Statistics in Medicine
    27).
    """
    share, low, high = (min(max(x, NEAREST), 1 - NEAREST) for x in (share, low, high))
    centre = log_odds(share) + predicted.mean
    value = of_log_odds(centre)
    unit = share * (1 - share)
    down = math.hypot(log_odds(share) - log_odds(low), predicted.mean - predicted.low)
    up = math.hypot(log_odds(high) - log_odds(share), predicted.high - predicted.mean)
    slope = value * (1 - value)
    return Bridged(
        value,
        of_log_odds(centre - down),
        of_log_odds(centre + up),
        slope / unit,
        slope * predicted.mean_error,
        slope * predicted.spread,
    )


def difference(ours: Bridged, reported: float, half: float) -> tuple[float, float]:
    """The interval of ours less a reported score (a share of 1) with half of its interval."""
    middle = ours.value - reported
    return (
        middle - math.hypot(ours.value - ours.low, half),
        middle + math.hypot(ours.high - ours.value, half),
    )


@dataclass(frozen=True)
class _Given:
    """Mean shift and its variance where the spread is given."""

    mean: float
    variance: float
    log_weight: float
    """Of the spread's marginal likelihood, the mean integrated out."""


def _given(spread: float, shifts: Sequence[Shift]) -> _Given:
    weights = [1 / (spread * spread + s.error * s.error) for s in shifts]
    total = math.fsum(weights)
    mean = math.fsum(w * s.value for w, s in zip(weights, shifts, strict=True)) / total
    squares = math.fsum(w * (s.value - mean) ** 2 for w, s in zip(weights, shifts, strict=True))
    logs = math.fsum(map(math.log, weights))
    return _Given(mean, 1 / total, (logs - math.log(total) - squares) / 2)


def _log_prior(spread: float) -> float:
    t = math.log(spread / PRIOR_MEDIAN) / PRIOR_SCALE
    return -(PRIOR_DF + 1) / 2 * math.log1p(t * t / PRIOR_DF)


def _quantile(parts: Sequence[tuple[float, NormalDist]], share: float) -> float:
    """Of a mixture of normal distributions, by bisection."""
    ends = [part.inv_cdf(share) for _, part in parts]
    low, high = min(ends), max(ends)
    for _ in range(60):
        middle = (low + high) / 2
        if math.fsum(weight * part.cdf(middle) for weight, part in parts) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2
