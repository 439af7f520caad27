"""Paired differences against scipy's, and what they must be by their definition."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from harness.stats.paired import flips, paired, sign_test


def test_without_bounds_the_interval_is_that_of_the_paired_t_test() -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(0.3, 1, 30), random.normal(0, 1, 30)
    found = paired([first.tolist()], [second.tolist()])
    theirs = ttest_rel(first, second)
    interval = theirs.confidence_interval()
    assert found.difference == pytest.approx(float((first - second).mean()))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.standard_error == pytest.approx(found.difference / theirs.statistic)


def test_what_both_find_hard_cancels() -> None:
    hard = [0.0, 100.0] * 50
    shifted = [*hard[:-1], 0.0]
    found = paired([hard], [shifted], (0, 100))
    assert found.difference == 1
    assert found.standard_error is not None
    assert found.standard_error < 2  # of each alone it is 5


def test_prompts_without_a_flip_leave_an_interval() -> None:
    same = [0.0, 100.0] * 50
    found = paired([same], [same], (0, 100))
    assert found.low is not None
    assert found.low == pytest.approx(-1.984 * 100 * math.sqrt(2) / 102, rel=1e-3)
    assert found.smallest_seen is not None
    assert found.smallest_seen > 2


def test_an_interval_does_not_pass_the_largest_difference_there_is() -> None:
    found = paired([[100.0] * 20], [[0.0] * 20], (0, 100))
    assert found.high == 100


@pytest.mark.parametrize("prompts", [40, 80])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.08, 0.15])
@pytest.mark.parametrize("others", [0.0, 0.02])
def test_flips_that_go_one_way_are_covered(prompts: int, share: float, others: float) -> None:
    """Exactly, over all that the trinomial can give."""
    covered = 0.0
    for up in range(prompts + 1):
        for down in range(prompts + 1 - up if others else 1):
            chance = (
                math.comb(prompts, up) * math.comb(prompts - up, down) * share**up * others**down
                * (1 - share - others) ** (prompts - up - down)
            )  # fmt: skip
            if chance < 1e-6:
                continue
            found = paired([[100.0] * up + [0.0] * (prompts - up)],
                           [[0.0] * up + [100.0] * down + [0.0] * (prompts - up - down)],
                           (0, 100))  # fmt: skip
            assert found.low is not None
            assert found.high is not None
            assert found.low <= found.difference <= found.high
            covered += chance * (found.low <= 100 * (share - others) <= found.high)
    assert covered > 0.945


def test_an_interval_holds_its_estimate_at_the_end_of_the_range() -> None:
    for prompts in (2, 3, 10, 500):
        found = paired([[100.0] * prompts] * 5, [[0.0] * prompts] * 5, (0, 100))
        assert found.high == 100


@pytest.mark.parametrize(("prompts", "flipped"), [(40, 0.3), (200, 0.6), (805, 0.3)])
def test_what_a_draw_without_a_difference_says_would_be_seen_is_seen(
    prompts: int, flipped: float
) -> None:
    random = np.random.default_rng(3)

    def drawn(apart: float) -> Any:
        up, down = (flipped + apart) / 2, (flipped - apart) / 2
        up, down = (up, down) if down >= 0 else (apart, 0.0)
        a, b, c = random.multinomial(prompts, [up, down, 1 - up - down]).tolist()
        return paired([[100.0] * a + [0.0] * b + [50.0] * c],
                      [[0.0] * a + [100.0] * b + [50.0] * c], (0, 100))  # fmt: skip

    told = [drawn(drawn(0.0).smallest_seen / 100) for _ in range(300)]
    assert sum(not one.low <= 0 <= one.high for one in told) / 300 > 0.8 - 0.03


def test_trainings_that_differ_widen_the_interval() -> None:
    first = [[100.0] * 60 + [0.0] * 40, [100.0] * 60 + [0.0] * 40, [100.0] * 60 + [0.0] * 40]
    apart = [[100.0] * n + [0.0] * (100 - n) for n in (50, 60, 70)]
    second = [[0.0, 100.0] * 50] * 3
    alike, spread = paired(first, second, (0, 100)), paired(apart, second, (0, 100))
    assert alike.difference == pytest.approx(10)
    assert spread.difference == pytest.approx(10)
    assert alike.high is not None
    assert spread.high is not None
    # The mean's error between trainings is 10 / sqrt(3), and that from three of them.
    assert spread.high - 10 > 20
    assert alike.high - 10 < 14


def test_strata_weigh_alike_whatever_their_size() -> None:
    first = [100.0, 100.0, 0.0, 0.0, 0.0, 0.0]
    second = [0.0, 100.0, 0.0, 0.0, 0.0, 0.0]
    strata = ["a", "a", "b", "b", "b", "b"]
    found = paired([first], [second], None, strata)
    assert found.difference == 25  # (50 + 0) / 2
    # Of the first two: differences 100 and 0, variance of their mean 2500; of the others 0.
    assert found.standard_error == pytest.approx(math.sqrt(2500 / 4))
    assert paired([first], [second], None, ["a", *"bbbbb"]).standard_error is None


def test_a_single_prompt_has_no_interval() -> None:
    found = paired([[100.0]], [[0.0]], (0, 100))
    assert (found.difference, found.low, found.smallest_seen) == (100, None, None)


@pytest.mark.parametrize(("above", "below"), [(0, 5), (3, 9), (7, 7), (400, 310), (1500, 1400)])
def test_the_sign_test_is_the_binomial_one(above: int, below: int) -> None:
    expected = binomtest(above, above + below).pvalue
    assert sign_test(above, below) == pytest.approx(expected, rel=1e-11, abs=0)


def test_without_a_flip_there_is_no_p_value() -> None:
    assert sign_test(0, 0) is None


def test_flips_are_counted_over_the_prompts_of_both() -> None:
    first = {"a": "win", "b": "win", "c": "lose", "d": "draw"}
    second = {"a": "win", "b": "lose", "c": "draw", "e": "win"}
    assert flips(first, second, ("win", "draw", "lose")) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
