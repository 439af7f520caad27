"""Verdicts of a table together: Holm's adjustment, what is said of the table, chance."""

import csv
from pathlib import Path

import numpy as np
import pytest

from harness.results.families import holm, p_value
from harness.results.verdict.verdict import Verdict
from tests.helpers import command
from tests.results.scored_rows import scored_row, wins


def test_holm_as_in_a_worked_example() -> None:
    """0.01, 0.04, 0.03, 0.005: times 3, 1, 2, 4 in order of size, and never below a smaller one's."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_p_is_where_the_interval_just_gives_the_verdict() -> None:
    def verdict(name: str, low: float | None, high: float | None) -> Verdict:
        return Verdict(name, "", margin=3.0, low=low, high=high)

    assert p_value(verdict("reproduced", -1.0, 3.0)) == pytest.approx(0.05)
    assert p_value(verdict("not reproduced", 3.0, 7.0)) == pytest.approx(0.05)
    assert p_value(verdict("not reproduced", -9.0, -5.0)) == pytest.approx(8.86e-5, rel=0.01)
    assert (p_value(verdict("inconclusive", 0.0, 6.0)) or 0) == pytest.approx(1.0)
    # One training cannot show it, however narrow the interval is.
    assert (p_value(verdict("inconclusive", -0.1, 0.1)) or 0) >= 0.0499
    assert p_value(verdict("not run", None, None)) is None


def test_wrong_claims_of_a_family_are_as_rare_as_said() -> None:
    """28 numbers, each truly at the margin, so that every `not reproduced` is wrong."""
    random = np.random.default_rng(0)
    alone = together = 0
    for _ in range(400):
        middles = 3 + 1.0 * random.standard_normal(28)
        verdicts = [
            Verdict("not reproduced" if m - 1.96 > 3 else "inconclusive", "", margin=3.0,
                    low=m - 1.96, high=m + 1.96)
            for m in middles
        ]  # fmt: skip
        p = [found for v in verdicts if (found := p_value(v)) is not None]
        named = [v.name == "not reproduced" for v in verdicts]
        alone += any(named)
        together += any(a <= 0.05 and n for a, n in zip(holm(p), named, strict=True))
    assert alone / 400 > 0.3
    assert together / 400 <= 0.05


def test_a_table_says_which_verdicts_hold_among_its_own(tmp_path: Path) -> None:
    """One that is clear, and one that is clear alone."""
    cell = {"value": 40.0, "standard_error": 0.3}
    specs = [
        scored_row(tmp_path, wins(count, 4000), row=name, reported={"win_rate": cell})
        for name, count in (("clear", 800), ("near", 1412), ("third", 1500))
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
    assert "not reproduced alone, and not among the table's 3 verdicts (holm's p" in text.lower()
    alone = command("table", specs[1], *arguments, "--format", "csv")
    (line,) = csv.DictReader(alone.output.splitlines())
    assert (line["verdict_among"], line["verdict_holm"]) == ("1", "holds")
