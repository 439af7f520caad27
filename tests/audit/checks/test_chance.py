"""The tests behind the findings, against scipy's and statsmodels' known values."""

import random

import pytest

from harness.audit.checks.chance import larger, logistic, score_test, two_sided
from harness.judge.scores import fisher

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("seed", range(20))
def test_fishers_test_is_scipys(seed: int) -> None:
    draw = random.Random(seed)
    a, b, c, d = (draw.randint(0, 60) for _ in range(4))
    assert fisher(a, b, c, d) == pytest.approx(
        scipy_stats.fisher_exact([[a, b], [c, d]])[1], rel=1e-11, abs=0
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_rank_test_is_scipys_with_ties(seed: int) -> None:
    draw = random.Random(seed)
    sample = [draw.randint(0, 30) for _ in range(draw.randint(5, 60))]
    other_sample = [draw.randint(0, 40) for _ in range(draw.randint(5, 60))]
    scipys = scipy_stats.mannwhitneyu(sample, other_sample, method="asymptotic")
    share, p = larger(sample, other_sample)
    assert p == pytest.approx(scipys.pvalue, rel=0, abs=1e-12)
    assert share == pytest.approx(scipys.statistic / len(sample) / len(other_sample))


def test_nothing_to_compare_is_no_difference() -> None:
    assert larger([], [1.0]) == (0.5, 1.0)
    assert larger([1.0, 1.0], [1.0]) == (0.5, 1.0)
    assert score_test([1.0, 1.0], [0.0, 1.0]) == score_test([0.0, 1.0], [1.0, 1.0]) == 1.0


def test_the_score_test_keeps_its_level() -> None:
    draw = random.Random(4)
    x = [draw.uniform(-1, 1) for _ in range(200)]
    p_values = [score_test([float(draw.random() < 0.2) for _ in x], x) for _ in range(2000)]
    assert sum(p < 0.05 for p in p_values) / 2000 == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(("intercept", "slope"), [(0.0, 1.0), (-2.0, 2.5), (1.0, -1.5)])
def test_a_logistic_regression_finds_what_made_the_data(intercept: float, slope: float) -> None:
    import math

    x = [k / 500 - 1 for k in range(1001)]
    shares = [1 / (1 + math.exp(-(intercept + slope * v))) for v in x]
    assert logistic(shares, x) == pytest.approx((intercept, slope), abs=0.01)


def test_data_that_length_separates_give_a_finite_slope() -> None:
    x = [k / 50 - 1 for k in range(101)]
    intercept, slope = logistic([float(v > 0) for v in x], x)
    assert 5 < slope < 1000
    assert abs(intercept) < slope


def test_two_sided_p_of_a_normal_variable() -> None:
    assert two_sided(1.959963985) == two_sided(-1.959963985) == pytest.approx(0.05)
    # Where 1 and the distribution function no longer differ: scipy.stats.norm.sf(20) * 2.
    assert two_sided(20) == pytest.approx(5.507248237212311e-89)
