"""`harness compare`: two rows, prompt by prompt."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from harness.artefact.metrics import metric_of
from harness.artefact.store import Damaged
from harness.common import numbers
from harness.common.commands import harness
from harness.common.grouping import grouped
from harness.common.hanging import print_hanging
from harness.common.progress import counted, plain
from harness.errors import InputError
from harness.results import losses
from harness.results.comparability import Difference, differences
from harness.results.line import in_brackets, labels
from harness.results.matrix import choose_plan
from harness.results.verdict.evidence import Evidence, gather, strata_of
from harness.results.verdict.verdict import Pooled, pool
from harness.row.load import LoadedRow
from harness.row.row import Row
from harness.run.failures import tell_damaged
from harness.run.plan import Planner, RowPlan
from harness.stats.paired import POWER, Paired, flips, paired, sign_test
from harness.stats.variance import mean_grades

VERDICTS = ("win", "draw", "lose")
DIFFERENCE = "difference (first - second)"
FLIPPED = ("win_rate", "winning_score")
"""Metrics of which a grade is a win, a draw or a loss."""


@dataclass(frozen=True)
class ComparedRow:
    """A row with the runs that gave a metric."""

    row: Row
    evidence: Evidence
    pooled: Pooled
    """Over all runs."""
    simulated: frozenset[str]
    """What of it was simulated; also that the row is a scaled-down twin."""
    random_weights: bool
    places: dict[Any, float]
    """Prompt -> its mean grade over the runs; only what was judged in every run."""
    made_of: frozenset[str]
    """The keys of the artefacts that the runs' numbers stand in."""


@dataclass(frozen=True)
class Comparison:
    """Two rows on one metric. Without grades of each prompt there is a difference and no more."""

    metric: str
    first: ComparedRow
    second: ComparedRow
    result: Paired | None
    shared: int = 0
    """Prompts that were judged in every run of both."""
    only_first: int = 0
    """Prompts judged in the first alone: unjudged in the second, or no prompt of it."""
    only_second: int = 0
    table: list[list[int]] | None = None
    """Of win, draw, lose: prompts by the first's verdict (lines) and the second's (columns)."""
    above: int = 0
    """Prompts on which the first has the higher grade."""
    below: int = 0
    p_value: float | None = None
    lowest: float | None = None
    highest: float | None = None
    """The difference over the prompts of both, with what went unjudged all against the first, and all
    for it; None where nothing is open."""

    @property
    def same(self) -> bool:
        """Whether both rows' numbers come of the same artefacts, as a row's and its own do."""
        return self.first.made_of == self.second.made_of


def show_comparison(
    console: Console,
    first: LoadedRow,
    second: LoadedRow,
    planners: Sequence[Planner],
    as_json: bool,
) -> None:
    """Print the comparison on every metric that both rows have.

    Raises:
        InputError: a row has no score yet, or they have no metric in common.
        Damaged, HarnessError: artefacts of a row, or of both, were changed.
    """
    plans: list[RowPlan] = []
    damaged: dict[str, Damaged] = {}
    for loaded in (first, second):
        try:
            plans.append(_plan(loaded, planners))
        except Damaged as e:
            damaged[str(e)] = e
    tell_damaged([*damaged.values()])
    comparisons = compare(plans[0], plans[1])
    differing = differences(plans[0], plans[1])
    if as_json:
        report = {
            "rows": [first.row.row, second.row.row],
            "confounded": bool(differing),
            "settings": [asdict(difference) for difference in differing],
            "metrics": [to_dict(comparison) for comparison in comparisons],
        }
        console.file.write(json.dumps(report, indent=2, allow_nan=False) + "\n")
        return
    for comparison in comparisons:
        heading, *lines = sentences(comparison)
        print_hanging(console, Text(plain(heading), "bold"))
        for line in lines:
            print_hanging(console, f"  {plain(line)}")
    if differing or not all(comparison.same for comparison in comparisons):
        _show_settings(console, differing)


