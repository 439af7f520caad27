"""Whether a reproduced number agrees with the reported one.

The question is whether the expected score of our set-up lies within a margin of the expected score of
the published one. Both are known from samples: the reported number from one run (one training, one
sampling, one judging), ours from one or several. The answer is an equivalence test by interval
inclusion (Schuirmann 1987; Westlake 1972): `reproduced` where the 95 % interval of the difference lies
within the margin, `not reproduced` where it lies wholly outside, else `inconclusive`. Where intervals
are exact each of the first two is then wrong in at most 2.5 % of cases; what they are by simulation
stands in benchmarks/README.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TypeVar

from harness.artefact.manifest import MetricValue
from harness.artefact.metrics import metric_of
from harness.common import numbers
from harness.common.progress import counted
from harness.errors import InputError
from harness.results.verdict.evidence import Evidence, gather, served_models
from harness.results.verdict.forecast import Foretold, More, decide, foretell, in_words
from harness.results.verdict.outlook import BridgeForetold, Outlook, foretell_bridged
from harness.results.verdict.rejudged import (
    AgainstPublished,
    Interval,
    InTheirTerms,
    against_published,
    in_their_terms,
)
from harness.results.verdict.sides import (
    Reproduced,
    assumed_spread,
    difference_interval,
    mean_of,
    reported_span_of,
    reproduced_interval,
    reproduced_of,
    within_range,
)
from harness.row.published_judge import another_judge
from harness.row.rejudged import WIN_RATE, is_rejudged
from harness.row.reported import Reported
from harness.row.row import Row
from harness.run.plan import RowPlan, StagePlan
from harness.stats.intervals import LEVEL, ScoreSpan, deviation, mean

ForetoldT = TypeVar("ForetoldT", Foretold, BridgeForetold)
ANOTHER_JUDGE = "not comparable: another judge"
"""The verdict where the published number has another judge (model, annotator, baseline) than ours."""
SIMULATED = "simulated"
"""The verdict on what the simulated teacher or judge had a hand in, and on a scaled-down twin."""
MARGIN = 3.0
"""Points of a percentage within which two numbers count as the same, where the spec names no other."""


@dataclass(frozen=True)
class Verdict:
    name: str
    reason: str
    margin: float | None = None
    difference: float | None = None
    """Reproduced - reported."""
    low: float | None = None
    """The 95 % interval of the difference, with what unjudged prompts leave open."""
    high: float | None = None
    reproduced_low: float | None = None
    """The 95 % interval of the reproduced number: sampling and replicates, unjudged prompts apart. Of
    one training it is that of the model at hand."""
    reproduced_high: float | None = None
    more: More = ()
    """How many replicates of a kind would decide it, see `Foretold`: ((`train`, 2),)."""


@dataclass(frozen=True)
class Weighed:
    """A verdict with all that it was made of. Errors are standard errors in the score's units."""

    verdict: Verdict
    reproduced: Reproduced | None = None
    """Our side; None where no run, or not every run, has a standard error."""
    reported_span: ScoreSpan | None = None
    """The reported number over its prompts."""
    reported_error_from: str = ""
    """Where the reported number's error comes from: `reported`, `binomial`, `ours`."""
    reported_error: float | None = None
    """That standard error, over the prompts that were judged."""
    assumed: float = 0.0
    """Standard deviation between trainings allowed for on each side, for want of replicates."""
    foretold: Foretold | None = None
    """Of an inconclusive verdict."""
    bridge_foretold: BridgeForetold | None = None
    """Of an inconclusive verdict by a bridge."""
    outlook: Outlook | None = None
    """What more would do for the interval; None where nothing was compared."""
    evidence: Evidence | None = None
    against: AgainstPublished | None = None
    """Where the published judge is another: ours and the study's own answers under today's."""
    interval: Interval | None = field(default=None, compare=False, repr=False)
    """Of the difference at any level; None where nothing was compared."""
    in_their_terms: InTheirTerms | None = None
    """Where the published judge is another: ours as it would have it, by the bridge."""

    @property
    def is_simulated(self) -> bool:
        return self.verdict.name == SIMULATED

    @property
    def digits(self) -> int:
        """That the score's unit bears, and a reader of the verdict is shown."""
        return 2 if self.evidence is None or self.evidence.bounds == (0, 100) else 4

    @property
    def item(self) -> str:
        """What the score is a mean over, in a word."""
        return self.evidence.item if self.evidence is not None else "prompt"

    def number(self, value: float | None, signed: bool = False) -> str:
        return numbers.number(value, self.digits, signed)


