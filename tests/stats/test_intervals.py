"""Quantiles against scipy's, widths and bounds worked out by hand, coverage by quadrature."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import chdtri, ndtr, stdtrit

from harness.stats.intervals import (
    centre_of_mean,
    error_of_mean,
    half_width,
    mean_deviation,
    most_cautious_error,
    reach,
    t_quantile,
    with_unjudged,
)


@pytest.mark.parametrize("df", [1, 2, 4.5, 11.9, 12, 30, 79, 804, 1e6])
def test_the_t_quantile_is_scipys_to_five_digits(df: float) -> None:
    assert t_quantile(df) == pytest.approx(float(stdtrit(df, 0.975)), rel=2e-6)
    assert t_quantile(df, 0.6) == pytest.approx(float(stdtrit(df, 0.8)), rel=2e-6)


def test_without_end_the_t_quantile_is_the_normal_one() -> None:
    assert t_quantile(math.inf) == pytest.approx(1.959964, abs=1e-6)


def test_an_error_over_prompts_is_that_of_the_sample_with_one_score_at_each_end() -> None:
    scores = [0.0, 100.0, 100.0, 50.0, 100.0]
    error = float(np.std(scores, ddof=1) / math.sqrt(5))
    padded = [*scores, 0.0, 100.0]
    found = error_of_mean(70.0, error, 5, (0, 100))
    assert found == pytest.approx(float(np.std(padded) / math.sqrt(7)))
    assert centre_of_mean(70.0, 5, (0, 100)) == pytest.approx(float(np.mean(padded)))
    assert error_of_mean(70.0, error, 5, None) == error


def test_prompts_that_all_went_one_way_do_not_make_a_score_certain() -> None:
    assert 0.5 < error_of_mean(0.0, 0.0, 100, (0, 100)) < 2


def test_the_most_cautious_error_of_a_percentage_is_the_binomial_one() -> None:
    assert most_cautious_error(20, 101, (0, 100)) == pytest.approx(4.0)
    assert most_cautious_error(0, 805, (0, 100)) == 0
    # Of scores from 1 to 5: half of them 1 and half 5.
    assert most_cautious_error(3, 101, (1, 5)) == pytest.approx(0.2)


def test_unjudged_prompts_are_all_lost_at_one_end_and_all_won_at_the_other() -> None:
    judged = [100.0] * 6 + [0.0] * 2
    error = float(np.std(judged, ddof=1) / math.sqrt(8))
    side = with_unjudged(75.0, error, 8, 10, (0, 100))
    assert (side.low, side.high) == (60, 80)
    lost, won = [*judged, 0.0, 0.0], [*judged, 100.0, 100.0]
    for found, scores in ((side.low_error, lost), (side.high_error, won)):
        expected = error_of_mean(float(np.mean(scores)), float(np.std(scores, ddof=1) / math.sqrt(10)),
                                 10, (0, 100))  # fmt: skip
        assert found == pytest.approx(expected)


def test_where_every_prompt_was_judged_both_ends_are_the_score() -> None:
    side = with_unjudged(40.0, 2.0, 100, 100, (0, 100))
    assert side.low == side.high == 40
    assert side.low_error == side.high_error


def test_without_replicates_the_half_width_is_t_times_the_error() -> None:
    assert half_width(4.0, 0.0, 0, 804) == pytest.approx(2 * t_quantile(804))


def test_with_replicates_alone_it_is_theirs() -> None:
    assert half_width(0.0, 4.0, 2) == pytest.approx(2 * t_quantile(2))
    assert half_width(1e-9, 4.0, 1) == pytest.approx(2 * t_quantile(1), rel=1e-3)


def coverage(df: int, share: float, half: Callable[[float, float, int], float]) -> float:
    """How often an interval holds the truth when `share` of the variance is between replicates, by
    quadrature over the chi-squared distribution of what they show of it."""
    levels = (np.arange(2000) + 0.5) / 2000
    between = share * chdtri(df, 1 - levels) / df
    return float(np.mean([2 * ndtr(half(1 - share, b, df)) - 1 for b in between]))


@pytest.mark.parametrize("df", [1, 2, 3, 4, 6, 9, 19])
def test_the_interval_covers_95_percent_within_a_point_whatever_the_share_between_replicates(
    df: int,
) -> None:
    for share in (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.97, 0.999):
        assert coverage(df, share, half_width) == pytest.approx(0.95, abs=0.0105)


def test_an_interval_that_takes_few_replicates_for_many_would_not() -> None:
    """The check above finds what it is for."""

    def plain(known: float, between: float, df: int) -> float:
        return 1.96 * math.sqrt(known + between)

    assert coverage(1, 0.95, plain) < 0.85


@pytest.mark.parametrize("df", [1, 2, 4])
def test_what_few_replicates_would_see_is_seen_with_the_power_that_is_said(df: int) -> None:
    random = np.random.default_rng(df)
    mean = random.standard_normal(200_000)
    deviation = np.sqrt(random.chisquare(df, 200_000) / df)
    assert mean_deviation(df) == pytest.approx(deviation.mean(), rel=0.01)
    # From what they differ by on average.
    gap = reach(0.0, float(deviation.mean()) ** 2, df, math.inf, 0.8)
    assert gap / reach(0.0, 1.0, df, math.inf, 0.8) == pytest.approx(mean_deviation(df), rel=0.01)
    seen = abs(mean + gap) > t_quantile(df) * deviation
    assert seen.mean() == pytest.approx(0.8, abs=0.005)


def test_without_replicates_the_reach_is_the_sum_of_both_quantiles() -> None:
    assert reach(4.0, 0.0, 0, math.inf, 0.8) == pytest.approx(2 * (1.95996 + 0.84162), rel=1e-4)
