"""lm-eval's files, of its present and its old form and of the first Open LLM Leaderboard, as one."""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from harness.audit.model import agreeing_digits
from harness.audit.parse.files import JsonObject, Unreadable, number, read_lines
from harness.judge.kinds.lm_eval.benchmarks import BENCHMARKS, MMLU, PREFIX

_DATE = r"\d{4}-\d{2}-\d{2}T[\d.:+-]+"
_RESULTS = re.compile(rf"results(?:_({_DATE}))?\.json$", re.IGNORECASE)
_SAMPLES = re.compile(rf"^samples_(.+?)(?:_({_DATE}))?\.jsonl$", re.IGNORECASE)
_BOARD = re.compile(r"^harness\|(.+)\|(\d+)$")
_OLD_MMLU = re.compile(r"^(?:hendrycksTest[-_]|mmlu[:_-])(.+)$")
MMLU_PARTS = ("mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities")
"""Groups of MMLU's subjects, named like subjects."""
OLD_NAMES = {"arc:challenge": "arc_challenge", "truthfulqa:mc": "truthfulqa_mc"}
SURE_DIGITS = 8
"""Decimals to which a score must agree before the way it was made is taken as known."""
MEANS = ("acc", "acc_norm", "mc1", "mc2", "exact_match")
"""Metrics that are means over questions, whatever the task."""


_PASS_AT = re.compile(r"pass@\d+")


def _ratio(pairs: Sequence[Any]) -> float:
    return math.fsum(value for value, _ in pairs) / math.fsum(weight for _, weight in pairs)


FORMULAS: Mapping[str, Callable[[Sequence[Any]], float]] = {
    "mean": fmean,
    "median": median,
    "perplexity": lambda values: math.exp(-fmean(values)),
    "weighted_perplexity": lambda pairs: math.exp(-_ratio(pairs)),
    "bits_per_byte": lambda pairs: -_ratio(pairs) / math.log(2),
    "mean of all parts": lambda lists: fmean(value for parts in lists for value in parts),
}
"""lm-eval's ways to make a score of the values of its questions, by its own names; the last is that of
instructions, of which each question has several."""


@dataclass
class LmEvalTask:
    """One task's numbers. scores: (metric, filter) -> its mean; errors: their standard errors.
    judged: questions that were asked; expected: those that there are; shots: examples shown."""

    name: str
    scores: dict[tuple[str, str], float] = field(default_factory=dict)
    errors: dict[tuple[str, str], float] = field(default_factory=dict)
    judged: int | None = None
    expected: int | None = None
    shots: int | None = None
    version: Any = None
    means: frozenset[str] = frozenset(MEANS)
    """Metrics that are plain means, by the task's own configuration."""
    formulas: dict[str, str] = field(default_factory=dict)
    """Metric -> how its questions' values make the score, where that is one of FORMULAS."""
    filters: tuple[str, ...] = ()
    """Its filters in the order in which lm-eval writes their lines."""

    @property
    def benchmark(self) -> str:
        """The leaderboard's name of what this is, or is a part of."""
        if self.name.startswith(PREFIX):
            return MMLU
        return "truthfulqa_mc2" if self.name == "truthfulqa_mc" else self.name


@dataclass
class LmEvalRun:
    """One results file. groups: group -> its tasks, all the way down. settings: how it was run."""

    path: Path
    tasks: dict[str, LmEvalTask]
    groups: dict[str, list[str]]
    limit: float | None
    model: str
    settings: dict[str, object]
    samples: dict[str, Path] = field(default_factory=dict)
    absent: dict[tuple[str, str, str], float | None] = field(default_factory=dict)
    """(task, metric, filter) -> what is stored where a number belongs: NaN, an infinity or null."""
    empty: list[str] = field(default_factory=list)
    """Tasks of which no metric is stored at all."""

    @property
    def leaves(self) -> list[LmEvalTask]:
        """Its tasks: a group's own numbers are those of its tasks."""
        return [task for name, task in self.tasks.items() if name not in self.groups]