@dataclass(frozen=True, kw_only=True)
class Pooled(MetricValue):
    """A metric over its replicates."""

    value: float
    replicate_sd: float | None
    replicates: int


def pool(metrics: Sequence[MetricValue]) -> Pooled:
    """One metric over its replicates; each has a value.

    `value` is the mean; `standard_error` the root mean square of the replicates' own standard errors
    (the choice of prompts, which replicates share); `replicate_sd` their sample standard deviation
    (ddof 1; None for one). Counts are summed over the replicates, bounds are averaged.
    """
    values = [m.value for m in metrics if m.value is not None]
    defined = [m.standard_error for m in metrics if m.standard_error is not None]
    n = len(values)
    root_mean_square = math.sqrt(math.fsum(e * e for e in defined) / n)
    return Pooled(
        value=fmean(values),
        standard_error=root_mean_square if len(defined) == n else None,
        replicate_sd=deviation(values),
        replicates=n,
        judged=_total([m.judged for m in metrics]),
        expected=_total([m.expected for m in metrics]),
        wins=_total([m.wins for m in metrics]),
        losses=_total([m.losses for m in metrics]),
        draws=_total([m.draws for m in metrics]),
        lower_bound=mean([m.lower_bound for m in metrics]),
        upper_bound=mean([m.upper_bound for m in metrics]),
    )


def _total(counts: Sequence[int | None]) -> int | None:
    """None where one has none."""
    defined = [count for count in counts if count is not None]
    return sum(defined) if len(defined) == len(counts) else None


def assess(
    row: Row,
    metric: str,
    planned: Sequence[StagePlan],
    plan: RowPlan | None = None,
    level: float = LEVEL,
) -> Weighed:
    """The verdict on a row's metric from the stages that give it: judge stages, of a loss its
    trainings. A scaled-down twin is simulated, whatever made it. `plan`: the row's, in which stands
    what the row's judge judges beside it. `level`: of the interval of the difference.

    Raises:
        Damaged: an artefact of the row was changed.
    """
    artefacts = [stage.artefact for stage in planned if stage.artefact is not None]
    simulated = sorted({mark for artefact in artefacts for mark in artefact.manifest.simulated})
    if row.scale == "tiny":
        simulated.append("a scaled-down twin of the row")
    evidence = gather(row, metric, planned)
    if evidence is None and row.eval is not None and row.judge is None and not planned:
        return Weighed(Verdict("not judged", "the row has no judge"))
    reported, published = row.reported.get(metric), row.reported.judge_of(metric)
    another = ""
    if published and row.judge and row.judge.judges_outputs and evidence is not None:
        another = another_judge(published, row.judge, served_models(evidence))
    weighed = judge(reported, evidence, simulated, margin_of(row, metric), another, level)
    weighed = replace(weighed, evidence=evidence)
    if another and plan is not None and plan.against_itself:
        reason = f"{weighed.verdict.reason}; {plan.against_itself}"
        return replace(weighed, verdict=replace(weighed.verdict, reason=reason))
    if another and plan is not None and plan.beside():
        try:
            return _rejudged(weighed, row, metric, planned, plan, level)
        except InputError as e:
            reason = f"{weighed.verdict.reason}; no bridge: {e.message}"
            return replace(weighed, verdict=replace(weighed.verdict, reason=reason))
    return weighed