def _show_settings(console: Console, differing: Sequence[Difference]) -> None:
    if not differing:
        print_hanging(console, "The rows differ in nothing but what is studied.")
        return
    text = (
        ": the rows differ in more than what is studied, and the difference may come of any of it"
    )
    print_hanging(console, Text.assemble(("confounded", "bold yellow"), text))
    for difference in differing:
        print_hanging(console, f"  - {plain(str(difference))}")


def _plan(loaded: LoadedRow, planners: Sequence[Planner]) -> RowPlan:
    plan, problem = choose_plan(loaded, planners)
    if plan is None:
        raise InputError(f"row {loaded.row.row} cannot be compared: {problem}")
    plan.check_results()
    return plan


def compare(first: RowPlan, second: RowPlan) -> list[Comparison]:
    """One for each metric that both rows have, graded ones first.

    Raises:
        InputError: a row has no score, or none that the other has too.
        Damaged: an artefact was changed.
    """
    measured = [_metrics(plan) for plan in (first, second)]
    for plan, names in zip((first, second), measured, strict=True):
        if not names:
            raise InputError(
                f"row {plan.row.row} has no score yet", f"Run it: {harness('run', plan.target)}"
            )
    common = [name for name in measured[0] if name in measured[1]]
    if "win_rate" in common and "winning_score" in common:
        # The same verdicts on another scale.
        common.remove("winning_score")
    if not common:
        descriptions = [f"{plan.row.row} has {', '.join(names)}"
                for plan, names in zip((first, second), measured, strict=True)]  # fmt: skip
        raise InputError(
            f"the rows have no metric in common: {'; '.join(descriptions)}",
            "Rows can be compared where the same kind of judge has judged both.",
        )
    comparisons = [
        _comparison(name, _compared_row(first, name), _compared_row(second, name))
        for name in common
    ]
    return sorted(comparisons, key=lambda comparison: comparison.result is None)


def _metrics(plan: RowPlan) -> list[str]:
    """Those that the row is scored by: where a judge gives its loss, a training's own is none."""
    judged = losses.is_judged_by_other(plan.row)
    artefacts = [stage.artefact for stage in [*plan.final(), *losses.stages_of(plan)]]
    names = [name for artefact in artefacts if artefact for name in artefact.manifest.metrics]
    return [n for n in dict.fromkeys(names) if not (judged and metric_of(n).is_loss)]


def _compared_row(plan: RowPlan, metric: str) -> ComparedRow:
    planned = losses.stages_that_give(plan, metric)
    evidence = gather(plan.row, metric, planned, every_grade=True)
    if evidence is None:
        raise InputError(f"row {plan.row.row} gives no number for {metric}")
    runs = list(evidence.runs.values())
    grades = list(evidence.grades.values())
    artefacts = [run.stage.artefact for run in runs if run.stage.artefact]
    marks = {mark for artefact in artefacts for mark in artefact.manifest.simulated}
    marks |= {losses.SCALED_DOWN} if plan.row.scale == "tiny" else set()
    return ComparedRow(
        plan.row,
        evidence,
        pool([run.metric for run in runs]),
        frozenset(marks),
        any(artefact.manifest.random_weights for artefact in artefacts),
        mean_grades(grades),
        frozenset(run.stage.key for run in runs),
    )


def _comparison(metric: str, first: ComparedRow, second: ComparedRow) -> Comparison:
    shared = [place for place in first.places if place in second.places]
    if not shared:
        return Comparison(metric, first, second, None, 0, len(first.places), len(second.places))
    if first.made_of == second.made_of:
        # Without sampling there is nothing that an interval could be about.
        result = Paired(0.0, None, None, None, len(shared), None)
        return Comparison(metric, first, second, result, len(shared))
    bounds = first.evidence.bounds
    result = paired(_rows(first, shared), _rows(second, shared), bounds, strata_of(metric, shared))
    above = sum(first.places[p] > second.places[p] for p in shared)
    below = sum(first.places[p] < second.places[p] for p in shared)
    table = None
    if metric in FLIPPED and bounds is not None:
        middle = (bounds[0] + bounds[1]) / 2
        sides = [{p: _verdict(side.places[p], middle) for p in shared} for side in (first, second)]
        table = flips(sides[0], sides[1], VERDICTS)
    lowest, highest = _bounds(metric, first, second)
    return Comparison(
        metric,
        first,
        second,
        result,
        len(shared),
        len(first.places) - len(shared),
        len(second.places) - len(shared),
        table,
        above,
        below,
        sign_test(above, below),
        lowest,
        highest,
    )


