"""A verdict under another judge than the published number's: against the study's own answers under
today's judge, or in the published judge's terms by a bridge of models that both have judged."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.artefact.keys import Files
from harness.common.progress import counted
from harness.errors import DataAbsent, InputError, NotFetched
from harness.results.verdict.evidence import Evidence, gather, served_models, served_of
from harness.results.verdict.outlook import NOTHING, PERCENT, Bridge, Outlook
from harness.results.verdict.sides import (
    Reproduced,
    assumed_spread,
    difference_interval,
    freedom,
    mean_of,
    within_range,
)
from harness.row.rejudged import WIN_RATE
from harness.run.bridging import PromptPlace, Texts, check_distinct, verdicts_of
from harness.run.plan import RowPlan
from harness.stats.bridge import FEWEST_PROMPTS, Bridged, Predicted, Shift, shift
from harness.stats.intervals import LEVEL, ScoreSpan, half_width
from harness.stats.variance import crossed, mean_grades


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


Interval = Callable[[float], tuple[float, float]]
"""Level -> the interval of the difference, in points."""


def against_published(
    row_plan: RowPlan, metric: str, ours: Evidence, reproduced: Reproduced, margin: float
) -> tuple[AgainstPublished, Interval, Outlook] | None:
    """None where the study's own answers are not planned or not judged yet, or fewer than two prompts
    were judged of both.

    The interval is that of `harness.results.verdict.sides.difference_interval`, with the standard error
    of the prompts' differences in place of the two sides' own: what both sides find hard cancels. The
    published answers are of one run, so that what replicates differ by enters for them, too.

    Raises:
        InputError: another model judged the published answers than ours.
        Damaged: an artefact was changed.
    """
    published = row_plan.published
    theirs = published and gather(published.row, metric, published.final(), every_grade=True)
    if not published or not theirs or not theirs.grades or not ours.grades:
        return None
    _check_one_judge(ours, published, "the study's own answers")
    mine, other = (mean_grades(list(side.grades.values())) for side in (ours, theirs))
    shared = [p for p in other if p in mine]
    if len(shared) < 2:
        return None
    found = crossed([[mine[p] - other[p] for p in shared]])
    count, bounds = reproduced.df + 1, ours.bounds
    span = bounds[1] - bounds[0] if bounds else 0.0
    # A prompt at either end of what a difference can be, as `paired` has it.
    n = len(shared) + 2
    squares = found.columns * len(shared) * (len(shared) - 1) + span**2 * (1 + 1 / len(ours.runs))
    assumed = assumed_spread(ours, margin)
    variance = squares / (n * n) - reproduced.within * (1 + 1 / count) + 2 * assumed**2
    between = reproduced.between * (1 + 1 / count)
    asked = len(ours.prompts | theirs.prompts)
    left_open = span * (asked - len(shared)) / asked
    middle = found.mean * len(shared) / asked

    def interval(level: float) -> tuple[float, float]:
        freedom_ = freedom(len(shared))
        half = half_width(max(0.0, variance), between, reproduced.df, freedom_, level) + left_open
        return within_range(middle - half, middle + half, bounds)

    low, high = interval(LEVEL)
    error = math.sqrt(squares) / n
    pairs = ScoreSpan(middle - left_open, error, middle + left_open, error)
    outlook = Outlook(ours, replace(reproduced, span=pairs), NOTHING, margin)
    against = AgainstPublished(mean_of(theirs), found.mean, low, high, len(shared))
    return against, interval, outlook


def _check_one_judge(ours: Evidence, beside: RowPlan, what: str) -> None:
    """Raises InputError where servers say that one model judged ours and another what is judged beside
    it."""
    mine, theirs = served_models(ours), served_of(beside.final())
    if mine and theirs and mine != theirs:
        names = (" and ".join(sorted(served)) for served in (mine, theirs))
        raise InputError("servers say that {} judged ours, and {} {}".format(*names, what))


def in_their_terms(
    row_plan: RowPlan,
    ours: Evidence,
    reproduced: Reproduced,
    reported: float,
    reported_span: ScoreSpan,
    margin: float,
) -> tuple[InTheirTerms, Interval, Outlook] | None:
    """None where no bridging model has been judged. A bridge is of all models that are named: of what
    happens to be there anyone could choose.

    Ours enters with all that `difference_interval` has of it, as if the other side's error were 0; that
    of the published number is added after the bridge.

    Raises:
        InputError: the published judge's verdicts are not those on the bridging model's outputs, or
            these are another bridging model's, or a model lacks something, or was judged by
            another model than ours.
        Damaged: an artefact was changed.
    """
    if not any(stage.artefact for plan in row_plan.bridge for stage in plan.final()):
        return None
    found, lacking = _bridging(row_plan, None)
    if lacking:
        raise InputError(_in_words(lacking, len(row_plan.bridge)))
    models: dict[Path, Texts] = {}
    for bridging in row_plan.bridge:
        stage = bridging.final()[0]
        if stage.planner is not None:
            check_distinct(stage.inputs["outputs"].params["answer"], stage.planner.files, models)
        _check_one_judge(ours, bridging, bridging.row.row)
    shifts = tuple(shift for shift, _ in found.values())
    error = max(reported_span.low_error, reported_span.high_error)
    open_ = (reported_span.high - reported_span.low) / 2
    # Its verdicts on other prompts than the row's cannot be set beside today's.
    most = min(max(of.prompts, len(retired & ours.prompts)) for of, retired in found.values())
    bridge = Bridge(shifts, most, reported, error, open_)
    assumed = assumed_spread(ours, margin)

    def at(level: float) -> tuple[Predicted, Bridged, tuple[float, float]]:
        low, high = difference_interval(reproduced, NOTHING, assumed, level)
        predicted, value, ends = bridge.weigh(reproduced.value, low, high, level)
        return predicted, value, within_range(*ends, ours.bounds)

    predicted, value, (low, high) = at(LEVEL)
    terms = InTheirTerms(shifts, predicted, value, PERCENT * value.value - reported, low, high)
    outlook = Outlook(ours, reproduced, NOTHING, margin, bridge)
    return terms, lambda level: at(level)[2], outlook


def shifts_of(row_plan: RowPlan, files: Files | None = None) -> dict[str, Shift]:
    """Bridging model's row -> how the two judges differ on it; without the models that lack something.
    `files`: where a crate has them.

    Raises:
        InputError, Damaged: as `in_their_terms`.
    """
    return {row: shift for row, (shift, _) in _bridging(row_plan, files)[0].items()}


def _bridging(
    row_plan: RowPlan, files: Files | None
) -> tuple[dict[str, tuple[Shift, frozenset[PromptPlace]]], dict[str, str]]:
    """With each shift the prompts that the published judge has judged; and the rows of models that lack
    something, with what, and what brings it."""
    found = {plan.row.row: _shift(plan, files) for plan in row_plan.bridge}
    lacking = {row: shift for row, shift in found.items() if isinstance(shift, str)}
    return {r: shift for r, shift in found.items() if not isinstance(shift, str)}, lacking


def _in_words(lacking: dict[str, str], of: int) -> str:
    models: dict[str, list[str]] = {}
    for row, what in lacking.items():
        models.setdefault(what, []).append(row)
    parts = "; ".join(f"{', '.join(rows)} {what}" for what, rows in models.items())
    return (
        f"it is not whole, {len(lacking)} of its {counted(of, 'model')} cannot be used yet: {parts}"
    )


def _shift(plan: RowPlan, files: Files | None) -> tuple[Shift, frozenset[PromptPlace]] | str:
    """Or what it lacks."""
    if not all(stage.artefact for stage in plan.final()):
        return "not judged (harness run SPEC)"
    evidence = gather(plan.row, WIN_RATE, plan.final(), every_grade=True)
    if evidence is None or not evidence.grades:
        return "judged on no prompt (it is no bridge)"
    today = mean_grades(list(evidence.grades.values()))
    stage = plan.final()[0]
    files = files or (stage.planner.files if stage.planner else None)
    assert files is not None
    assert stage.retired is not None
    try:
        answer = stage.inputs["outputs"].params["answer"]
        retired = verdicts_of(stage.retired, answer, files)
    except DataAbsent as e:
        file = stage.retired.annotations
        way = "harness fetch SPEC" if isinstance(e, NotFetched) else "--inputs DIR"
        name = file.file_name if file.url else file.name  # without this machine's folders
        return f"without the published judge's verdicts, {name} ({way})"
    both = [place for place in today if place in retired]
    if len(both) < FEWEST_PROMPTS:
        raise InputError(
            f"of the {len(today)} prompts that the judge of {plan.row.row} has judged, the published "
            f"judge has verdicts on {len(both)}; a bridge needs {FEWEST_PROMPTS}",
            "Give the verdicts of the published judge on these very outputs, or a larger sample "
            "(reported.bridge, prompts).",
        )
    scores = [retired[p] for p in both], [today[p] / PERCENT for p in both]
    return shift(*scores), frozenset(retired)