def _rejudged(
    weighed: Weighed,
    row: Row,
    metric: str,
    planned: Sequence[StagePlan],
    plan: RowPlan,
    level: float,
) -> Weighed:
    """The verdict against the study's own answers under today's judge, where these were published; else
    by the bridge."""
    reported, margin = row.reported[metric], margin_of(row, metric)
    ours = gather(row, metric, planned, every_grade=True) if is_rejudged(metric) else None
    reproduced = reproduced_of(ours) if ours is not None else None
    if ours is None or margin is None or reproduced is None or reported.value is None:
        return weighed
    span, error, origin = reported_span_of(reported, ours, reproduced)
    assumed = assumed_spread(ours, margin)
    against = against_published(plan, metric, ours, reproduced, margin)
    terms = None
    if metric == WIN_RATE:
        terms = in_their_terms(plan, ours, reproduced, reported.value, span, margin)
    chosen = against or terms
    if chosen is None:
        return weighed
    found, interval, outlook = chosen
    weighed = replace(
        weighed,
        against=against[0] if against else None,
        in_their_terms=terms[0] if terms else None,
    )
    if weighed.verdict.name != ANOTHER_JUDGE:
        return weighed
    low, high = interval(level)
    name = decide(low, high, margin, may_be_reproduced=not ours.trained_once)
    foretold, by_bridge = None, None
    if name == "inconclusive" and outlook.bridge is None:
        foretold = foretell(ours, outlook.reproduced, outlook.reported_span, margin)
        foretold = _within(foretold, interval)
    elif name == "inconclusive":
        by_bridge = _within(foretell_bridged(outlook), interval)
    more = foretold.more if foretold else by_bridge.more if by_bridge else ()
    verdict = replace(
        weighed.verdict,
        name=name,
        reason=_of_rejudged(weighed, found, (low, high), level, margin),
        margin=margin,
        difference=found.difference,
        low=low,
        high=high,
        more=more,
    )
    return replace(
        weighed,
        verdict=verdict,
        reported_span=span,
        reported_error_from=origin,
        reported_error=error,
        assumed=assumed,
        foretold=foretold,
        bridge_foretold=by_bridge,
        outlook=outlook,
        interval=interval,
    )


def _within(foretold: ForetoldT, interval: Interval) -> ForetoldT:
    """What endless replicates leave is no more than today's interval, whose error may be estimated
    otherwise."""
    low, high = interval(LEVEL)
    return replace(foretold, limit=min(foretold.limit, (high - low) / 2))


def _of_rejudged(
    weighed: Weighed,
    found: AgainstPublished | InTheirTerms,
    ends: tuple[float, float],
    level: float,
    margin: float,
) -> str:
    low, high = (numbers.clear_of(margin, end, "+.{}f", weighed.digits) for end in ends)
    if isinstance(found, AgainstPublished):
        what = "difference from the study's own answers under the same judge"
    else:
        models = counted(found.models, "model")
        what = f"difference in the published judge's terms, by a bridge of {models},"
    return f"{what} between {low} and {high} points ({100 * level:.6g} %), margin {margin:g}"


def also_within(value: float | None, margin: float, evidence: Evidence) -> str:
    """That even the lowest or highest score there is lies within the margin of a number: being so close
    to it says little. "": it does not."""
    ends = [end for end in evidence.bounds or () if value is not None and abs(end - value) < margin]
    return "".join(f", within which even {end:g} lies" for end in ends)


def margin_of(row: Row, metric: str) -> float | None:
    """The spec's, for the metric or for what it is of (`win_rate` of `win_rate/koala`); else MARGIN
    for a percentage; None for all others."""
    kind = metric.partition("/")[0]
    margin = row.margins.get(metric, row.margins.get(kind))
    if margin is not None:
        return margin
    return MARGIN if metric_of(metric).is_percentage else None


