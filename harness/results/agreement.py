"""Judge replicates: how far a judge agrees with itself when it judges the same outputs again.

Everything here is over the prompts that every judging has judged; how many those are stands beside it.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict, TypeVar

from rich.console import Console

from harness.answer.outputs import OutputRow
from harness.artefact.manifest import MetricValue
from harness.artefact.store import Artefact
from harness.common import numbers
from harness.common.escape import csv_table, markdown
from harness.common.grouping import grouped
from harness.common.hanging import print_hanging
from harness.common.progress import plain
from harness.judge.scores import DRAW, describe, is_judgement
from harness.run.bridging import PromptPlace
from harness.run.plan import RowPlan, StagePlan
from harness.stats.intervals import deviation, mean

ANNOTATIONS = "annotations.json"
PromptVerdict = Literal["win", "draw", "lose"]
Category = TypeVar("Category", bound=Hashable)


class StoredAnnotation(TypedDict, total=False):
    """An object of annotations.json: alpaca_eval's, and what other judges put there in its place."""

    instruction: Required[str]
    input: str
    preference: float | None
    score: float | None
    """In place of a preference, where the judge has a rubric."""
    output_1: str
    """The baseline's, as `generator_1`."""
    generator_1: str
    is_switched: bool
    """Whether the model's output was shown first; None, or absent: not known, or in both orders."""
    preference_raw_completion: object
    """The reply: a text, several, or a choice of a chat completion; as `raw_completion`, which is its
    name before alpaca_eval 0.6."""
    raw_completion: object
    verdicts: list[str | None]
    """In both orders."""
    feedback: str
    inputs: dict[str, str]
    """What the judge was shown beside the output."""


def read_annotations(artefact: Artefact) -> list[StoredAnnotation]:
    """Raises Damaged where the artefact was changed."""
    artefact.check()
    rows: list[StoredAnnotation] = json.loads(
        (artefact.folder / ANNOTATIONS).read_text(encoding="utf-8")
    )
    return rows


@dataclass(frozen=True)
class Agreement:
    """Several judgings of the same outputs. Shares are of `judged_in_all`; None: not defined."""

    row: str
    label: str
    """Which outputs, where the row has several: `train seed 1`."""
    metric: str
    """`win_rate`, whose verdicts are win, draw and lose; or `score`, whose verdicts are scores."""
    judgings: int
    planned: int
    prompts: int
    judged_in_all: int
    values: list[float | None]
    """Of each judging the win rate in percent, or the mean score, over the prompts it judged."""
    standard_errors: list[float | None]
    judged: list[int]
    spread: float | None
    """Sample standard deviation (ddof 1) of `values`."""
    flipped: int
    """Prompts whose verdict is not the same in all judgings."""
    pairwise_flip_rate: float | None
    """Share of prompts with another verdict, mean over the pairs of judgings."""
    kappa: float | None
    """Cohen's; of scores with quadratic weights. Mean over the pairs of judgings."""
    fleiss: float | None
    """Fleiss' kappa; of three or more judgings with verdicts."""
    mean_difference: float | None
    """Of scores: the mean absolute difference, over the pairs of judgings."""
    simulated: str

    @property
    def flip_rate(self) -> float | None:
        return self.flipped / self.judged_in_all if self.judged_in_all else None


def agreement_of(plan: RowPlan) -> list[Agreement]:
    """One for each set of outputs of the row that was judged more than once.

    Raises:
        Damaged: a judge's artefact was changed.
    """
    of_outputs = [stage for stage in plan.final() if "outputs" in stage.inputs]
    groups = grouped(of_outputs, lambda stage: stage.inputs["outputs"].key)
    agreements = []
    for stages in groups.values():
        artefacts = [s.artefact for s in stages if s.artefact is not None]
        if len(artefacts) > 1:
            agreements.append(_agreement(plan, stages, artefacts))
    return agreements


def _agreement(plan: RowPlan, stages: list[StagePlan], artefacts: list[Artefact]) -> Agreement:
    judgings = [read_grades(artefact) for artefact in artefacts]
    metric = "score" if any(is_score for is_score, _ in judgings) else "win_rate"
    judged_grades = [{k: v for k, v in grades.items() if v is not None} for _, grades in judgings]
    prompts = list(dict.fromkeys(itertools.chain.from_iterable(g for _, g in judgings)))
    in_all = [p for p in prompts if all(p in grades for grades in judged_grades)]
    means = [
        _score_of(a, metric, grades) for a, grades in zip(artefacts, judged_grades, strict=True)
    ]
    values = [score.value for score in means]
    aligned = [[grades[p] for p in in_all] for grades in judged_grades]
    verdicts: list[list[Any]] = (
        aligned if metric == "score" else [[verdict_of(g) for g in grades] for grades in aligned]
    )
    kappa = weighted_kappa if metric == "score" else cohens_kappa
    pairs = list(itertools.combinations(verdicts, 2))
    counted = max(a.manifest.counts.get("prompts", 0) for a in artefacts)
    return Agreement(
        row=plan.row.row,
        label=stages[0].inputs["outputs"].label,
        metric=metric,
        judgings=len(artefacts),
        planned=len(stages),
        prompts=max(len(prompts), counted),
        judged_in_all=len(in_all),
        values=values,
        standard_errors=[score.standard_error for score in means],
        judged=[score.judged or 0 for score in means],
        spread=deviation([v for v in values if v is not None]),
        flipped=sum(
            len(set(prompt_verdicts)) > 1 for prompt_verdicts in zip(*verdicts, strict=True)
        ),
        pairwise_flip_rate=mean([_share_different(a, b) for a, b in pairs]),
        kappa=mean([kappa(a, b) for a, b in pairs]),
        fleiss=fleiss_kappa(verdicts) if len(artefacts) > 2 and metric != "score" else None,
        mean_difference=mean([_distance(a, b) for a, b in pairs]) if metric == "score" else None,
        simulated="; ".join(sorted({s for a in artefacts for s in a.manifest.simulated})),
    )


