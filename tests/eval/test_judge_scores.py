"""The win rate against published leaderboards and their own annotations."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.eval.judge_scores import (
    describe,
    differences,
    read_leaderboard,
    win_rate_metric,
    write_leaderboard,
)


@pytest.mark.parametrize("folder", ["338-default-prompt-results1", "338-qwen-prompt1-results"])
def test_mini_limas_leaderboards_follow_from_their_annotations(
    shared_data: Path, folder: str
) -> None:
    study = shared_data.parent / "oracles/mini_lima" / folder
    annotations = json.loads((study / "annotations.json").read_text())
    ours = describe([row["preference"] for row in annotations])
    theirs = read_leaderboard(study / "leaderboard.csv", "mini_lima")
    assert theirs["n_total"] in (713, 803)
    assert differences(ours, theirs, 1e-9) == []


@pytest.mark.parametrize(
    ("model", "annotator"),
    [
        ("alpaca-7b", "alpaca_eval_gpt4"),
        ("NullModel", "weighted_alpaca_eval_gpt4_turbo"),
        ("Qwen-14B-Chat", "weighted_alpaca_eval_gpt4_turbo"),
    ],
)
def test_alpaca_evals_published_figures_follow_from_the_annotations(
    shared_data: Path, model: str, annotator: str
) -> None:
    oracles = shared_data.parent / "oracles/alpaca_eval"
    annotations = json.loads((oracles / model / annotator / "annotations.json").read_text())
    with (oracles / f"leaderboards/{annotator}_leaderboard.csv").open() as file:
        published = next(row for row in csv.DictReader(file) if row[""] == model)
    ours = describe([row["preference"] for row in annotations])
    for name in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total"):
        assert ours[name] == pytest.approx(float(published[name]), abs=1e-9), name


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
    assert metric["value"] == pytest.approx(29.312762973352037, abs=1e-9)
    assert metric["standard_error"] == pytest.approx(1.7059208789475941, abs=1e-9)
    assert metric["lower_bound"] == pytest.approx(100 * 209 / 805)
    assert metric["upper_bound"] == pytest.approx(100 * (209 + 92) / 805)
    counts = {name: metric[name] for name in ("judged", "expected", "wins", "losses", "draws")}
    assert counts == {"judged": 713, "expected": 805, "wins": 209, "losses": 504, "draws": 0}


def test_when_all_are_judged_the_bounds_are_the_value() -> None:
    metric = win_rate_metric(describe([1, 2, 2, 1.5, 1.2]), 5)
    assert metric["lower_bound"] == pytest.approx(metric["value"])
    assert metric["upper_bound"] == pytest.approx(metric["value"])


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
