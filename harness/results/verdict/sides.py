"""The two sides of a verdict: ours from the runs there are, theirs from what was reported."""

import math
from dataclasses import dataclass
from statistics import fmean

from harness.common.grouping import grouped
from harness.results.verdict.evidence import Evidence
from harness.row.reported import Reported
from harness.stats.intervals import (
    LEVEL,
    Range,
    ScoreSpan,
    centre_of_mean,
    error_of_mean,
    half_width,
    most_cautious_error,
    with_unjudged,
)
from harness.stats.variance import Split, split

UNKNOWN_SPREAD = 0.03
"""Standard deviation between trainings, as a share of the score's range, that is allowed for where
there is one training only: 3 points of a percentage. It is the harness's own and is meant to be more
than trainings of one set-up usually differ by: two of them would be more than 8 points apart once in
twenty times. It can only keep a verdict from being given."""
KIND_WORDS = {
    "train": ("training", "trainings"),
    "sampling": ("sampling", "samplings"),
    "judge": ("judging", "judgings"),
}
KINDS = tuple(KIND_WORDS)
"""Of replicates, the highest first."""


@dataclass(frozen=True)
class Reproduced:
    """Our side: the mean over the runs, and the variance of one run's score in its parts."""

    value: float
    error: float
    """Over the prompts, of the mean over the runs."""
    span: ScoreSpan
    """Over the prompts, without what replicates have in common."""
    judged: float
    expected: float
    split: Split | None
    between: float
    """Variance between our replicates, all that replicates differ by."""
    within: float
    df: int
    replicated: str
    """The kind of replicate that `between` is of; empty where it does not enter."""


def mean_of(evidence: Evidence) -> float:
    """The mean over the runs."""
    return fmean(run.value for run in evidence.runs.values())


def reproduced_of(evidence: Evidence) -> Reproduced | None:
    """None where the standard error of a run is not known."""
    metrics = [run.metric for run in evidence.runs.values()]
    errors = [m.standard_error for m in metrics]
    if any(error is None for error in errors):
        return None
    value, count = mean_of(evidence), len(metrics)
    expected = math.fsum(_first(m.expected, m.examples) for m in metrics) / count
    judged = math.fsum(_first(m.judged, m.examples) for m in metrics) / count
    error2 = math.fsum(e * e for e in errors if e is not None) / count
    # MMLU's score is no plain mean of its questions'.
    is_mean = evidence.grades and not evidence.is_stratified
    variance_split = split(evidence.grades) if is_mean else None
    between = within = 0.0
    df, replicated = 0, ""
    if variance_split is not None:
        top = variance_split.top
        error2 = top.columns * top.prompts / max(judged, 1)
        kinds = [kind for kind in KINDS if kind in variance_split.parts]
        if kinds and top.between is not None and (kinds[0] == "train" or top.is_common):
            between, within, df, replicated = top.between, top.within, top.df, kinds[0]
    elif evidence.count(0) > 1:
        # Without the grades it is not known what of it the prompts explain: it all counts twice.
        means = _training_means(evidence)
        df, replicated = len(means) - 1, "train"
        centre = fmean(means)
        between = math.fsum((m - centre) ** 2 for m in means) / df
    error = math.sqrt(error2)
    span = with_unjudged(value, error, round(judged), round(expected), evidence.bounds)
    return Reproduced(
        value, error, span, judged, expected, variance_split, between, within, df, replicated
    )


def _first(*counts: int | None) -> int:
    return next((count for count in counts if count is not None), 0)


def _training_means(evidence: Evidence) -> list[float]:
    by_training = grouped(evidence.runs, lambda index: index[0])
    return [fmean(evidence.runs[i].value for i in indices) for indices in by_training.values()]


def reproduced_interval(evidence: Evidence, reproduced: Reproduced) -> tuple[float, float]:
    """Of the reproduced number, as if the unjudged prompts were like the judged ones."""
    judged = round(reproduced.judged)
    error = error_of_mean(reproduced.value, reproduced.error, judged, evidence.bounds)
    count = reproduced.df + 1
    prompt_variance = max(0.0, error**2 - reproduced.within / count)
    half = half_width(prompt_variance, reproduced.between / count, reproduced.df, freedom(judged))
    centre = centre_of_mean(reproduced.value, judged, evidence.bounds)
    low, high = centre - half, centre + half
    if evidence.bounds is None:
        return low, high
    return max(low, evidence.bounds[0]), min(high, evidence.bounds[1])


def freedom(judged: float) -> float:
    return max(judged - 1, 1)


def reported_span_of(
    reported: Reported, evidence: Evidence, reproduced: Reproduced
) -> tuple[ScoreSpan, float, str]:
    """The reported number's span, its standard error, and where that comes from."""
    assert reported.value is not None
    expected = reported.expected or reported.judged or round(reproduced.expected)
    judged = expected if reported.judged is None else min(reported.judged, expected)
    if reported.standard_error is not None:
        error, origin = reported.standard_error, "reported"
    elif evidence.bounds is not None:
        error, origin = most_cautious_error(reported.value, judged, evidence.bounds), "binomial"
    else:
        error, origin = reproduced.span.low_error, "ours"
    span = with_unjudged(reported.value, error, judged, expected, evidence.bounds)
    return span, error, origin


def assumed_spread(evidence: Evidence, margin: float | None) -> float:
    return share_of_range(UNKNOWN_SPREAD, evidence, margin) if evidence.trained_once else 0.0


def share_of_range(share: float, evidence: Evidence, margin: float | None) -> float:
    """A share of the score's range; where that is not known, as much as the margin."""
    if evidence.bounds is None:
        return margin or 0.0
    return share * (evidence.bounds[1] - evidence.bounds[0])


def within_range(low: float, high: float, bounds: Range | None) -> tuple[float, float]:
    """An interval of the difference of two scores, cut to what a difference can be."""
    if bounds is None:
        return low, high
    most = bounds[1] - bounds[0]
    return max(low, -most), min(high, most)


def difference_interval(
    reproduced: Reproduced, reported_span: ScoreSpan, assumed: float, level: float = LEVEL
) -> tuple[float, float]:
    """Of reproduced - reported: from the first with all unjudged lost and the second with all won, to
    the reverse."""
    count = reproduced.df + 1
    many = 2 * freedom(reproduced.judged)
    between = reproduced.between * (1 + 1 / count)

    def half(reproduced_error: float, reported_error: float) -> float:
        variance = (
            reproduced_error**2
            + reported_error**2
            - reproduced.within * (1 + 1 / count)
            + 2 * assumed**2
        )
        return half_width(max(0.0, variance), between, reproduced.df, many, level)

    low = (
        reproduced.span.low
        - reported_span.high
        - half(reproduced.span.low_error, reported_span.high_error)
    )
    high = (
        reproduced.span.high
        - reported_span.low
        + half(reproduced.span.high_error, reported_span.low_error)
    )
    return low, high