def read_grades(
    artefact: Artefact, part: str | None = None
) -> tuple[bool, dict[PromptPlace, float | None]]:
    """Whether they are scores, and the preference or score in each place; None: unjudged. `part`: of
    these alone, `turn_1`, a category or a prompt set."""
    rows = read_annotations(artefact)
    if part is not None:
        rows = [row for row in rows if part in _parts_of(row)]
    is_score = any("score" in row and "preference" not in row for row in rows)
    grades: dict[PromptPlace, float | None] = {}
    places: Counter[tuple[str, str]] = Counter()
    for row in rows:
        grade = row.get("score") if is_score else row.get("preference")
        is_judged = grade is not None and (is_score or is_judgement(grade))
        prompt = prompt_of(row)
        grades[*prompt, places[prompt]] = grade if is_judged else None
        places[prompt] += 1
    return is_score, grades


def _parts_of(row: Mapping[str, object]) -> set[str]:
    return {f"turn_{row.get('turn')}", str(row.get("category")), str(row.get("dataset"))}


def prompt_of(row: StoredAnnotation | OutputRow) -> tuple[str, str]:
    """Instruction and input, by which an output and its judgements are found."""
    return row["instruction"], row.get("input") or ""


def verdict_of(preference: float) -> PromptVerdict:
    """The discrete verdict for the model; older annotations write a draw as 0."""
    preference = preference or DRAW
    return "draw" if preference == DRAW else "win" if preference > DRAW else "lose"


def _score_of(artefact: Artefact, metric: str, grades: Mapping[PromptPlace, float]) -> MetricValue:
    """What the matrix says of one judging; from its annotations where its manifest has no score."""
    name = "rubric_score" if metric == "score" else metric
    score = artefact.manifest.metrics.get(name)
    if score is not None:
        return score
    value, error = _mean(metric, list(grades.values()))
    return MetricValue(value=value, standard_error=error, judged=len(grades))


def _mean(metric: str, grades: list[float]) -> tuple[float | None, float | None]:
    """Value and standard error of one judging: the win rate, or the mean score."""
    if metric == "win_rate":
        described = describe(grades)
        return described["win_rate"], described["standard_error"]
    spread = deviation(grades)
    error = None if spread is None else spread / math.sqrt(len(grades))
    return mean(grades), error


def cohens_kappa(first: Sequence[Category], second: Sequence[Category]) -> float | None:
    """Agreement of two judgings beyond chance: (po - pe) / (1 - pe), with po the share of prompts on
    which they agree and pe the sum over categories of the product of both shares (Cohen 1960, A
    coefficient of agreement for nominal scales, Educational and Psychological Measurement 20).

    None where it is not defined: no prompts, or both put all of them into one and the same category.
    """
    n = len(first)
    same: int = sum(a == b for a, b in zip(first, second, strict=True))
    first_counts, second_counts = Counter(first), Counter(second)
    by_chance = sum(first_counts[category] * second_counts[category] for category in first_counts)
    if by_chance == n * n:
        return None
    return (same * n - by_chance) / (n * n - by_chance)


