"""Analysis of variance: against scipy's textbook sums, and against variances that were put in."""

import statistics

import numpy as np
import pytest

from harness.stats.variance import crossed, split

RNG = np.random.default_rng


def test_crossed_mean_squares_are_those_worked_out_by_hand() -> None:
    # Means of rows 3 and 5, of columns 2, 4, 6; every cell is row + column - 4, but for the corners.
    found = crossed([[1.0, 3.0, 5.0], [3.0, 5.0, 7.0]])
    assert found.mean == 4
    assert found.between == 2  # variance of 3 and 5
    assert found.within == 0
    assert found.columns == pytest.approx(4 / 3)  # variance of 2, 4, 6, over 3 prompts
    noisy = crossed([[2.0, 3.0, 4.0], [2.0, 5.0, 8.0]])
    # Residuals ±1, 0, ∓1: sum of squares 4, 2 degrees of freedom, 3 prompts.
    assert noisy.within == pytest.approx(4 / 2 / 3)
    assert noisy.common == pytest.approx(2 - 2 / 3)


def test_of_one_replicate_the_columns_are_the_squared_standard_error() -> None:
    row = [1.0, 0.0, 0.0, 1.0, 1.0]
    assert crossed([row]).columns == pytest.approx(statistics.variance(row) / 5)
    assert crossed([row]).between is None


def test_what_replicates_differ_by_beyond_their_prompts_is_never_below_0() -> None:
    # The rows' means are the same, their prompts are not.
    assert crossed([[1.0, 0.0], [0.0, 1.0]]).common == 0


def simulated(
    a: int, b: int, c: int, n: int, sd: dict[str, float], seed: int
) -> dict[tuple[int, int, int], dict[int, float]]:
    random = RNG(seed)
    prompts = sd["prompts"] * random.standard_normal(n)
    runs = {}
    for t in range(a):
        training = sd["train"] * random.standard_normal() + sd[
            "train_single"
        ] * random.standard_normal(n)
        for s in range(b):
            sampling = sd["sampling_single"] * random.standard_normal(n)
            for j in range(c):
                judging = sd["judge"] * random.standard_normal()
                judging = judging + sd["judge_single"] * random.standard_normal(n)
                grades = 50 + prompts + training + sampling + judging
                runs[t, s, j] = dict(enumerate(grades.tolist()))
    return runs


def test_parts_that_were_put_in_are_found_again() -> None:
    sd = {"prompts": 30.0, "train": 3.0, "train_single": 20.0, "sampling_single": 15.0,
          "judge": 1.0, "judge_single": 10.0}  # fmt: skip
    n, found = 200, []
    for seed in range(60):
        parts = split(simulated(4, 2, 3, n, sd, seed))
        assert parts is not None
        found.append(parts)
    for name, common, single in (("train", 9.0, 400 / n), ("judge", 1.0, 100 / n),
                                 ("sampling", 0.0, 225 / n)):  # fmt: skip
        mean = statistics.fmean(one.parts[name].common for one in found)
        assert mean == pytest.approx(common, abs=max(0.35 * common, 0.7))
        mean = statistics.fmean(one.parts[name].single for one in found)
        assert mean == pytest.approx(single, rel=0.1)
    assert statistics.fmean(one.prompts for one in found) == pytest.approx(900 / n, rel=0.1)


def test_only_kinds_with_replicates_have_a_part() -> None:
    sd = dict.fromkeys(("prompts", "train", "train_single", "sampling_single", "judge"), 1.0)
    sd["judge_single"] = 1.0
    for (a, b, c), kinds in {
        (3, 1, 1): ["train"],
        (1, 2, 1): ["sampling"],
        (1, 1, 2): ["judge"],
        (2, 1, 2): ["judge", "train"],
    }.items():
        found = split(simulated(a, b, c, 50, sd, 0))
        assert found is not None
        assert sorted(found.parts) == kinds
        top = a if a > 1 else b if b > 1 else c
        assert found.top.replicates == top


def test_prompts_that_a_run_did_not_judge_are_left_out_of_all() -> None:
    runs = {(0, 0, j): {p: float((p + j) % 3) for p in range(20)} for j in range(2)}
    whole = split(runs)
    del runs[0, 0, 1][7]
    found = split(runs)
    assert whole is not None
    assert found is not None
    assert (whole.complete, found.complete) == (20, 19)
    assert split({(0, 0, 0): {1: 0.0, 2: 1.0}, (0, 0, 1): {2: 1.0, 3: 0.0}}) is None


def test_a_common_effect_of_judgings_is_told_from_chance() -> None:
    sd = {"prompts": 30.0, "train": 0.0, "train_single": 0.0, "sampling_single": 0.0,
          "judge": 0.0, "judge_single": 20.0}  # fmt: skip
    told = [split(simulated(1, 1, 3, 100, sd, seed)) for seed in range(200)]
    share = statistics.fmean(one.parts["judge"].is_common for one in told if one)
    assert share == pytest.approx(0.05, abs=0.04)
    drifting = split(simulated(1, 1, 3, 100, {**sd, "judge": 20.0}, 1))
    assert drifting is not None
    assert drifting.parts["judge"].is_common


def test_the_order_of_runs_changes_nothing() -> None:
    runs = simulated(3, 2, 2, 40, dict.fromkeys(("prompts", "train", "train_single",
                     "sampling_single", "judge", "judge_single"), 2.0), 5)  # fmt: skip
    turned = dict(reversed(list(runs.items())))
    assert split(runs) == split(turned)
