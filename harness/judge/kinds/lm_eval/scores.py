"""Scores from what is kept of each question: the log-likelihoods of its choices.

A sample is one line of samples_TASK.jsonl: `doc_id` (its number in the split), `doc_hash` and
`prompt_hash` (lm-eval's), `target` (the right choice; of TruthfulQA, 1 or 0 for each choice),
`log_likelihoods` in nats and `characters` of the choices, `cut` (choices whose prompt was longer than
the model takes), and the scores `acc` and `acc_norm`, from 0 to 1.
"""

import math
from collections.abc import Sequence
from typing import Any

from harness.judge.kinds.lm_eval.benchmarks import (
    AVERAGE,
    BENCHMARKS,
    MMLU,
    SUBJECTS,
    benchmark_of,
)
from harness.judge.scores import mean_and_error

TOLERANCE = 1e-9
"""Between lm-eval's scores, from 0 to 1, and these."""
LEAST = -700.0
"""Below this exp of a log-likelihood loses digits, and then is 0, in 64 bits."""

Sample = dict[str, Any]


def score_question(target: int | list[int], lls: Sequence[float], sizes: Sequence[int]) -> Sample:
    """A question's scores. `sizes`: characters of each choice.

    acc: 1 where the right choice is the likeliest. acc_norm: the same of the log-likelihood over the
    characters. With several true choices (TruthfulQA's mc2) acc is their share of the probability of
    all: sum of exp(ll) over the true ones / sum over all.
    """
    if isinstance(target, list):
        # Shifted, for exp of what a long answer gets is 0 in 64 bits.
        likely = [math.exp(ll - max(lls)) for ll in lls]
        true = math.fsum(p for p, is_true in zip(likely, target, strict=True) if is_true)
        return {"acc": true / math.fsum(likely)}
    normed = [ll / size if size else -math.inf for ll, size in zip(lls, sizes, strict=True)]
    return {"acc": float(_first_highest(lls) == target),
            "acc_norm": float(_first_highest(normed) == target)}  # fmt: skip


def underflows(sample: Sample) -> bool:
    """Whether lm-eval's own formula has no number, or no exact one, for a question of several truths:
    it sums exp of the log-likelihoods as they are."""
    return isinstance(sample["target"], list) and max(sample["log_likelihoods"]) < LEAST


def _first_highest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])


def rescored(sample: Sample) -> Sample:
    """The sample with its scores computed anew."""
    scores = score_question(sample["target"], sample["log_likelihoods"], sample["characters"])
    return {**sample, **{n: v for n, v in scores.items() if n in sample}}


def of_means(errors: Sequence[float | None]) -> float | None:
    """Standard error of the plain mean of independent means: sqrt(sum of squares) / how many."""
    if any(error is None for error in errors):
        return None
    return math.sqrt(math.fsum(error**2 for error in errors if error is not None)) / len(errors)


def pooled(errors: Sequence[float | None], sizes: Sequence[int]) -> float | None:
    """Standard error of the mean weighted by size, from the pooled variance, as lm-eval's groups
    have it."""
    if any(error is None for error in errors):
        return None
    sized = [(e, n) for e, n in zip(errors, sizes, strict=True) if e is not None]
    variance = math.fsum((n - 1) * e**2 * n for e, n in sized) / (sum(sizes) - len(sizes))
    return math.sqrt(variance / sum(sizes))


def unit_results(samples: dict[str, list[Sample]]) -> dict[str, dict[str, Any]]:
    """Of each of lm-eval's tasks: every metric and its standard error in percent, and counts."""
    results = {}
    for unit, rows in samples.items():
        unit_scores: dict[str, Any] = {"questions": len(rows), "cut": sum(r["cut"] for r in rows)}
        for name in ("acc", "acc_norm"):
            if name in rows[0]:
                mean, error = mean_and_error([r[name] for r in rows])
                unit_scores[name] = 100 * mean
                unit_scores[f"{name}_stderr"] = None if error is None else 100 * error
        results[unit] = unit_scores
    return results


def metrics_of(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The leaderboard's numbers in percent: a task's own metric, and the mean over the four where all
    are there.

    MMLU is the plain mean over the subjects, as the leaderboard had it. lm-eval's own group `mmlu`
    weights subjects by their questions: that stands beside it as `by_questions`.
    """
    metrics: dict[str, dict[str, Any]] = {}
    for name, benchmark in BENCHMARKS.items():
        units = {u: r for u, r in results.items() if benchmark_of(u) == name}
        if not units:
            continue
        values = [r[benchmark.metric] for r in units.values()]
        errors = [r[f"{benchmark.metric}_stderr"] for r in units.values()]
        sizes = [r["questions"] for r in units.values()]
        metrics[name] = over_all(math.fsum(values) / len(values), of_means(errors), sum(sizes))
        metrics[name]["shots"] = benchmark.shots
        if name == MMLU:
            by_size = math.fsum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)
            metrics[name] |= {
                "subjects": len(units),
                "expected_subjects": SUBJECTS,
                "by_questions": by_size,
                "by_questions_standard_error": pooled(errors, sizes),
            }
    if set(metrics) == set(BENCHMARKS):
        values = [m["value"] for m in metrics.values()]
        error = of_means([m["standard_error"] for m in metrics.values()])
        judged = sum(m["judged"] for m in metrics.values())
        metrics[AVERAGE] = over_all(math.fsum(values) / len(values), error, judged)
    return metrics


def over_all(value: float, error: float | None, questions: int) -> dict[str, Any]:
    """Every question has a score, so the bounds are the value."""
    return {
        "value": value,
        "standard_error": error,
        "judged": questions,
        "expected": questions,
        "lower_bound": value,
        "upper_bound": value,
    }
