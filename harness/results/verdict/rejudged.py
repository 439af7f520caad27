"""A verdict under another judge than the published number's: against the study's own answers under
today's judge, or in the published judge's terms by a bridge of models that both have judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import DataAbsent, InputError
from harness.results.verdict.evidence import Evidence, gather
from harness.results.verdict.sides import (
    Reproduced,
    assumed_spread,
    freedom,
    mean_of,
    reproduced_interval,
)
from harness.row.reported import Reported
from harness.run.bridging import PromptPlace, verdicts_on
from harness.run.plan import RowPlan
from harness.stats.bridge import FEWEST_PROMPTS, Bridged, Predicted, Shift, bridged, predict, shift
from harness.stats.bridge import difference as bridged_difference
from harness.stats.intervals import LEVEL, half_width
from harness.stats.variance import Grades, crossed

PERCENT = 100


@dataclass(frozen=True)
class AgainstPublished:
    """Ours less the study's own answers, both under today's judge, paired by prompt."""

    theirs: float
    """Their score under today's judge."""
    difference: float
    low: float
    high: float
    """The 95 % interval, with what went unjudged all against us and all for us."""
    prompts: int
    """Judged of both."""


@dataclass(frozen=True)
class InTheirTerms:
    """Ours as the published judge would have it, by the bridge."""

    shifts: tuple[Shift, ...]
    predicted: Predicted
    ours: Bridged
    difference: float
    """From the published number, in points, with its 95 % interval."""
    low: float
    high: float

    @property
    def models(self) -> int:
        return len(self.shifts)

    @property
    def percent(self) -> tuple[float, float, float]:
        """Ours, and the ends of its interval."""
        return PERCENT * self.ours.value, PERCENT * self.ours.low, PERCENT * self.ours.high


def against_published(
    row_plan: RowPlan, metric: str, ours: Evidence, margin: float, level: float = LEVEL
) -> AgainstPublished | None:
    """None where the study's own answers are not planned or not judged yet, or no prompt was judged of
    both.

    The interval is that of `harness.results.verdict.sides.difference_interval`, with the standard error
    of the prompts' differences in place of the two sides' own: what both sides find hard cancels. The
    published answers are of one training, so that trainings' spread enters for them, too.

    Raises:
        Damaged: an artefact was changed.
    """
    published = row_plan.published
    if published is None:
        return None
    theirs = gather(published.row, metric, published.final(), every_grade=True)
    if theirs is None:
        return None
    trainings, other = _trainings(ours), _mean_grades(list(theirs.grades.values()))
    shared = [p for p in other if all(p in grades for grades in trainings)]
    if len(shared) < 2:
        return None
    rows = [[grades[p] - other[p] for p in shared] for grades in trainings]
    found = crossed(rows)
    count, bounds = found.replicates, ours.bounds
    between = (found.between or 0.0) * (1 + 1 / count)
    noise = found.within * (1 + 1 / count) if count > 1 else 0.0
    span = bounds[1] - bounds[0] if bounds else 0.0
    # A prompt at either end of what a difference can be, as `paired` has it.
    n = len(shared) + 2
    columns = found.columns * len(shared) * (len(shared) - 1) + span**2 * (1 + 1 / count)
    columns /= n * n
    assumed = assumed_spread(ours, margin)
    variance = max(0.0, columns - noise + 2 * assumed**2)
    half = half_width(variance, between, found.df, freedom(len(shared)), level)
    asked = len(ours.prompts | theirs.prompts)
    left_open = span * (asked - len(shared)) / asked
    middle = found.mean * len(shared) / asked
    return AgainstPublished(
        mean_of(theirs),
        found.mean,
        middle - left_open - half,
        middle + left_open + half,
        len(shared),
    )


def _trainings(evidence: Evidence) -> list[Grades]:
    """Mean grades over the runs of each training, of prompts judged in all of them."""
    by_training: dict[int, list[Grades]] = {}
    for index, grades in sorted(evidence.grades.items()):
        by_training.setdefault(index[0], []).append(grades)
    return [_mean_grades(runs) for runs in by_training.values()]


def _mean_grades(runs: Sequence[Grades]) -> dict[PromptPlace, float]:
    in_all = [p for p in runs[0] if all(p in grades for grades in runs[1:])]
    return {p: math.fsum(grades[p] for grades in runs) / len(runs) for p in in_all}


def in_their_terms(
    row_plan: RowPlan,
    metric: str,
    ours: Evidence,
    reproduced: Reproduced,
    reported: Reported,
    reported_half: float,
) -> InTheirTerms | None:
    """None where no bridging model has been judged.

    reported_half: half of the published number's 95 % interval, in points.

    Raises:
        InputError: the published judge's verdicts are not those on the bridging model's outputs.
        Damaged: an artefact was changed.
    """
    each = [_shift(plan, metric) for plan in row_plan.bridge]
    shifts = tuple(found for found in each if found is not None)
    if not shifts:
        return None
    assert reported.value is not None
    predicted = predict(shifts)
    low, high = reproduced_interval(ours, reproduced)
    share = min(max(reproduced.value / PERCENT, 0.5 / 1000), 1 - 0.5 / 1000)
    in_terms = bridged(share, (high - low) / 2 / PERCENT, predicted)
    ends = bridged_difference(in_terms, reported.value / PERCENT, reported_half / PERCENT)
    middle = PERCENT * in_terms.value - reported.value
    low, high = (PERCENT * end for end in ends)
    return InTheirTerms(shifts, predicted, in_terms, middle, low, high)


def _shift(plan: RowPlan, metric: str) -> Shift | None:
    evidence = gather(plan.row, metric, plan.final(), every_grade=True)
    if evidence is None:
        return None
    today = _mean_grades(list(evidence.grades.values()))
    stage = plan.final()[0]
    assert stage.planner is not None
    try:
        retired = verdicts_on(stage, stage.planner.files)
    except DataAbsent:
        return None
    both = [place for place in today if place in retired]
    if len(both) < FEWEST_PROMPTS:
        raise InputError(
            f"of the {len(today)} prompts that the judge of {plan.row.row} has judged, the published "
            f"judge has verdicts on {len(both)}; a bridge needs {FEWEST_PROMPTS}",
            "Give the verdicts of the published judge on these very outputs, or a larger sample "
            "(reported.bridge, prompts).",
        )
    return shift([retired[p] for p in both], [today[p] / PERCENT for p in both])
