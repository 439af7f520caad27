"""Verdicts of a table together: Holm's adjustment, what is said of the table, chance."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from harness.results.course import Course, Look, Terms
from harness.results.families import holm, p_value
from harness.results.verdict.verdict import Verdict, Weighed
from harness.row.load import LoadedRow, load_rows
from harness.stats.intervals import t_quantile
from harness.stats.spending import levels
from tests.helpers import command
from tests.results.scored_rows import scored_row, wins


def test_holm_as_in_a_worked_example() -> None:
    """0.01, 0.04, 0.03, 0.005: times 3, 1, 2, 4 in order of size, and never below a smaller one's."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def weighed(name: str, middle: float, error: float = 1.0, df: float = math.inf) -> Weighed:
    def interval(level: float) -> tuple[float, float]:
        half = t_quantile(df, level) * error
        return middle - half, middle + half

    low, high = interval(0.95)
    verdict = Verdict(name, "", margin=3.0, low=low, high=high)
    return Weighed(verdict, interval=interval)


def test_p_is_where_the_interval_just_gives_the_verdict() -> None:
    assert p_value(weighed("reproduced", 3 - 1.959964)) == pytest.approx(0.05, abs=1e-4)
    assert p_value(weighed("not reproduced", -3 - 3.92)) == pytest.approx(8.86e-5, rel=0.01)
    assert p_value(weighed("inconclusive", 3.0)) == 1.0
    assert p_value(Weighed(Verdict("not run", ""))) is None


def test_of_few_replicates_p_is_students() -> None:
    """24.5 standard errors with one degree of freedom say less than four with many."""
    assert p_value(weighed("reproduced", 0.0, error=3 / 24.5, df=1)) == pytest.approx(
        0.026, abs=1e-3
    )


def test_wrong_claims_of_a_family_are_as_rare_as_said() -> None:
    """28 numbers, each truly at the margin, so that every `not reproduced` is wrong."""
    random = np.random.default_rng(0)
    alone = together = 0
    for _ in range(300):
        lines = [
            weighed("not reproduced" if m - 1.96 > 3 else "inconclusive", m)
            for m in 3 + random.standard_normal(28)
        ]
        p = [found for line in lines if (found := p_value(line)) is not None]
        named = [line.verdict.name == "not reproduced" for line in lines]
        alone += any(named)
        together += any(a <= 0.05 and n for a, n in zip(holm(p), named, strict=True))
    assert alone / 300 > 0.3
    assert together / 300 <= 0.05


def test_a_table_says_which_verdicts_hold_among_its_own(tmp_path: Path) -> None:
    """One that is clear, and one that is clear alone, so nearly also among them that two digits of its
    p are those of the level."""
    specs = [
        scored_row(
            tmp_path,
            wins(count, 4000),
            row=name,
            reported={"win_rate": {"value": 40.0, "standard_error": error}},
        )
        for name, count, error in (("clear", 800, 0.3), ("near", 1407, 0.306), ("third", 1500, 0.3))
    ]
    arguments = ["--volume", tmp_path / "runs", "--executor", "local"]
    result = command("table", *specs, *arguments, "--format", "csv")
    lines = {line["row"]: line for line in csv.DictReader(result.output.splitlines())}
    assert {line["verdict_among"] for line in lines.values()} == {"3"}
    assert lines["clear"]["verdict_holm"] == "holds"
    assert (lines["near"]["verdict"], lines["near"]["verdict_holm"]) == (
        "not reproduced", "does not hold",
    )  # fmt: skip
    assert lines["third"]["verdict_holm"] == ""
    text = " ".join(command("table", *specs, *arguments, "--format", "md").output.split())
    assert "of 3 numbers compared, 0 reproduced (0 after Holm's adjustment), 2 not" in text
    alone = "not reproduced alone, and not among the table's 3 verdicts"
    assert f"{alone} (holm's p {float(lines['near']['verdict_p']):.3g})" in text.lower()
    assert f"{float(lines['near']['verdict_p']):.2g}" == "0.05"
    assert "so many give up to 0.15 wrong verdicts on average by chance alone" in text
    alone = command("table", specs[1], *arguments, "--format", "csv")
    (line,) = csv.DictReader(alone.output.splitlines())
    assert (line["verdict_among"], line["verdict_holm"]) == ("1", "holds")


def test_after_looks_a_wrong_claim_is_as_rare_as_its_p_says(tmp_path: Path) -> None:
    """A difference truly at the margin, looked at up to five times as `harness settle` does: by p of a
    tenth of 5 % it is wrongly beyond the margin in at most a tenth of 2.5 %, one side's."""
    (loaded,) = load_rows([scored_row(tmp_path)])
    random = np.random.default_rng(0)
    fixed = tuple(levels(5))
    runs, wrong = 20000, 0
    steps = random.standard_normal((runs, 5)).cumsum(axis=1)
    for walk in steps:
        for look, level in enumerate(fixed, start=1):
            middle, error = 3 + walk[look - 1] / look, 1 / math.sqrt(look)
            if middle - t_quantile(math.inf, level) * error > 3:
                wrong += _p_after(look, middle, error, fixed, loaded) <= 0.05 / 10
                break
    allowed = 0.025 / 10
    assert 0 < wrong / runs <= allowed + 3 * math.sqrt(allowed / runs)


def _p_after(
    looks: int, middle: float, error: float, fixed: tuple[float, ...], loaded: LoadedRow
) -> float:
    found = weighed("not reproduced", middle, error)
    seen = Look((1, 1, 1, 0), fixed[looks - 1], None, None, found.verdict.name, 0.0)
    terms = Terms(loaded.row.row, "win_rate", "", 3.0, fixed, "")
    course = Course(terms, Path("r.json"), None, looks=[seen] * looks)
    p = p_value(course.beside(found, loaded, None)[0])
    assert p is not None
    return p
