"""lm-eval's files, of its present and its old form and of the first Open LLM Leaderboard, as one."""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from harness.audit.model import agreeing_digits
from harness.audit.parse.files import Unreadable, read_lines
from harness.audit.parse.settings import number
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
    settings: dict[str, Any]
    samples: dict[str, Path] = field(default_factory=dict)
    absent: dict[tuple[str, str, str], float | None] = field(default_factory=dict)
    """(task, metric, filter) -> what is stored where a number belongs: NaN, an infinity or null."""
    empty: list[str] = field(default_factory=list)
    """Tasks of which no metric is stored at all."""


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
        return any(
            number(v) is not None or isinstance(v, float) for task in tasks for v in task.values()
        )
    return bool(value.keys() & {"configs", "config"}) and any(
        _split(k)[0] in MEANS or "_stderr" in k for task in tasks for k in task
    )


def read_run(path: Path, value: dict[str, Any]) -> LmEvalRun:
    """Raises Unreadable: no task of it has a metric."""
    shots, counts = _dict(value, "n-shot"), _dict(value, "n-samples")
    configs, versions = _dict(value, "configs"), _dict(value, "versions")
    config = _dict(value, "config") or _dict(value, "config_general")
    groups = {
        name: list(_leaves(name, _dict(value, "group_subtasks"), set()))
        for name, parts in _dict(value, "group_subtasks").items()
        if isinstance(parts, list) and parts
    }
    tasks = {}
    absent: dict[tuple[str, str, str], float | None] = {}
    empty = []
    for name, numbers in value["results"].items():
        if not isinstance(numbers, dict):
            continue
        plain, name_shots = _plain_name(str(name))
        task = LmEvalTask(plain, version=versions.get(name))
        for key, stored in numbers.items():
            (metric, filter_name), figure = _split(key), number(stored)
            if figure is None:
                if (stored is None or isinstance(stored, float)) and "_stderr" not in metric:
                    absent[plain, metric, filter_name] = stored
            elif metric.endswith("_stderr"):
                task.errors[metric.removesuffix("_stderr"), filter_name] = figure
            elif metric not in ("alias", "name", "sample_len", "sample_count"):
                task.scores[metric, filter_name] = figure
        count = _dict(counts, name)
        task.judged = _count(count.get("effective", numbers.get("sample_len")))
        task.expected = _count(count.get("original"))
        task_config = _dict(configs, name)
        stated_shots = shots.get(name, task_config.get("num_fewshot", config.get("num_fewshot")))
        task.shots = name_shots if name_shots is not None else _count(stated_shots, 0)
        listed = task_config.get("metric_list")
        metric_configs = [
            m for m in (listed if isinstance(listed, list) else ()) if isinstance(m, dict)
        ]
        task.means |= _means(task_config)
        if metric_configs and all(m.get("aggregation") == "mean" for m in metric_configs):
            # Metrics that are functions have another name here than in the results.
            task.means |= {metric for metric, _ in task.scores}
        task.means |= {metric for metric, _ in task.scores if _PASS_AT.fullmatch(metric)}
        task.formulas = dict.fromkeys(task.means, "mean") | {
            str(m.get("metric")): str(m["aggregation"])
            for m in metric_configs
            if m.get("aggregation") in FORMULAS
        }
        task.filters = _filters(task_config, task)
        if task.scores:
            tasks[plain] = task
        elif not any(of == plain for of, _, _ in absent):
            empty.append(plain)
    if not tasks and not any(isinstance(stored, float) for stored in absent.values()):
        raise Unreadable("none of its tasks has a metric")
    _complete_groups(groups, tasks, value)
    limit = number(config.get("limit"))
    run = LmEvalRun(path, tasks, groups, limit, _model(value, config), _settings(value, config))
    run.absent = absent
    # A group may have its tasks' numbers alone.
    run.empty = [
        n for n in empty if n not in groups and not any(t.startswith(f"{n}_") for t in tasks)
    ]
    return run


def _filters(config: dict[str, Any], task: LmEvalTask) -> tuple[str, ...]:
    scored = tuple(dict.fromkeys(filter_name for _, filter_name in task.scores))
    listed = config.get("filter_list")
    names = [
        f.get("name") for f in (listed if isinstance(listed, list) else ()) if isinstance(f, dict)
    ]
    return tuple(map(str, names)) if sorted(map(str, names)) == sorted(scored) else scored


def _complete_groups(
    groups: dict[str, list[str]], tasks: dict[str, LmEvalTask], value: dict[str, Any]
) -> None:
    """Groups that older files do not list as such."""
    for name in (*_dict(value, "groups"), *MMLU_PARTS):
        if name in tasks:
            groups.setdefault(name, [])
    if MMLU in tasks and not groups.get(MMLU):
        subjects = [n for n, t in tasks.items() if t.benchmark == MMLU and n not in groups]
        groups[MMLU] = [n for n in subjects if n != MMLU]