def judge(
    reported: Reported | None,
    evidence: Evidence | None,
    simulated: Sequence[str],
    margin: float | None = MARGIN,
    another: str = "",
    level: float = LEVEL,
) -> Weighed:
    """Compare a reported number with the runs of `evidence`; margin None: the metric has none.
    another: in words, how its judge is another than ours; judges differ by more than a margin, so that
    the numbers are then not compared.

    The interval covers, on both sides, the sampling of prompts (with all noise that each prompt has
    for itself), what trainings of one set-up differ by, and the prompts that went unjudged: all lost
    at its one end, all won at the other. Sampled answers and judgements are drawn for each prompt for
    itself, so that they add nothing that prompts have in common; where replicates show otherwise
    (F test at 5 %) their spread enters as that of trainings does.

    The published run is taken as independent of ours. Where both answered the same prompts, and find
    the same ones hard, the interval is wider than it had to be; by how much cannot be known without
    the published judgements (with them: `harness compare`, with a row whose engine is `reference`).
    """
    if evidence is None:
        return Weighed(Verdict("not run", ""))
    reproduced = reproduced_of(evidence)
    low, high = (None, None) if reproduced is None else reproduced_interval(evidence, reproduced)
    verdict = Verdict("not comparable", "", reproduced_low=low, reproduced_high=high)
    weighed = Weighed(verdict, reproduced)
    if simulated:
        reason = f"simulated: {', '.join(simulated)}"
        return replace(weighed, verdict=replace(verdict, name=SIMULATED, reason=reason))
    if reported is None or reported.value is None:
        why = "no number was reported" if reported is None else "the study leaves this cell empty"
        return replace(weighed, verdict=replace(verdict, reason=why))
    difference = mean_of(evidence) - reported.value
    verdict = replace(verdict, difference=difference)
    if another:
        return replace(weighed, verdict=replace(verdict, name=ANOTHER_JUDGE, reason=another))
    verdict = replace(verdict, margin=margin)
    if margin is None:
        side = "above" if difference > 0 else "below"
        why = f"{abs(difference):.4f} {side} the reported number; this metric has no margin"
        return replace(weighed, verdict=replace(verdict, reason=why))
    if reproduced is None:
        why = _without_error(evidence)
        return replace(weighed, verdict=replace(verdict, reason=why))
    weighed = replace(weighed, verdict=verdict)
    return _compare(weighed, evidence, reproduced, reported, margin, level)


def _without_error(evidence: Evidence) -> str:
    """Which runs give no standard error, and why where that can be told."""
    count, reasons = len(evidence.runs), []
    for number, run in enumerate(evidence.runs.values(), start=1):
        if run.metric.standard_error is not None:
            continue
        name = "the run"
        if count > 1:
            label = run.stage.label if run.stage is not None else ""
            name = f"run {number} of {count}{f' ({label})' * bool(label)}"
        judged = run.metric.judged
        few = counted(judged, "judged prompt") if judged is not None and judged < 2 else "none"
        reasons.append(f"{name} has {few}")
    return f"the standard error is not known: {', '.join(reasons)}"


def _compare(
    weighed: Weighed,
    evidence: Evidence,
    reproduced: Reproduced,
    reported: Reported,
    margin: float,
    level: float,
) -> Weighed:
    reported_span, reported_error, origin = reported_span_of(reported, evidence, reproduced)
    assumed = assumed_spread(evidence, margin)

    def interval(level: float) -> tuple[float, float]:
        ends = difference_interval(reproduced, reported_span, assumed, level)
        return within_range(*ends, evidence.bounds)

    low, high = interval(level)
    name = decide(low, high, margin, may_be_reproduced=not evidence.trained_once)
    form, digits, unit = (
        ("+.{}f", 1, " points") if evidence.bounds == (0, 100) else ("+.{}g", 3, "")
    )
    ends = " and ".join(numbers.clear_of(margin, end, form, digits) for end in (low, high))
    within = also_within(reported.value, margin, evidence)
    reason = f"difference between {ends}{unit} ({100 * level:.6g} %), margin {margin:g}{within}"
    if evidence.trained_once:
        reason += (
            f"; one training, so that a standard deviation of {assumed:g} between trainings "
            "is allowed for"
        )
    foretold = None
    if name == "inconclusive":
        foretold = _within(foretell(evidence, reproduced, reported_span, margin), interval)
        reason += f"; {in_words(foretold)}"
    more = foretold.more if foretold else ()
    return replace(
        weighed,
        verdict=replace(weighed.verdict, name=name, reason=reason, low=low, high=high, more=more),
        reported_span=reported_span,
        reported_error_from=origin,
        reported_error=reported_error,
        assumed=assumed,
        foretold=foretold,
        outlook=Outlook(evidence, reproduced, reported_span, margin),
        interval=interval,
    )
