"""What a score's variance comes of: prompts, training seeds, sampling, judging.

The model: a grade is the mean plus effects of the prompt, of the training, of the sampling within the
training and of the judging within the sampling, and of each of these together with the prompt. All are
random and independent; their variances are estimated by the method of moments, negative ones set to 0
(Searle, Casella and McCulloch 1992, Variance Components, chapter 4). Everything is in squared units of
the score, for one run over the prompts at hand.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.stats.intervals import LEVEL

Index = tuple[int, int, int]
"""Which training, which sampling of it, which judging of that."""
Grades = Mapping[Any, float]
"""Prompt -> grade; a prompt that was not judged is not there."""


@dataclass(frozen=True)
class Crossed:
    """Mean squares of replicates x prompts, as variances of a replicate's score."""

    replicates: int
    prompts: int
    mean: float
    columns: float
    """Variance over prompts of their means over replicates, / prompts: the squared standard error
    of the mean, of which it holds all that belongs to single prompts."""
    between: float | None
    """Variance between the replicates' scores (ddof 1); None for one replicate."""
    within: float
    """What of `between` the prompts explain, each for itself: residual mean square / prompts."""

    @property
    def common(self) -> float:
        """Variance of what moves all prompts of a replicate together."""
        return max(0.0, (self.between or 0.0) - self.within)

    @property
    def df(self) -> int:
        return self.replicates - 1

    @property
    def is_common(self) -> bool:
        """Whether replicates differ by more than their prompts, each for itself, explain."""
        return exceeds(self.between or 0.0, self.within, self.df, self.df * (self.prompts - 1))


def exceeds(between: float, within: float, df: int, rest: int) -> bool:
    """The F test at 5 %: whether one variance is larger than the other beyond chance."""
    if between <= within:
        return False
    if within == 0:
        return True
    from scipy.special import fdtrc

    return bool(fdtrc(df, rest, between / within) < 1 - LEVEL)


def crossed(rows: Sequence[Sequence[float]]) -> Crossed:
    """Two-way analysis of variance without repetition. rows: [replicate][prompt], of two prompts at
    least and without gaps."""
    a, n = len(rows), len(rows[0])
    means = [math.fsum(row) / n for row in rows]
    mean = math.fsum(means) / a
    columns = rows[0] if a == 1 else [math.fsum(column) / a for column in zip(*rows, strict=True)]
    of_columns = math.fsum((c - mean) ** 2 for c in columns)
    if a == 1:
        return Crossed(1, n, mean, of_columns / (n - 1) / n, None, 0.0)
    of_rows = math.fsum((m - mean) ** 2 for m in means)
    total = math.fsum((x - mean) ** 2 for row in rows for x in row)
    residual = max(0.0, total - n * of_rows - a * of_columns)
    return Crossed(
        a, n, mean, of_columns / (n - 1) / n, of_rows / (a - 1), residual / ((a - 1) * (n - 1)) / n
    )


@dataclass(frozen=True)
class VariancePart:
    """What one kind of replicate adds to the variance of one run's score."""

    common: float
    """Of what moves all prompts together."""
    single: float
    """Of what moves each prompt for itself; it falls with the number of prompts."""
    df: int
    is_common: bool
    """Whether `common` is more than chance makes of prompts that move each for itself (F test)."""

    @property
    def variance(self) -> float:
        return self.common + self.single


@dataclass(frozen=True)
class Split:
    """Variance parts of one run's score, and what a mean over all runs is known to."""

    prompts: float
    """Of the choice of prompts; with all that no replicate sets apart from it."""
    parts: dict[str, VariancePart]
    """Of `train`, `sampling`, `judge` where there are replicates of this kind."""
    top: Crossed
    """Over the highest kind that has replicates."""
    complete: int
    """Prompts that were judged in every run: the analysis is over these."""


def split(runs: Mapping[Index, Grades]) -> Split | None:
    """None where fewer than two prompts were judged in every run.

    Runs need not be balanced: of each kind the means within its replicates are compared, and what
    lies below is taken as divided by the mean number of replicates there.
    """
    places = _in_all(list(runs.values()))
    if len(places) < 2:
        return None
    n = len(places)
    level: dict[Index, list[float]] = {
        index: [grades[p] for p in places] for index, grades in sorted(runs.items())
    }
    parts: dict[str, VariancePart] = {}
    tops: list[Crossed] = []
    below_common = below_single = 0.0
    for depth, kind in ((2, "judge"), (1, "sampling"), (0, "train")):
        groups: dict[Index, list[list[float]]] = {}
        for index, row in level.items():
            groups.setdefault(_upper(index, depth), []).append(row)
        several = [crossed(rows) for rows in groups.values() if len(rows) > 1]
        size = len(level) / len(groups)
        common = single = 0.0
        if several:
            df = sum(c.df for c in several)
            between = math.fsum(c.df * (c.between or 0.0) for c in several) / df
            within = math.fsum(c.df * c.within for c in several) / df
            single = max(0.0, within - below_single)
            common = max(0.0, between - within - below_common)
            # Replicates of replicates below: what these have in common is compared with as well.
            is_common = exceeds(between, within + below_common, df, df * (n - 1))
            parts[kind] = VariancePart(common, single, df, is_common)
            tops.append(several[0])
        below_common, below_single = (below_common + common) / size, (below_single + single) / size
        level = {index: _mean_row(rows) for index, rows in groups.items()}
    (columns,) = level.values()
    overall = crossed([columns])
    return Split(max(0.0, overall.columns - below_single), parts, tops[-1] if tops else overall, n)


def _upper(index: Index, depth: int) -> Index:
    """The index with everything from this depth on left out."""
    a, b, c = (number if place < depth else 0 for place, number in enumerate(index))
    return a, b, c


def mean_grades(runs: Sequence[Grades]) -> dict[Any, float]:
    """Over the runs, of the prompts that were judged in all of them."""
    return {p: fmean(grades[p] for grades in runs) for p in _in_all(runs)}


def _in_all(runs: Sequence[Grades]) -> list[Any]:
    return [p for p in runs[0] if all(p in grades for grades in runs[1:])] if runs else []


def _mean_row(rows: Sequence[Sequence[float]]) -> list[float]:
    if len(rows) == 1:
        return list(rows[0])
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