def is_results(value: Any) -> bool:
    """By its content, whatever the file is called."""
    if not isinstance(value, dict):
        return False
    results = value.get("results")
    if not isinstance(results, dict) or not results:
        return False
    tasks = [r for r in results.values() if isinstance(r, dict)]
    if value.keys() & {"versions", "n-shot", "config_general"}:
        # NaN too: that it is no number is what there is to tell.
        values = [v for task in tasks for v in task.values()]
        return any(number(v) is not None or isinstance(v, float) for v in values)
    return bool(value.keys() & {"configs", "config"}) and any(
        _split(k)[0] in MEANS or "_stderr" in k for task in tasks for k in task
    )


def read_run(path: Path, value: JsonObject) -> LmEvalRun:
    """Raises Unreadable: no task of it has a metric."""
    config = value.object("config") or value.object("config_general")
    run = LmEvalRun(
        path, {}, {}, config.number("limit"), _model(value, config), _settings(value, config)
    )
    subtasks = value.object("group_subtasks")
    for name in subtasks:
        if subtasks.entries(name):
            run.groups[name] = list(_leaves(name, subtasks, set()))
    results, empty = value.object("results"), []
    for name, numbers in results.items():
        if not isinstance(numbers, dict):
            continue
        plain, shots = _plain_name(str(name))
        task = LmEvalTask(plain, shots=shots, version=value.object("versions").get(name))
        for key, stored in numbers.items():
            (metric, filter_name), figure = _split(key), number(stored)
            if figure is None:
                if (stored is None or isinstance(stored, float)) and "_stderr" not in metric:
                    run.absent[plain, metric, filter_name] = stored
            elif metric.endswith("_stderr"):
                task.errors[metric.removesuffix("_stderr"), filter_name] = figure
            elif metric not in ("alias", "name", "sample_len", "sample_count"):
                task.scores[metric, filter_name] = figure
        _configure(task, name, value, config)
        if task.scores:
            run.tasks[plain] = task
        elif not any(of == plain for of, _, _ in run.absent):
            empty.append(plain)
    if not run.tasks and not any(isinstance(stored, float) for stored in run.absent.values()):
        raise Unreadable("none of its tasks has a metric")
    # Groups that older files do not list as such.
    for name in (*value.object("groups"), *MMLU_PARTS):
        if name in run.tasks:
            run.groups.setdefault(name, [])
    if MMLU in run.tasks and not run.groups.get(MMLU):
        subjects = [n for n, t in run.tasks.items() if t.benchmark == MMLU]
        run.groups[MMLU] = [n for n in subjects if n != MMLU and n not in run.groups]
    # A group may have its tasks' numbers alone.
    for name in empty:
        if name not in run.groups and not any(task.startswith(f"{name}_") for task in run.tasks):
            run.empty.append(name)
    return run


def _configure(task: LmEvalTask, name: str, value: JsonObject, config: JsonObject) -> None:
    """How many questions and shots there were, and how the file says that scores are made."""
    count = value.object("n-samples").object(name)
    sample_len = value.object("results").object(name).get("sample_len")
    task.judged = _count(count.get("effective", sample_len))
    task.expected = _count(count.get("original"))
    task_config = value.object("configs").object(name)
    if task.shots is None:
        stated = task_config.get("num_fewshot", config.get("num_fewshot"))
        task.shots = _count(value.object("n-shot").get(name, stated), 0)
    metrics = task_config.objects("metric_list")
    scored = {metric for metric, _ in task.scores}
    is_mean = [m.get("aggregation") == "mean" for m in metrics]
    named_means = (m for m, mean in zip(metrics, is_mean, strict=True) if mean and "metric" in m)
    task.means |= {str(m["metric"]) for m in named_means}
    if metrics and all(is_mean):
        # Metrics that are functions have another name here than in the results.
        task.means |= scored
    task.means |= {metric for metric in scored if _PASS_AT.fullmatch(metric)}
    task.formulas = dict.fromkeys(task.means, "mean") | {
        str(m.get("metric")): str(m["aggregation"])
        for m in metrics
        if m.get("aggregation") in FORMULAS
    }
    filters = tuple(dict.fromkeys(filter_name for _, filter_name in task.scores))
    names = tuple(str(f.get("name")) for f in task_config.objects("filter_list"))
    task.filters = names if sorted(names) == sorted(filters) else filters


