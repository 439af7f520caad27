"""The win rate and its bounds, leaderboards, and the bias for a place."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.judge.scores import (
    describe,
    differences,
    metrics_of_sets,
    position_bias,
    position_findings,
    position_note,
    position_notes,
    read_leaderboard,
    win_rate_metric,
    write_leaderboard,
)


def test_a_leaderboard_has_the_packages_columns_and_reads_back(
    tmp_path: Path, shared_data: Path
) -> None:
    study = shared_data.parent / "oracles/mini_lima/338-qwen-prompt1-results"
    annotations = json.loads((study / "annotations.json").read_text())
    ours = describe([row["preference"] for row in annotations])
    outputs = [row["output_2"] for row in annotations]
    write_leaderboard(tmp_path / "leaderboard.csv", "mini_lima", outputs, ours)
    header, row = (tmp_path / "leaderboard.csv").read_text().splitlines()
    published_header, published = (study / "leaderboard.csv").read_text().splitlines()
    assert header + ",length_controlled_winrate" == published_header
    assert row.split(",")[3:9] == published.split(",")[3:9]
    assert read_leaderboard(tmp_path / "leaderboard.csv", "mini_lima") == ours


def test_unjudged_prompts_widen_the_bounds_and_leave_the_value() -> None:
    # 209 wins and 504 losses of 805 prompts: 29.3 as published, 26.0 to 37.4 with all of them.
    described = describe([2.0] * 209 + [1.0] * 504 + [None] * 92)
    metric = win_rate_metric(described, 805)
    assert metric.value == pytest.approx(29.312762973352037, abs=1e-9)
    assert metric.standard_error == pytest.approx(1.7059208789475941, abs=1e-9)
    assert metric.lower_bound == pytest.approx(100 * 209 / 805)
    assert metric.upper_bound == pytest.approx(100 * (209 + 92) / 805)
    counts = {
        name: getattr(metric, name) for name in ("judged", "expected", "wins", "losses", "draws")
    }
    assert counts == {"judged": 713, "expected": 805, "wins": 209, "losses": 504, "draws": 0}


def test_when_all_are_judged_the_bounds_are_the_value() -> None:
    metric = win_rate_metric(describe([1, 2, 2, 1.5, 1.2]), 5)
    assert metric.lower_bound == pytest.approx(metric.value)
    assert metric.upper_bound == pytest.approx(metric.value)


@pytest.mark.parametrize("junk", [-1, 0.5, 2.5, math.nan, None])
def test_what_is_no_preference_never_enters_the_mean(junk: Any) -> None:
    assert describe([1, 2, junk, 2]) == describe([1, 2, 2])


def test_a_draw_counts_half_however_it_is_written() -> None:
    assert describe([1.5, 2])["win_rate"] == describe([0, 2])["win_rate"] == 75
    assert describe([0, 1.5])["n_draws"] == 2


def test_too_few_judgements_give_no_figure_rather_than_a_wrong_one() -> None:
    assert (describe([2])["win_rate"], describe([2])["standard_error"]) == (100, None)
    assert (describe([])["win_rate"], describe([])["n_total"]) == (None, 0)


def test_more_judgements_than_prompts_is_an_error() -> None:
    with pytest.raises(HarnessError, match="3 judgements of 2 prompts"):
        win_rate_metric(describe([1, 1, 2]), 2)


def test_differences_name_the_figures() -> None:
    ours, theirs = describe([1, 2, 2]), describe([1, 2, 1.5])
    assert differences(ours, ours, 0) == []
    found = differences(ours, theirs, 1e-9)
    assert [line.split(":")[0] for line in found] == [
        "win_rate",
        "standard_error",
        "n_wins",
        "n_draws",
        "discrete_win_rate",
    ]


@pytest.mark.parametrize(
    ("wins", "losses", "other_wins", "other_losses"),
    [
        (30, 20, 10, 40),
        (3, 1, 1, 3),
        (0, 5, 5, 0),
        (200, 180, 190, 195),
        (8, 2, 1, 5),
        (5, 5, 5, 5),
    ],
)
def test_the_bias_for_a_place_is_tested_as_fishers_exact_test_does(
    wins: int, losses: int, other_wins: int, other_losses: int
) -> None:
    from scipy.stats import fisher_exact

    rows = [(True, 2.0)] * wins + [(True, 1.0)] * losses
    rows += [(False, 2.0)] * other_wins + [(False, 1.0)] * other_losses
    bias = position_bias([*rows, (True, 1.5), (False, 1.5), (True, None), (False, -1.0)])
    theirs = fisher_exact([[wins, losses], [other_wins, other_losses]])[1]
    assert bias["p_value"] == pytest.approx(theirs, rel=1e-6)
    first, second = bias["shown_first"], bias["shown_second"]
    assert first["judged"] == wins + losses + 1
    assert first["win_rate"] == pytest.approx(100 * (wins + 0.5) / (wins + losses + 1))
    assert bias["difference"] == pytest.approx(first["win_rate"] - second["win_rate"])
    found = position_findings(bias)
    assert bool(found) == (theirs < 0.01 and abs(bias["difference"]) >= 10)


def test_a_place_that_was_never_judged_is_no_ground_for_a_bias() -> None:
    bias = position_bias([(True, 2.0), (True, 1.0), (False, None)])
    assert (bias["p_value"], bias["difference"]) == (None, None)
    assert bias["shown_second"] == {"win_rate": None, "standard_error": None, "judged": 0}
    assert position_findings(bias) == []
    note = position_note(bias)
    assert note == "shown first the model wins 50.0 ± 50.0 % of 2, shown second was never judged"


def test_a_small_bias_is_no_finding_however_sure_it_is() -> None:
    def rows(is_first: bool, wins: int) -> list[tuple[bool, float]]:
        return [(is_first, 2.0)] * wins + [(is_first, 1.0)] * (10_000 - wins)

    bias = position_bias(rows(True, 5500) + rows(False, 4800))
    assert bias["p_value"] < 1e-6
    assert position_findings(bias) == []
    note = "wins 55.0 ± 0.5 % of 10000, shown second wins 48.0 ± 0.5 % of 10000 (difference +7.0 points"
    assert note in position_note(bias)
    assert position_notes(bias) == [position_note(bias)]


def test_what_a_finding_says_is_no_note_too() -> None:
    bias = position_bias([(True, 2.0)] * 20 + [(False, 1.0)] * 20)
    assert len(position_findings(bias)) == 1
    assert position_notes(bias) == []
    assert position_notes(position_bias([])) == []


def test_each_prompt_set_has_its_own_denominator() -> None:
    sets = ["koala", "koala", "vicuna", None, "empty"]
    metrics = metrics_of_sets(sets, [2.0, None, 1.0, 2.0, None])
    assert list(metrics) == ["win_rate/koala", "win_rate/vicuna", "win_rate/empty"]
    koala, vicuna, empty = metrics.values()
    assert (koala.value, koala.judged, koala.expected) == (100, 1, 2)
    assert (koala.lower_bound, koala.upper_bound) == (50, 100)
    assert vicuna.value == 0
    assert (empty.value, empty.lower_bound, empty.upper_bound) == (None, 0, 100)