def weighted_kappa(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Cohen's kappa with quadratic weights: 1 minus the mean squared difference of the two scores
    over the one expected by chance, each of one judging against each of the other (Cohen 1968,
    Weighted kappa, Psychological Bulletin 70). None where all scores are the same.
    """
    n = len(first)
    observed = math.fsum((a - b) ** 2 for a, b in zip(first, second, strict=True)) / max(n, 1)
    first_counts, second_counts = Counter(first), Counter(second)
    expected = math.fsum(
        count * other * (a - b) ** 2
        for a, count in first_counts.items()
        for b, other in second_counts.items()
    )
    return 1 - observed / (expected / n**2) if expected else None


def fleiss_kappa(verdicts: Sequence[Sequence[Category]]) -> float | None:
    """Agreement of r judgings of n prompts beyond chance: (P - Pe) / (1 - Pe), with P the mean over
    prompts of the share of agreeing pairs of judgings, and Pe the sum of the squared shares of the
    categories (Fleiss 1971, Measuring nominal scale agreement among many raters, Psychological
    Bulletin 76). None where it is not defined: no prompts, or one category only.
    """
    r, n = len(verdicts), len(verdicts[0]) if verdicts else 0
    counts = [Counter(prompt_verdicts) for prompt_verdicts in zip(*verdicts, strict=True)]
    totals = Counter(itertools.chain.from_iterable(verdicts))
    if len(totals) < 2 or r < 2:
        return None
    agreeing = sum(c * (c - 1) for count in counts for c in count.values()) / (n * r * (r - 1))
    by_chance = sum(c * c for c in totals.values()) / (n * r) ** 2
    return (agreeing - by_chance) / (1 - by_chance)


def _share_different(first: Sequence[object], second: Sequence[object]) -> float | None:
    return mean([a != b for a, b in zip(first, second, strict=True)])


def _distance(first: Sequence[float], second: Sequence[float]) -> float | None:
    return mean([abs(a - b) for a, b in zip(first, second, strict=True)])


def sentences(agreement: Agreement) -> list[str]:
    """What a person reads of it, the first line naming what it is about."""
    a = agreement
    label = f" ({a.label})" if a.label else ""
    of = f" of {a.planned} planned" if a.planned != a.judgings else ""
    marked = f"; simulated: {a.simulated}" if a.simulated else ""
    first = (
        f"row {a.row}{label}: {a.judgings}{of} judgings of the same {a.prompts} outputs, "
        f"{a.judged_in_all} judged in all{marked}"
    )
    if not a.judged_in_all:
        return [first, *_values(a)]
    what = "score" if a.metric == "score" else "verdict (win, draw, lose)"
    flips = f"another {what}: {numbers.out_of(a.flipped, a.judged_in_all)} prompts "
    flips += f"({numbers.percent(a.flipped, a.judged_in_all)})"
    if a.judgings > 2 and a.pairwise_flip_rate is not None:
        flips += f"; between two judgings {numbers.percent(a.pairwise_flip_rate)} on average"
    name = "quadratically weighted kappa" if a.metric == "score" else "Cohen's kappa"
    pairs = math.comb(a.judgings, 2)
    over = f" (mean of {pairs} pairs)" if pairs > 1 else ""
    kappa = f"{name} {a.kappa:.3f}{over}" if a.kappa is not None else f"{name} {NOT_DEFINED}"
    if a.fleiss is not None:
        kappa += f"; Fleiss' kappa {a.fleiss:.3f}"
    if a.mean_difference is not None:
        kappa += f"; mean absolute difference {a.mean_difference:.3f}"
    return [first, flips, kappa, *_values(a)]


def _values(a: Agreement) -> list[str]:
    each = [
        (numbers.number(value) or "none")
        + numbers.error(error)
        + f" ({numbers.out_of(judged, a.prompts, '/')})"
        for value, error, judged in zip(a.values, a.standard_errors, a.judged, strict=True)
    ]
    spread = f"; sd between judgings {numbers.number(a.spread)}" if a.spread is not None else ""
    return [f"{a.metric} of each judging: {', '.join(each)}{spread}"]


def show_agreement(console: Console, agreements: Sequence[Agreement]) -> None:
    for agreement in agreements:
        first, *rest = sentences(agreement)
        print_hanging(console, plain(first))
        for line in rest:
            print_hanging(console, f"  {plain(line)}")


def to_markdown(agreements: Sequence[Agreement]) -> str:
    """A section of a markdown page; empty where there is none."""
    if not agreements:
        return ""
    parts = ["", "## Judge replicates", "", EXPLANATION]
    for agreement in agreements:
        first, *rest = map(markdown, sentences(agreement))
        parts += ["", f"- {first}", *(f"  - {line}" for line in rest)]
    return "\n".join(parts) + "\n"


NOT_DEFINED = "not defined: two judgings say one and the same throughout"
EXPLANATION = (
    "The same outputs judged again: how often the judge changes its verdict. All over the prompts "
    "that every judging has judged. Kappa is agreement beyond chance: 1 is perfect, 0 is chance."
)


COLUMNS = (
    "row", "label", "metric", "judgings", "planned", "prompts", "judged_in_all", "flipped",
    "flip_rate", "pairwise_flip_rate", "cohens_kappa", "weighted_kappa", "fleiss_kappa",
    "mean_absolute_difference", "values", "standard_errors", "judged", "sd", "simulated",
)  # fmt: skip


def to_csv(agreements: Sequence[Agreement]) -> str:
    """Full precision; of each judging's figures the list stands in one cell, apart by a space."""
    return csv_table(COLUMNS, map(_cells, agreements))


def _cells(a: Agreement) -> list[float | str | None]:
    is_score = a.metric == "score"
    lists = [
        " ".join("-" if v is None else repr(v) for v in values)
        for values in (a.values, a.standard_errors, a.judged)
    ]
    return [
        a.row, a.label, a.metric, a.judgings, a.planned, a.prompts, a.judged_in_all, a.flipped,
        a.flip_rate, a.pairwise_flip_rate, None if is_score else a.kappa,
        a.kappa if is_score else None, a.fleiss, a.mean_difference, *lists, a.spread, a.simulated,
    ]  # fmt: skip
