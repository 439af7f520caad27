"""Published leaderboards and annotations, recomputed: every figure, and every stored preference from
the judge's words."""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.judge.kinds.alpaca_eval.readings import is_switched, shows_model_first
from harness.judge.scores import describe, position_bias, position_findings, win_rate_metric
from tests.judge.readings import preference_from

TOLERANCE = 1e-9
STORED_DECIMALS = 1e-10
"""annotations.json keeps ten decimals of a probability."""

FIGURES = (
    "win_rate",
    "standard_error",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
    "discrete_win_rate",
)
MINI_LIMA = ["338-default-prompt-results1", "338-qwen-prompt1-results"]
WEIGHTED, RANKED = "weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4"
STORED = [
    *(
        (f"mini_lima/{name}", f"mini_lima/{name}/leaderboard.csv", "mini_lima")
        for name in MINI_LIMA
    ),
    *(
        (
            f"alpaca_eval/{model}/{annotator}",
            f"alpaca_eval/leaderboards/{annotator}_leaderboard.csv",
            model,
        )
        for model, annotator in (
            ("NullModel", WEIGHTED),
            ("Qwen-14B-Chat", WEIGHTED),
            ("alpaca-7b", RANKED),
        )
    ),
]


@pytest.fixture(scope="module")
def oracles(shared_data: Path) -> Path:
    return shared_data.parent / "oracles"


@cache
def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def leaderboard(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row[""]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("folder", "board", "name"), STORED)
def test_a_leaderboards_line_follows_from_its_annotations(
    oracles: Path, folder: str, board: str, name: str
) -> None:
    rows = read(oracles / folder / "annotations.json")
    published = leaderboard(oracles / board)[name]
    ours = describe([row["preference"] for row in rows])
    for figure in FIGURES:
        assert ours[figure] == pytest.approx(float(published[figure]), abs=TOLERANCE), figure
    lengths = [len(row["output_2"]) for row in rows]
    assert int(sum(lengths) / len(lengths)) == int(published["avg_length"])


@pytest.mark.parametrize("folder", MINI_LIMA)
def test_the_judged_outputs_are_the_stored_ones(oracles: Path, folder: str) -> None:
    outputs = read(oracles / "mini_lima" / folder / "model_outputs.json")
    rows = read(oracles / "mini_lima" / folder / "annotations.json")
    by_text = {row["instruction"]: row["output"] for row in outputs}
    assert [by_text[row["instruction"]] for row in rows] == [row["output_2"] for row in rows]


@pytest.mark.parametrize(("folder", "board", "name"), STORED)
def test_each_stored_preference_follows_from_the_judges_words(
    oracles: Path, folder: str, board: str, name: str
) -> None:
    rows = read(oracles / folder / "annotations.json")
    read_again = 0
    for row in rows:
        raw = row.get("raw_completion")
        if raw is None:
            continue
        ours = preference_from(row["annotator"], raw, row["instruction"])
        assert ours == pytest.approx(row["preference"], abs=STORED_DECIMALS)
        read_again += 1
    # alpaca-7b's file has no completions; elsewhere they lack where nothing was judged, where the
    # outputs are the same, and in three rows of the others.
    expected = {"NullModel": 805, "Qwen-14B-Chat": 801, "alpaca-7b": 0}
    assert read_again == expected.get(
        name, {MINI_LIMA[0]: 713, MINI_LIMA[1]: 800}.get(Path(folder).name)
    )


def test_reading_in_the_other_order_gives_other_preferences(oracles: Path) -> None:
    rows = read(oracles / STORED[3][0] / "annotations.json")
    wrong = [
        abs(
            3
            - preference_from(WEIGHTED, row["raw_completion"], row["instruction"])
            - row["preference"]
        )
        for row in rows
        if row.get("raw_completion")
    ]
    assert sum(difference > 0.1 for difference in wrong) > 700
    assert 350 < sum(is_switched(row["instruction"]) for row in rows) < 450


UNFITTING = {
    WEIGHTED: {"aligner-2b_gpt-4-turbo-2024-04-09": "discrete_win_rate"},
    RANKED: dict.fromkeys(
        ["humpback-llama2-70b", "humpback-llama-65b", "baize-v2-7b"], "standard_error"
    ),
}
"""Lines of the published leaderboards of which a figure does not follow from the others."""


def says(published: str, value: float) -> bool:
    """Whether a printed figure is this one; some were rounded to eight decimals."""
    decimals = len(published.partition(".")[2])
    return abs(float(published) - value) <= max(TOLERANCE, 10.0**-decimals if decimals else 0)


def unfitting(row: dict[str, str], annotator: str) -> str | None:
    """The first figure of a line that does not fit the line's others."""
    wins, losses, draws, total = (
        int(float(row[n])) for n in ("n_wins", "n_wins_base", "n_draws", "n_total")
    )
    if not wins + losses + draws == total <= 805:
        return "n_total"
    discrete = 100 * (wins + draws / 2) / total
    # A win is worth more than a half and at most one, a loss at least nothing and less than that.
    least, most = 50 * (wins + draws) / total, 50 * (2 * wins + losses + draws) / total
    if not least - TOLERANCE <= float(row["win_rate"]) <= most + TOLERANCE:
        return "win_rate"
    if row["discrete_win_rate"] and not says(row["discrete_win_rate"], discrete):
        return "discrete_win_rate"
    if annotator == RANKED:
        # Its judgements are wins, losses and draws alone, which then say all.
        ours = describe([2.0] * wins + [1.0] * losses + [1.5] * draws)
        for figure in ("win_rate", "standard_error"):
            if not says(row[figure], ours[figure]):
                return figure
    return None


@pytest.mark.parametrize("annotator", [WEIGHTED, RANKED])
def test_every_line_of_a_published_leaderboard_fits_together_but_for_four(
    oracles: Path, annotator: str
) -> None:
    board = leaderboard(oracles / f"alpaca_eval/leaderboards/{annotator}_leaderboard.csv")
    assert len(board) > 100
    found = {name: unfitting(row, annotator) for name, row in board.items()}
    assert {name: figure for name, figure in found.items() if figure} == UNFITTING[annotator]


def test_mini_limas_win_rate_says_what_its_dropped_prompts_leave_open(oracles: Path) -> None:
    rows = read(oracles / STORED[0][0] / "annotations.json")
    metric = win_rate_metric(describe([row["preference"] for row in rows]), len(rows))
    assert (metric.judged, metric.expected) == (713, 805)
    assert metric.value == pytest.approx(29.3, abs=0.05)
    assert metric.lower_bound == pytest.approx(26.0, abs=0.05)
    assert metric.upper_bound == pytest.approx(37.4, abs=0.05)


def test_mini_limas_judge_favours_a_place_as_is_known_of_it(oracles: Path) -> None:
    rows = read(oracles / STORED[0][0] / "annotations.json")
    bias = position_bias(
        (shows_model_first("chatgpt", row["instruction"]), row["preference"])
        for row in rows
        if row["output_1"] != row["output_2"]
    )
    assert bias["shown_first"]["win_rate"] == pytest.approx(47, abs=0.5)
    assert bias["shown_second"]["win_rate"] == pytest.approx(8, abs=0.5)
    assert bias["shown_first"]["judged"] + bias["shown_second"]["judged"] == 713
    assert position_findings(bias)[0].kind == "position_bias"
