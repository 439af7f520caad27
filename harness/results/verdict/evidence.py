"""What a verdict rests on: the runs of a row that scored it, and each one's grades per prompt."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.artefact.keys import digest_of
from harness.artefact.manifest import MetricValue
from harness.artefact.metrics import METRICS, TASKS, metric_of
from harness.artefact.store import Artefact
from harness.common.text_files import read_lines
from harness.judge.kinds.lm_eval.benchmarks import BENCHMARKS, MMLU, benchmark_of
from harness.judge.kinds.lm_eval.catalogue import responses_file
from harness.judge.scores import BASELINE, DRAW
from harness.results.agreement import ANNOTATIONS, read_grades
from harness.results.losses import BITS
from harness.row.rejudged import WIN_RATE
from harness.row.row import Row
from harness.run.plan import StagePlan
from harness.stats.intervals import Range
from harness.stats.variance import Grades, Index

RATING = "rating"
PARTS = (RATING, WIN_RATE)
"""Metrics of which a part is told apart by the annotations: a turn, a category, a prompt set."""
LOSSES = "losses.jsonl"
GRADED = (WIN_RATE, "winning_score", "rubric_score", RATING, *BENCHMARKS)
"""Metrics of which a grade is kept for each prompt or question."""
LossPlace = tuple[str, int, int]
"""A set of held-out examples, the number of one, its answer's tokens."""
TaskQuestion = tuple[str, int]
"""One of lm-eval's tasks, and the number of a question of it."""


@dataclass(frozen=True)
class ScoredRun:
    """One replicate's score: the judge's artefact, or of a loss the training's."""

    stage: StagePlan
    metric: MetricValue

    @property
    def value(self) -> float:
        assert self.metric.value is not None
        return self.metric.value


@dataclass(frozen=True)
class Evidence:
    """Every run of a row that gives a metric."""

    runs: dict[Index, ScoredRun]
    bounds: Range | None
    """The lowest and highest that the score can be; None: not known."""
    trainings: tuple[str, ...]
    """Keys of the trained models that were scored; empty where the row trains none."""
    samples: bool
    """Whether another sampling seed could give other answers."""
    judges: bool
    """Whether the judge can be asked again."""
    grades: dict[Index, Grades] = field(default_factory=dict)
    """Of each run, in units of the score, of the prompts that were judged; empty where they were not
    asked for."""
    prompts: frozenset[Any] = frozenset()
    """All that the runs with grades were asked, the unjudged ones too."""
    is_stratified: bool = False
    """Whether the score is the mean of several parts' means, see `strata_of`."""
    item: str = "prompt"
    """What the score is a mean over, in a word: see `item_of`."""

    @property
    def trains(self) -> bool:
        """Whether a training of the row's own decides the score."""
        return bool(self.trainings)

    @property
    def trained_once(self) -> bool:
        """Whether what trainings differ by is not known."""
        return self.trains and self.count(0) == 1

    def count(self, depth: int) -> int:
        """Different trainings (0), samplings (1) or judgings (2) in all."""
        return len({index[: depth + 1] for index in self.runs})

    @property
    def counts(self) -> tuple[float, float, float]:
        """Trainings, samplings of each, judgings of each of these; the last two on average."""
        a, b, c = map(self.count, range(3))
        return a, b / a, c / b


def bounds_of(row: Row, metric: str) -> Range | None:
    """The range of a metric's values."""
    of_all = metric_of(metric)
    if of_all.lowest is not None and of_all.highest is not None:
        return of_all.lowest, of_all.highest
    return row.judge.range_of(of_all.name) if row.judge else None


def gather(
    row: Row, metric: str, planned: Sequence[StagePlan], every_grade: bool = False
) -> Evidence | None:
    """The runs among `planned` (judge stages; of a loss, train stages) that give the metric, and
    where there are several, or with `every_grade`, also their grades; None where none does.

    Raises:
        Damaged: a judge's artefact was changed.
    """
    runs: dict[Index, ScoredRun] = {}
    trainings: dict[str, int] = {}
    samplings: dict[tuple[str, str], int] = {}
    for stage in planned:
        score = stage.artefact.manifest.metrics.get(metric) if stage.artefact else None
        if score is None or score.value is None:
            continue
        answer = stage.inputs.get("outputs")
        model = stage if stage.stage == "train" else (answer or stage).inputs.get("model")
        trained = model.key if model else ""
        a = trainings.setdefault(trained, len(trainings))
        sampled = trained, answer.key if answer else ""
        b = samplings.setdefault(sampled, sum(sampling[0] == trained for sampling in samplings))
        c = sum(index[:2] == (a, b) for index in runs)
        runs[a, b, c] = ScoredRun(stage, score)
    if not runs:
        return None
    grades: dict[Index, Grades] = {}
    prompts: set[Any] = set()
    kept = is_graded(metric) and (len(runs) > 1 or every_grade)
    if kept or (every_grade and metric_of(metric).is_loss):
        for index, run in runs.items():
            all_grades = grades_of(run.stage.made, metric)
            prompts.update(all_grades)
            grades[index] = {p: grade for p, grade in all_grades.items() if grade is not None}
        if metric not in GRADED and not all(grades.values()):
            grades = {}
    return Evidence(
        runs,
        bounds_of(row, metric),
        tuple(key for key in trainings if key),
        samples=row.answer is not None and row.answer.is_sampled,
        judges=row.answer is not None,
        grades=grades,
        prompts=frozenset(prompts),
        is_stratified=metric == MMLU,
        item=item_of(metric),
    )


