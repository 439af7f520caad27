"""Intervals of a mean over prompts: standard errors, what unjudged prompts leave open, quantiles."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import NormalDist

LEVEL = 0.95
"""Of every interval."""
Range = tuple[float, float]
"""The lowest and the highest that a prompt's score can be."""
MANY = 12
"""Degrees of freedom from which on the expansion of `t_quantile` has an error below 2e-6."""


@cache
def t_quantile(df: float, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t; infinite degrees of freedom give the normal one's.

    From MANY on it is Fisher's expansion in 1/df (Abramowitz and Stegun 26.7.5), which spares the
    import of scipy.
    """
    p = (1 + level) / 2
    z = NormalDist().inv_cdf(p)
    if df >= MANY:
        terms = (
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        )
        return z + math.fsum(term / df**power for power, term in enumerate(terms, start=1))
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def error_of_mean(value: float, error: float, n: int, bounds: Range | None) -> float:
    """Standard error of a mean over n prompts for its interval.

    error: sample standard deviation (ddof 1) / sqrt(n). Where the range of a score is known, one
    score at each end of it is added to the sample: prompts that all went the same way do not make a
    score certain (after Agresti and Caffo 2000, Simple and effective confidence intervals for
    proportions, The American Statistician 54). They move the mean as well; `centre_of_mean` does for
    a score's own interval, but a difference close to the margin is not to be moved towards 0.
    """
    if bounds is None or n < 1:
        return error
    squares = error**2 * n * (n - 1) + n * value**2 + bounds[0] ** 2 + bounds[1] ** 2
    mean = centre_of_mean(value, n, bounds)
    return math.sqrt(max(0.0, squares / (n + 2) - mean**2) / (n + 2))


def centre_of_mean(value: float, n: int, bounds: Range | None) -> float:
    """The middle of a mean's own interval: with one score at each end of the range added to the n."""
    if bounds is None:
        return value
    return (n * value + bounds[0] + bounds[1]) / (n + 2)


def most_cautious_error(value: float, n: int, bounds: Range) -> float:
    """The largest standard error that a mean over n prompts can have: every score at an end of its
    range. Of a percentage the binomial sqrt(p (100 - p) / (n - 1)), in ddof 1 as `error_of_mean`
    takes it."""
    low, high = bounds
    inside = max(0.0, (value - low) * (high - value))
    return math.sqrt(inside / max(n - 1, 1))


def mean(values: Sequence[float | None]) -> float | None:
    """None where there is no value, or one is not defined."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined and len(defined) == len(values) else None


def deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation (ddof 1); None of fewer than two."""
    centre, n = mean(values), len(values)
    if centre is None or n < 2:
        return None
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (n - 1))


@dataclass(frozen=True)
class ScoreSpan:
    """A score with what unjudged prompts leave open: its centre and standard error where they are all
    lost (`low`, `low_error`) and where they are all won."""

    low: float
    low_error: float
    high: float
    high_error: float


def with_unjudged(
    value: float, error: float, judged: int, expected: int, bounds: Range | None
) -> ScoreSpan:
    """`error_of_mean` at both ends of what the unjudged prompts can do; the same twice where every
    prompt was judged."""
    if bounds is None or judged >= expected:
        mean_error = error_of_mean(value, error, judged, bounds)
        return ScoreSpan(value, mean_error, value, mean_error)
    ends: list[float] = []
    for end in bounds:
        filled = (value * judged + end * (expected - judged)) / expected
        squares = error**2 * judged * (judged - 1)
        squares += judged * (value - filled) ** 2 + (expected - judged) * (end - filled) ** 2
        spread = math.sqrt(squares / max(expected - 1, 1) / expected)
        ends += [filled, error_of_mean(filled, spread, expected, bounds)]
    return ScoreSpan(*ends)


FEW_STEEPNESS, FEW_TURN = 6, 0.18
MANY_TURN = 0.7
"""Of `half_width`, fitted numerically: between two replicates, and between three or more."""


def half_width(
    prompt_variance: float,
    between: float,
    df: float,
    prompts: float = math.inf,
    level: float = LEVEL,
) -> float:
    """Half of the interval of a normal estimate whose variance is `prompt_variance` + `between`.

    prompt_variance: one from many prompts (`prompts` degrees of freedom). between: one from few
    replicates (`df`), with its factor; 0 where there is none.

    The square of it is t_prompts^2 prompt_variance + t_df^2 between g, with g = x^s / (x^s + c^s),
    x = between / prompt_variance. With g = 1 it is Banerjee's interval (1960, Approximate confidence
    interval for linear functions of means, Sankhya 22), which never covers less than the level and up
    to 98.8 % with two replicates; Satterthwaite's covers as little as 87 %. s and c are fitted so that
    coverage stays within a point of 95 % whatever the true ratio is: by quadrature 94.1 to 96.0 % for
    two replicates and 94.7 to 95.8 % for more (tests/stats/test_intervals.py computes it).
    """
    return _joined(
        prompt_variance, between, df, t_quantile(prompts, level), partial(t_quantile, level=level)
    )


def reach(prompt_variance: float, between: float, df: float, prompts: float, power: float) -> float:
    """How far from 0 an estimate's true value must be for the interval to leave 0 out with probability
    `power`; its variances as `half_width` has them.

    Of replicates it is the noncentrality of Student's t with their few degrees of freedom, as the
    interval's length varies too; and what they differ by is more, on average, than the standard
    deviation of so few of them says (c4, the mean of chi / sqrt(df)).
    """

    def few(df: float) -> float:
        from scipy.special import nctdtrinc

        return float(nctdtrinc(df, 1 - power, t_quantile(df))) / mean_deviation(df)

    many = t_quantile(prompts) + t_quantile(prompts, 2 * power - 1)
    return _joined(prompt_variance, between, df, many, few)


def mean_deviation(df: float) -> float:
    """The mean of the sample standard deviation of normal values of standard deviation 1 (c4)."""
    return math.sqrt(2 / df) * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2))


def _joined(
    prompt_variance: float, between: float, df: float, many: float, few_of: Callable[[float], float]
) -> float:
    """`many` errors over prompts and `few_of` between replicates, put together as `half_width` says."""
    if between <= 0 or math.isinf(df):
        return many * math.sqrt(max(0.0, prompt_variance + between))
    few = few_of(df)
    if prompt_variance <= 0:
        return few * math.sqrt(between)
    steepness, turn = (FEW_STEEPNESS, FEW_TURN) if df < 2 else (1, MANY_TURN / df)
    counts = 1 / (1 + (turn * prompt_variance / between) ** steepness)
    return math.sqrt(many**2 * prompt_variance + few**2 * between * counts)
