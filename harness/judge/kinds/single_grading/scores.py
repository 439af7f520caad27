"""The mean of grades and its standard error. Nothing here needs more than Python."""

import math
from collections.abc import Sequence

from harness.artefact.manifest import MetricValue
from harness.judge.kinds.single_grading import HIGHEST, LOWEST
from harness.judge.scores import bounds


def rating(grades: Sequence[float | None], questions: Sequence[int]) -> MetricValue:
    """The mean of the grades that there are; `questions`: of each, which it is of. Its standard error
    is that of a mean over clusters: sqrt(Q / (Q - 1) * sum over questions of (sum of its
    deviations)^2) / number of grades."""
    judged = [(g, q) for g, q in zip(grades, questions, strict=True) if g is not None]
    expected, n = len(grades), len(judged)
    total = math.fsum(grade for grade, _ in judged)
    mean = total / n if n else None
    error = None
    deviations: dict[int, list[float]] = {}
    for grade, question in judged:
        deviations.setdefault(question, []).append(grade - total / n)
    if len(deviations) > 1:
        clusters = len(deviations)
        squares = math.fsum(math.fsum(of_question) ** 2 for of_question in deviations.values())
        error = math.sqrt(clusters / (clusters - 1) * squares) / n
    return MetricValue(
        value=mean,
        standard_error=error,
        judged=n,
        expected=expected,
        **bounds(total, n, expected, LOWEST, HIGHEST),
    )