def find_samples(run: LmEvalRun, files: Sequence[Path], results: Collection[Path] = ()) -> None:
    """The files with the run's questions: in its folder, and of its time where there are several.

    results: results files, whatever they are called.
    """
    match = _RESULTS.search(run.path.name)
    date = match[1] if match else None
    is_one_of_several = (
        sum(
            p.parent == run.path.parent and (p in results or _RESULTS.search(p.name) is not None)
            for p in {*files, *results}
        )
        > 1
    )
    samples_by_task: dict[str, list[tuple[Path, str | None]]] = {}
    for path in files:
        sample_match = _SAMPLES.match(path.name)
        if sample_match and path.parent == run.path.parent:
            samples_by_task.setdefault(sample_match[1], []).append((path, sample_match[2]))
    for name, paths in samples_by_task.items():
        same = [p for p, when in paths if when == date]
        if same or (len(paths) == 1 and not is_one_of_several):
            run.samples[_plain_name(name)[0]] = same[0] if same else paths[0][0]


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Raises Unreadable."""
    rows = read_lines(path)
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise Unreadable("it holds no questions")
    return rows


def name_filters(rows: Sequence[dict[str, Any]], filters: Sequence[str]) -> bool:
    """Before 0.4.3 lm-eval did not write to a line which filter it is of: of each question the first
    line is the first filter's. Sets `filter` by that; False where the lines are not so many."""
    if len(filters) < 2 or any("filter" in row for row in rows):
        return True
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault(str(row.get("doc_id")), []).append(row)
    if any(len(question_lines) != len(filters) for question_lines in lines.values()):
        return False
    for question_lines in lines.values():
        for row, filter_name in zip(question_lines, filters, strict=True):
            row["filter"] = filter_name
    return True


def stored_values(
    rows: Sequence[dict[str, Any]], metric: str, filter_name: str
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


def repeated(rows: Sequence[dict[str, Any]]) -> int:
    """Lines about a question that another line is about (by its number and filter)."""
    keys = [(row.get("doc_id"), row.get("filter")) for row in rows if "doc_id" in row]
    return len(keys) - len(set(map(str, keys)))


def wrong_answers(rows: Sequence[dict[str, Any]]) -> list[Any]:
    """Numbers of questions whose stored `acc` is not what their log-likelihoods say: 1 where the
    right choice is the likeliest. Only where the right choice is a number."""
    wrong = []
    for row in rows:
        target, replies, acc = number(row.get("target")), row.get("filtered_resps"), row.get("acc")
        if target is None or acc not in (0, 1) or not isinstance(replies, list) or len(replies) < 2:
            continue
        log_likelihoods = [
            number(r[0]) if isinstance(r, list) and len(r) == 2 else None for r in replies
        ]
        likely = [ll for ll in log_likelihoods if ll is not None]
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


def _leaves(name: str, groups: dict[str, Any], visited: set[str]) -> Iterator[str]:
    parts = groups.get(name)
    if not isinstance(parts, list) or not parts:
        yield _plain_name(name)[0]
        return
    for part in parts:
        if isinstance(part, str) and part not in visited:
            visited.add(part)
            yield from _leaves(part, groups, visited)


def _means(config: dict[str, Any]) -> frozenset[str]:
    listed = config.get("metric_list")
    return frozenset(
        str(m["metric"])
        for m in (listed if isinstance(listed, list) else ())
        if isinstance(m, dict) and m.get("aggregation") == "mean" and "metric" in m
    )


def _settings(value: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """What else may differ between two runs that are compared."""
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        pairs = (part.partition("=") for part in arguments.split(","))
        arguments = {name.strip(): setting.strip() for name, _, setting in pairs}
    arguments = arguments if isinstance(arguments, dict) else {}
    settings = {
        "precision": config.get("model_dtype") or arguments.get("dtype"),
        "quantisation": next(
            (n for n in ("load_in_4bit", "load_in_8bit") if arguments.get(n)), None
        ),
        # Each model has its own: what differs is whether it was used.
        "chat template": ("used" if value["chat_template"] else "not used")
        if "chat_template" in value
        else None,
        "system prompt": value.get("system_instruction_sha"),
        "few-shot seed": config.get("fewshot_seed"),
    }
    return {name: setting for name, setting in settings.items() if setting is not None}


def _model(value: dict[str, Any], config: dict[str, Any]) -> str:
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


def _dict(value: dict[str, Any], name: str) -> dict[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}
