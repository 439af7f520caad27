"""The two sides of a verdict: ours from the runs there are, theirs from what was reported."""

import math
from dataclasses import dataclass

from harness.report.evidence import Evidence
from harness.spec.models import Reported
from harness.stats.intervals import (
    Side,
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
KINDS = ("train", "sampling", "judge")
"""Of replicates, the highest first."""


@dataclass(frozen=True)
class Ours:
    """Our side: the mean over the runs, and the variance of one run's score in its parts."""

    value: float
    error: float
    """Over the prompts, of the mean over the runs."""
    side: Side
    judged: float
    expected: float
    split: Split | None
    between: float
    within: float
    df: int
    replicated: str


def mean_of(evidence: Evidence) -> float:
    """The mean over the runs."""
    values = [run.metric["value"] for run in evidence.runs.values()]
    return math.fsum(values) / len(values)


def ours_of(evidence: Evidence) -> Ours | None:
    """None where the standard error of a run is not known."""
    metrics = [run.metric for run in evidence.runs.values()]
    errors = [m.get("standard_error") for m in metrics]
    if any(error is None for error in errors):
        return None
    value, count = mean_of(evidence), len(metrics)
    expected = math.fsum(m.get("expected", m.get("examples", 0)) for m in metrics) / count
    judged = math.fsum(m.get("judged", m.get("examples", 0)) for m in metrics) / count
    error2 = math.fsum(e * e for e in errors if e is not None) / count
    # MMLU's score is no plain mean of its questions'.
    is_mean = evidence.grades and not evidence.is_stratified
    found = split(evidence.grades) if is_mean else None
    between = within = 0.0
    df, replicated = 0, ""
    if found is not None:
        top = found.top
        error2 = top.columns * top.prompts / max(judged, 1)
        kinds = [kind for kind in KINDS if kind in found.parts]
        if kinds and top.between is not None and (kinds[0] == "train" or top.is_common):
            between, within, df, replicated = top.between, top.within, top.df, kinds[0]
    elif evidence.count(0) > 1:
        # Without the grades it is not known what of it the prompts explain: it all counts twice.
        means = _training_means(evidence)
        mean = math.fsum(means) / len(means)
        df, replicated = len(means) - 1, "train"
        between = math.fsum((m - mean) ** 2 for m in means) / df
    error = math.sqrt(error2)
    side = with_unjudged(value, error, round(judged), round(expected), evidence.bounds)
    return Ours(value, error, side, judged, expected, found, between, within, df, replicated)


def _training_means(evidence: Evidence) -> list[float]:
    by_training: dict[int, list[float]] = {}
    for index, run in evidence.runs.items():
        by_training.setdefault(index[0], []).append(run.metric["value"])
    return [math.fsum(values) / len(values) for values in by_training.values()]


def own_interval(evidence: Evidence, ours: Ours) -> tuple[float, float]:
    """Of the reproduced number, as if the unjudged prompts were like the judged ones."""
    judged = round(ours.judged)
    error = error_of_mean(ours.value, ours.error, judged, evidence.bounds)
    count = ours.df + 1
    known = max(0.0, error**2 - ours.within / count)
    half = half_width(known, ours.between / count, ours.df, freedom(judged))
    centre = centre_of_mean(ours.value, judged, evidence.bounds)
    low, high = centre - half, centre + half
    if evidence.bounds is None:
        return low, high
    return max(low, evidence.bounds[0]), min(high, evidence.bounds[1])


def freedom(judged: float) -> float:
    return max(judged - 1, 1)


def theirs_of(reported: Reported, evidence: Evidence, ours: Ours) -> tuple[Side, float, str]:
    """The reported number's side, its standard error, and where that comes from."""
    assert reported.value is not None
    expected = reported.expected or reported.judged or round(ours.expected)
    judged = expected if reported.judged is None else min(reported.judged, expected)
    if reported.standard_error is not None:
        error, origin = reported.standard_error, "reported"
    elif evidence.bounds is not None:
        error, origin = most_cautious_error(reported.value, judged, evidence.bounds), "binomial"
    else:
        error, origin = ours.side.low_error, "ours"
    side = with_unjudged(reported.value, error, judged, expected, evidence.bounds)
    return side, error, origin


def assumed_spread(evidence: Evidence, margin: float | None) -> float:
    if not evidence.trains or evidence.count(0) > 1:
        return 0.0
    return share_of_range(UNKNOWN_SPREAD, evidence, margin)


def share_of_range(share: float, evidence: Evidence, margin: float | None) -> float:
    """A share of the score's range; where that is not known, as much as the margin."""
    if evidence.bounds is None:
        return margin or 0.0
    return share * (evidence.bounds[1] - evidence.bounds[0])


def difference_interval(ours: Ours, theirs: Side, assumed: float) -> tuple[float, float]:
    """Of ours - theirs: from ours with all unjudged lost and theirs with all won, to the reverse."""
    count = ours.df + 1
    many = 2 * freedom(ours.judged)
    between = ours.between * (1 + 1 / count)

    def half(error: float, their_error: float) -> float:
        known = error**2 + their_error**2 - ours.within * (1 + 1 / count) + 2 * assumed**2
        return half_width(max(0.0, known), between, ours.df, many)

    low = ours.side.low - theirs.high - half(ours.side.low_error, theirs.high_error)
    high = ours.side.high - theirs.low + half(ours.side.high_error, theirs.low_error)
    return low, high