def item_of(metric: str) -> str:
    """What a judge judges, a task asks, or a loss is of."""
    kind, slash, _ = metric.partition("/")
    if metric_of(metric).is_loss:
        return "example"
    return "question" if kind in TASKS or (slash and kind not in METRICS) else "prompt"


def is_graded(metric: str) -> bool:
    """Whether grades may be kept: also of a rating's parts, a prompt set's win rate, and lm-eval's
    `TASK/METRIC`."""
    kind, slash, _ = metric.partition("/")
    return metric in GRADED or (bool(slash) and (kind in PARTS or kind not in METRICS))


def grades_of(artefact: Artefact, metric: str) -> dict[Any, float | None]:
    """Prompt or question -> grade in units of the score; None: unjudged. Empty where none is kept.

    Raises:
        Damaged: the artefact was changed.
    """
    if metric in BENCHMARKS:
        return dict(_of_task(artefact, metric))
    if metric_of(metric).is_loss:
        return dict(_of_loss(artefact, metric))
    task, slash, of_task = metric.partition("/")
    if slash and task not in PARTS:
        return _of_package_task(artefact, metric, task, of_task)
    if not artefact.keeps(ANNOTATIONS):
        return {}
    is_score, grades = read_grades(artefact, of_task or None)
    if is_score or metric == "rubric_score":
        return dict(grades)
    unit = metric_of(metric).highest or 0
    return {
        # Older annotations write a draw as 0.
        place: None if grade is None else unit * ((grade or DRAW) - BASELINE)
        for place, grade in grades.items()
    }


def _of_task(artefact: Artefact, task: str) -> Iterator[tuple[TaskQuestion, float]]:
    """Each question's score in percent, from lm-eval's samples."""
    artefact.check()
    for path in sorted(artefact.folder.glob("samples_*.jsonl")):
        unit = path.stem.removeprefix("samples_")
        if benchmark_of(unit) != task:
            continue
        for line in read_lines(path):
            sample = json.loads(line)
            yield (unit, sample["doc_id"]), 100 * sample[BENCHMARKS[task].metric]


def _of_package_task(
    artefact: Artefact, metric: str, task: str, of_task: str
) -> dict[Any, float | None]:
    """Each question's score, from lm-eval's responses; empty where the task's score is no mean of
    theirs, as an F1 or a group's is not."""
    name = responses_file(task)
    score = artefact.manifest.metrics.get(metric)
    if score is None or score.value is None or not artefact.keeps(name):
        return {}
    artefact.check()
    scale = 100 if metric_of(metric).is_percentage else 1
    grades: dict[Any, float | None] = {}
    for line in read_lines(artefact.folder / name):
        row = json.loads(line)
        grade = row["scores"].get(of_task)
        if not isinstance(grade, int | float):
            return {}
        grades[task, row["doc_id"]] = scale * float(grade)
    mean = math.fsum(g for g in grades.values() if g is not None) / max(1, len(grades))
    return grades if math.isclose(mean, score.value, rel_tol=1e-6, abs_tol=1e-6) else {}


def _of_loss(artefact: Artefact, metric: str) -> Iterator[tuple[LossPlace, float]]:
    """What each held-out example adds to a judge's loss, so that their mean is the loss: its nats over
    the mean number of tokens (of bits per byte: its bits over that of bytes). Examples of as many
    tokens in the same set are the same ones."""
    if not artefact.keeps(LOSSES):
        return
    artefact.check()
    rows = [json.loads(line) for line in read_lines(artefact.folder / LOSSES)]
    measured = [row for row in rows if row["tokens"]]
    unit, scale = ("bytes", math.log(2)) if metric == BITS else ("tokens", 1.0)
    total = sum(row[unit] for row in measured)
    if not total:
        return
    examples = digest_of(artefact.manifest.document["params"]["judge"]["examples"])
    for row in measured:
        place = examples, row["index"], row["tokens"]
        yield place, row["nats"] / scale * len(measured) / total


def strata_of(metric: str, places: Sequence[Any]) -> list[str] | None:
    """What each place belongs to, where the score is the plain mean of several parts' means: MMLU's
    subjects; else None."""
    return [unit for unit, _ in places] if metric == MMLU else None


def served_models(evidence: Evidence) -> frozenset[str]:
    """What servers called the models that judged."""
    return served_of(run.stage for run in evidence.runs.values())


def served_of(stages: Iterable[StagePlan]) -> frozenset[str]:
    """What servers called the models that judge stages asked, as far as these are there."""
    used = [stage.artefact.manifest.used for stage in stages if stage.artefact is not None]
    return frozenset(model for each in used for model in each.get("served_models", ()))