def find_samples(run: LmEvalRun, files: Sequence[Path], results: Collection[Path] = ()) -> None:
    """The files with the run's questions: in its folder, and of its time where there are several.

    results: results files, whatever they are called.
    """
    match = _RESULTS.search(run.path.name)
    date = match[1] if match else None
    beside = [p for p in {*files, *results} if p.parent == run.path.parent]
    results_beside = [p for p in beside if p in results or _RESULTS.search(p.name)]
    samples_by_task: dict[str, list[tuple[Path, str | None]]] = {}
    for path in files:
        sample_match = _SAMPLES.match(path.name)
        if sample_match and path.parent == run.path.parent:
            samples_by_task.setdefault(sample_match[1], []).append((path, sample_match[2]))
    for name, paths in samples_by_task.items():
        same = [p for p, when in paths if when == date]
        if same or (len(paths) == 1 and len(results_beside) < 2):
            run.samples[_plain_name(name)[0]] = same[0] if same else paths[0][0]


def read_samples(path: Path) -> list[JsonObject]:
    """Raises Unreadable."""
    rows = read_lines(path)
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise Unreadable("it holds no questions")
    return [JsonObject(row) for row in rows]


def name_filters(rows: Sequence[JsonObject], filters: Sequence[str]) -> bool:
    """Before 0.4.3 lm-eval did not write to a line which filter it is of: of each question the first
    line is the first filter's. Sets `filter` by that; False where the lines are not so many."""
    if len(filters) < 2 or any("filter" in row for row in rows):
        return True
    lines: dict[str, list[JsonObject]] = {}
    for row in rows:
        lines.setdefault(str(row.get("doc_id")), []).append(row)
    if any(len(question_lines) != len(filters) for question_lines in lines.values()):
        return False
    for question_lines in lines.values():
        for row, filter_name in zip(question_lines, filters, strict=True):
            row["filter"] = filter_name
    return True


def stored_values(
    rows: Sequence[JsonObject], metric: str, filter_name: str
) -> tuple[list[Any], int]:
    """A metric's values of the questions that have one, and how many questions there are."""
    raw_values = [row.get(metric) for row in rows if row.get("filter", filter_name) == filter_name]
    values = []
    for stored in raw_values:
        try:
            values.append(_value(stored))
        except (TypeError, ValueError):
            continue
    return values, len(raw_values)


def recomputed_score(
    values: Sequence[Any], task: LmEvalTask, metric: str, filter_name: str
) -> float | None:
    """A score from what is stored of the questions: as the task's configuration says, else in the one
    way of FORMULAS that gives what is printed. None where there is none."""
    printed, how = task.scores[metric, filter_name], task.formulas.get(metric)
    for formula in (FORMULAS[how],) if how else FORMULAS.values():
        try:
            value = formula(values)
        except (ArithmeticError, TypeError, ValueError):
            continue
        if how or agreeing_digits(printed, value) >= SURE_DIGITS:
            return value
    return None


def _value(stored: Any) -> Any:
    """Raises TypeError: it is no number, and no list of them."""
    if isinstance(stored, list):
        return [_value(part) for part in stored]
    value = number(float(stored) if isinstance(stored, bool) else stored)
    if value is None:
        raise TypeError
    return value


def leaderboard_score(task: LmEvalTask) -> tuple[str, float] | None:
    """The score by which the leaderboard knows a task; None where the file does not have it."""
    benchmark = BENCHMARKS.get(task.benchmark)
    metric = "mc2" if task.name == "truthfulqa_mc" else benchmark.metric if benchmark else ""
    return next(((m, score) for (m, _), score in task.scores.items() if m == metric), None)