def _verdict(grade: float, middle: float) -> str:
    """Of the mean over runs."""
    return "draw" if grade == middle else "win" if grade > middle else "lose"


def _rows(side: ComparedRow, places: Sequence[Any]) -> list[list[float]]:
    """The trainings' mean grades where there are several trainings, else the mean over all runs."""
    grades = side.evidence.grades
    by_training = grouped(sorted(grades), lambda index: index[0])
    if len(by_training) == 1:
        return [[side.places[place] for place in places]]
    return [
        [fmean(grades[index][place] for index in runs) for place in places]
        for runs in by_training.values()
    ]


def _bounds(
    metric: str, first: ComparedRow, second: ComparedRow
) -> tuple[float | None, float | None]:
    """Over the prompts that both were asked, what went unjudged all one way and all the other."""
    bounds = first.evidence.bounds
    prompts = first.evidence.prompts & second.evidence.prompts
    open_ = [p for p in prompts if p not in first.places or p not in second.places]
    if bounds is None or not open_ or strata_of(metric, []) is not None:
        return None, None
    ends = []
    for first_end, second_end in (bounds, bounds[::-1]):
        gaps = [first.places.get(p, first_end) - second.places.get(p, second_end) for p in prompts]
        ends.append(math.fsum(gaps) / len(prompts))
    return ends[0], ends[1]


def sentences(comparison: Comparison) -> list[str]:
    """What a person reads of it, the first line naming what it is about; not escaped."""
    first, second = comparison.first, comparison.second
    unit = "points" if first.evidence.bounds == (0, 100) else ""
    item = first.evidence.item
    marks = sorted(first.simulated | second.simulated)
    heading = f"{first.row.row} and {second.row.row}, {comparison.metric}"
    if marks:
        heading += f" (simulated: {', '.join(marks)})"
    lines = [heading, *(_score_text(side, comparison.metric) for side in (first, second))]
    if comparison.same:
        return [*lines, "both are read from the same artefacts: there is no difference to test"]
    if comparison.result is None:
        gap = f"{DIFFERENCE} {first.pooled.value - second.pooled.value:+.4g} {unit}".rstrip()
        why = (
            f"no {item} was judged in both"
            if first.places and second.places
            else f"no grade of each {item} is kept, so there is no test"
        )
        return [*lines, f"{gap}; {why}"]
    lines.append(_difference(comparison, unit))
    if comparison.table is not None:
        several = any(len(side.evidence.runs) > 1 for side in (first, second))
        of = ", each row's by its mean over its runs" * several
        lines.append(f"verdicts{of}: {_flips(comparison.table)}")
    lines.append(_signs(comparison))
    if comparison.only_first or comparison.only_second:
        lines.append(
            f"left out: {counted(comparison.only_first, item)} judged in {first.row.row} alone, "
            f"{comparison.only_second} in {second.row.row} alone"
        )
    ends = numbers.interval(comparison.lowest, comparison.highest, signed=True)
    if ends:
        lines.append(
            f"over all {item}s of both, with what went unjudged all against or all for "
            f"{first.row.row}: {ends} {unit}".rstrip()
        )
    return lines + _once(comparison)


def _score_text(side: ComparedRow, metric: str) -> str:
    over = ""
    if side.pooled.expected is not None:
        over = f", judged {numbers.out_of(side.pooled.judged, side.pooled.expected)}"
    value = numbers.number(side.pooled.value, metric_of(metric).digits)
    text = f"{side.row.row}: {value}{over}, {counted(len(side.evidence.runs), 'run')}"
    return text + in_brackets(labels("; ".join(sorted(side.simulated)), side.random_weights))


