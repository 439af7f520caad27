"""This harness's own runs of lm-eval's tasks: every score again, in percent, from what is kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.artefact.metrics import metric_of
from harness.audit.model import Result, compare
from harness.audit.parse.files import JsonObject, Unreadable
from harness.audit.parse.lm_eval_files import read_samples
from harness.judge.kinds.lm_eval.benchmarks import (
    AVERAGE,
    BENCHMARKS,
    MMLU,
    SUBJECTS,
    benchmark_of,
)
from harness.judge.kinds.lm_eval.catalogue import responses_file
from harness.judge.kinds.lm_eval.scores import metrics_of, rescored, unit_results
from harness.judge.scores import bounds


def is_own(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), dict) for name in ("tasks", "scores", "results")
    )


def audit_own(path: Path, value: JsonObject, kind: str) -> Result:
    """Raises Unreadable: a task's questions are not there, or not as they were written."""
    result = Result(str(path), kind)
    samples = {}
    for unit in value["tasks"]:
        rows = read_samples(path.parent / f"samples_{Path(str(unit)).name}.jsonl")
        try:
            samples[str(unit)] = [rescored(row) for row in rows]
        except (KeyError, TypeError, ValueError, ArithmeticError) as e:
            raise Unreadable(
                f"samples_{unit}.jsonl has no log-likelihoods to score ({e})"
            ) from None
    try:
        recomputed = metrics_of(unit_results(samples))
        judged = {
            n: sum(len(r) for u, r in samples.items() if benchmark_of(u) == n) for n in BENCHMARKS
        }
        expected = {
            n: sum(int(t["questions"]) for u, t in value["tasks"].items() if benchmark_of(u) == n)
            for n in BENCHMARKS
        }
        published = {n: m for n, m in value["scores"].items() if isinstance(m, dict)}
    except (KeyError, TypeError, ValueError, ArithmeticError) as e:
        raise Unreadable(f"its questions make no score ({type(e).__name__}: {e})") from None
    for name, metric in recomputed.items():
        result.metrics |= _figures(name, metric)
        result.published |= _figures(name, published.get(name, {}))
    result.metrics["n_judged"] = sum(judged.values())
    result.metrics["n_expected"] = sum(expected.values())
    for name, task in value.get("package_tasks", {}).items():
        _put_package_task(result, name, task, path.parent)
    compare(result)
    for name in recomputed:
        if name != AVERAGE and judged[name] < expected[name]:
            _part(result, name, recomputed[name]["value"], judged[name], expected[name])
    subjects = recomputed.get(MMLU, {}).get("subjects", SUBJECTS)
    if subjects < SUBJECTS:
        result.notes.append(
            f"mmlu is over {subjects} of the {SUBJECTS} subjects, which the row states"
        )
    cut = sum(row["cut"] > 0 for rows in samples.values() for row in rows if "cut" in row)
    if cut:
        total = result.metrics["n_judged"]
        result.add(
            "empty_or_truncated",
            "warning",
            f"of {cut:,} of {total:,} questions the prompt with its shots is longer than the model "
            "takes, and its beginning was cut off",
            {"cut": cut, "questions": total},
        )
    return result


def _put_package_task(result: Result, name: str, task: dict[str, Any], folder: Path) -> None:
    """One of lm-eval's own tasks: its scores, and again those that are a mean over questions."""
    try:
        for unit, facts in task["units"].items():
            rows = read_samples(folder / responses_file(unit))
            asked = min(task["limit"] or facts["questions"], facts["questions"])
            result.metrics["n_judged"] += len(rows)
            result.metrics["n_expected"] += asked
            for metric, published in task["metrics"].items():
                scores = [row["scores"].get(metric.removeprefix(f"{unit}/")) for row in rows]
                is_mean = metric_of(metric).is_percentage
                if is_mean and rows and all(isinstance(score, int | float) for score in scores):
                    result.metrics[metric] = 100 * sum(scores) / len(scores)
                    result.published[metric] = published["value"]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise Unreadable(f"{name} makes no score ({type(e).__name__}: {e})") from None


def _figures(name: str, metric: Mapping[str, float | None]) -> dict[str, float]:
    labels = {"value": "", "standard_error": " standard_error", "by_questions": " by questions"}
    figures = {f"{name}{label}": metric.get(key) for key, label in labels.items()}
    return {label: figure for label, figure in figures.items() if figure is not None}


def _part(result: Result, name: str, value: float, judged: int, expected: int) -> None:
    limits = bounds(value * judged, judged, expected, 0, 100)
    result.add(
        "dropped_rows",
        "warning",
        f"{name}: {judged:,} of the {expected:,} questions were asked; over all of them the score lies "
        f"between {limits['lower_bound']:.1f} and {limits['upper_bound']:.1f}, given is {value:.1f}",
        {"task": name, "judged": judged, "expected": expected, **limits},
    )