def main_score(task: LmEvalTask) -> tuple[str, float]:
    """The leaderboard's metric of a task, else its first."""
    (metric, _), score = next(iter(task.scores.items()))
    return leaderboard_score(task) or (metric, score)


def repeated(rows: Sequence[JsonObject]) -> int:
    """Lines about a question that another line is about (by its number and filter)."""
    keys = [(row.get("doc_id"), row.get("filter")) for row in rows if "doc_id" in row]
    return len(keys) - len(set(map(str, keys)))


def wrong_answers(rows: Sequence[JsonObject]) -> list[Any]:
    """Numbers of questions whose stored `acc` is not what their log-likelihoods say: 1 where the
    right choice is the likeliest. Only where the right choice is a number."""
    wrong = []
    for row in rows:
        target, replies, acc = row.number("target"), row.entries("filtered_resps"), row.get("acc")
        if target is None or acc not in (0, 1) or len(replies) < 2:
            continue
        pairs = [reply for reply in replies if isinstance(reply, list) and len(reply) == 2]
        likely = [ll for pair in pairs if (ll := number(pair[0])) is not None]
        if len(likely) != len(replies) or not 0 <= target < len(likely):
            continue
        best = max(likely)
        # A tie may be broken either way.
        if likely.count(best) == 1 and (likely.index(best) == int(target)) != bool(acc):
            wrong.append(row.get("doc_id"))
    return wrong


def _split(key: str) -> tuple[str, str]:
    metric, _, filter_name = str(key).partition(",")
    return metric, filter_name or "none"


def _plain_name(name: str) -> tuple[str, int | None]:
    """`harness|arc:challenge|25`: arc_challenge with 25 shots; MMLU's subjects as lm-eval has them."""
    board = _BOARD.match(name)
    plain, shots = (board[1], int(board[2])) if board else (name, None)
    plain = OLD_NAMES.get(plain, plain)
    subject = _OLD_MMLU.match(plain)
    return (f"{PREFIX}{subject[1]}" if subject else plain), shots


def _leaves(name: str, groups: JsonObject, visited: set[str]) -> Iterator[str]:
    if not groups.entries(name):
        yield _plain_name(name)[0]
    for part in groups.entries(name):
        if isinstance(part, str) and part not in visited:
            visited.add(part)
            yield from _leaves(part, groups, visited)


def _settings(value: JsonObject, config: JsonObject) -> dict[str, object]:
    """What else may differ between two runs that are compared."""
    arguments = config.object("model_args")
    pairs = (part.partition("=") for part in (config.text("model_args") or "").split(","))
    arguments.update({name.strip(): setting.strip() for name, _, setting in pairs})
    quantised = (n for n in ("load_in_4bit", "load_in_8bit") if arguments.get(n))
    settings = {
        "precision": config.get("model_dtype") or arguments.get("dtype"),
        "quantisation": next(quantised, None),
        "chat template": None,
        "system prompt": value.get("system_instruction_sha"),
        "few-shot seed": config.get("fewshot_seed"),
    }
    if "chat_template" in value:
        # Each model has its own: what differs is whether it was used.
        settings["chat template"] = "used" if value["chat_template"] else "not used"
    return {name: setting for name, setting in settings.items() if setting is not None}


def _model(value: JsonObject, config: JsonObject) -> str:
    name = value.get("model_name") or config.get("model_name")
    if isinstance(name, str) and name:
        return name
    arguments = config.get("model_args")
    if isinstance(arguments, dict):
        arguments = ",".join(f"{k}={v}" for k, v in arguments.items())
    for key in ("peft", "pretrained", "model"):
        match = re.search(rf"(?:^|,){key}=([^,]+)", str(arguments or ""))
        if match:
            return match[1]
    return str(config.get("model") or "")


def _count(value: Any, least: int = 1) -> int | None:
    count = number(value)
    return int(count) if count is not None and count >= least and count == int(count) else None