def _difference(comparison: Comparison, unit: str) -> str:
    result = comparison.result
    assert result is not None
    digits = metric_of(comparison.metric).digits
    gap = numbers.number(result.difference, digits, signed=True)
    text = f"{DIFFERENCE} {gap} {unit}".rstrip()
    over = counted(comparison.shared, comparison.first.evidence.item)
    if result.low is None or result.high is None or result.smallest_seen is None:
        return f"{text} over {over} judged in both; too few for an interval"
    return (
        f"{text}, 95 % interval {numbers.interval(result.low, result.high, digits, signed=True)}, "
        f"over {over} judged in both; the smallest difference that would have "
        f"been seen with a probability of {numbers.percent(POWER, digits=0)} is "
        f"{numbers.number(result.smallest_seen, digits)}"
    )


def _flips(table: list[list[int]]) -> str:
    unchanged = sum(table[i][i] for i in range(len(VERDICTS)))
    total = sum(map(sum, table))
    changed = [
        f"{VERDICTS[i]} to {VERDICTS[j]} {table[i][j]}"
        for i in range(len(VERDICTS))
        for j in range(len(VERDICTS))
        if i != j and table[i][j]
    ]
    text = f"{numbers.out_of(total - unchanged, total)} differ"
    return text + (f" (first to second: {', '.join(changed)})" if changed else "")


def _signs(comparison: Comparison) -> str:
    alike = comparison.shared - comparison.above - comparison.below
    verb = "is" if comparison.above == 1 else "are"
    how = "better" if metric_of(comparison.metric).higher_is_better else "higher, and so worse,"
    item = comparison.first.evidence.item
    better = f"{counted(comparison.above, item)} {verb} {how} in the first"
    text = f"{better}, {comparison.below} in the second, {alike} alike"
    return text + (
        f"; exact sign test of these runs, p = {comparison.p_value:.2g}"
        if comparison.p_value is not None
        else ""
    )


def _once(comparison: Comparison) -> list[str]:
    if comparison.first.evidence.trainings == comparison.second.evidence.trainings:
        # Of one and the same model.
        return []
    sides = comparison.first, comparison.second
    alone = [side.row.row for side in sides if side.evidence.trained_once]
    if not alone:
        return []
    which = " and ".join(dict.fromkeys(alone))
    return [
        f"{which}: one training. The interval is about the models at hand; what another training of "
        "the same set-up would change is not in it"
    ]


def to_dict(comparison: Comparison) -> dict[str, JsonValue]:
    """The same as data."""
    return {
        "metric": comparison.metric,
        "same_artefacts": comparison.same,
        "rows": {
            name: {
                "row": side.row.row,
                "value": side.pooled.value,
                "judged": side.pooled.judged,
                "expected": side.pooled.expected,
                "runs": len(side.evidence.runs),
                "trainings": side.evidence.count(0) if side.evidence.trains else 0,
                "simulated": [*sorted(side.simulated)],
                "random_weights": side.random_weights,
            }
            for name, side in (("first", comparison.first), ("second", comparison.second))
        },
        "difference": comparison.first.pooled.value - comparison.second.pooled.value
        if comparison.result is None
        else None,
        "paired": asdict(comparison.result) if comparison.result else None,
        "prompts": {
            "both": comparison.shared,
            "only_first": comparison.only_first,
            "only_second": comparison.only_second,
            "first_better": comparison.above,
            "second_better": comparison.below,
        },
        "flips": None
        if comparison.table is None
        else {
            a: dict(zip(VERDICTS, row, strict=True))
            for a, row in zip(VERDICTS, comparison.table, strict=True)
        },
        "sign_test_p": comparison.p_value,
        "lower_bound": comparison.lowest,
        "upper_bound": comparison.highest,
    }
