"""The shift between judges: against exact integration, its limits, and its coverage."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from harness.stats import bridge
from harness.stats.bridge import Shift, bridged, difference, log_odds, of_log_odds, predict, shift

THREE = [Shift(0.10, 0.08, 805), Shift(0.55, 0.12, 300), Shift(-0.20, 0.10, 805)]


def exact_density(shifts: list[Shift], theta: float) -> float:
    """Unnormalised predictive density by quadrature over the spread and the mean."""
    means, logs = np.linspace(-4, 4, 401)[None, :], np.linspace(-6, 3.5, 96)[:, None]
    spread = np.exp(logs)
    t = (logs - math.log(bridge.PRIOR_MEDIAN)) / bridge.PRIOR_SCALE
    product = stats.t.pdf(t, bridge.PRIOR_DF) * stats.norm.pdf(theta, means, spread)
    for each in shifts:
        product = product * stats.norm.pdf(each.value, means, np.hypot(spread, each.error))
    return float(integrate.simpson(integrate.simpson(product, x=means[0]), x=logs[:, 0]))


def test_the_prediction_is_that_of_exact_integration() -> None:
    shifts = THREE
    points = np.linspace(-6, 6, 49)
    density = np.array([exact_density(shifts, theta) for theta in points])
    cumulative = integrate.cumulative_simpson(density, x=points, initial=0)
    found = predict(shifts)
    inside = np.interp([found.low, found.high], points, cumulative / cumulative[-1])
    assert inside == pytest.approx([0.025, 0.975], abs=0.006)
    assert found.models == 3


def test_one_or_two_models_take_the_spread_of_the_boards() -> None:
    one = predict(THREE[:1])
    half = 1.959964 * math.sqrt(bridge.SPREAD**2 * 2 + 0.08**2)
    assert (one.mean, one.spread) == pytest.approx((0.10, bridge.SPREAD))
    assert (one.low, one.high) == pytest.approx((0.10 - half, 0.10 + half), abs=1e-6)
    two = predict(THREE[:2])
    assert two.high - two.low < one.high - one.low
    with pytest.raises(ValueError, match="no bridging model"):
        predict([])


def test_many_models_that_agree_leave_the_error_of_their_mean() -> None:
    found = predict([Shift(0.3, 0.01, 805)] * 40)
    assert found.mean == pytest.approx(0.3)
    assert found.high - found.low < 0.1


def test_a_paired_shift_and_its_error() -> None:
    random = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(400):
        u = random.random(400)
        v = np.where(random.random(400) < 0.4, random.random(400), u)
        found = shift((u < 0.2).astype(float).tolist(), (v < 0.3).astype(float).tolist())
        values.append(found.value)
        errors.append(found.error)
    truth = log_odds(0.2) - log_odds(0.3)
    assert np.mean(values) == pytest.approx(truth, abs=0.02)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_judges_who_agree_everywhere_or_never_find_a_win_still_leave_an_error() -> None:
    lost = shift([0.0] * 100, [0.0] * 100)
    assert lost.value == 0
    assert lost.error > 0.5
    assert 0 < shift([1.0, 0.0] * 50, [1.0, 0.0] * 50).error < 0.1
    with pytest.raises(ValueError, match="29 prompts judged by both, 30 are needed"):
        shift([0.0] * 29, [1.0] * 29)
    with pytest.raises(ValueError, match="30 scores of the retired judge, 31 of today's"):
        shift([0.0] * 30, [1.0] * 31)


def test_a_score_in_the_retired_judges_terms_stays_a_share() -> None:
    predicted = predict(THREE)
    for share in (0.001, 0.1, 0.5, 0.999):
        ours = bridged(share, share - 0.02, share + 0.02, predicted)
        assert 0 <= ours.low < ours.value < ours.high <= 1
        assert ours.value == pytest.approx(of_log_odds(log_odds(share) + predicted.mean))
    ours = bridged(0.1, 0.08, 0.12, predicted)
    moved = bridged(0.1001, 0.08, 0.12, predicted).value - ours.value
    assert moved / 0.0001 == pytest.approx(ours.slope, rel=1e-2)
    low, high = difference(ours, 0.1, 0.02)
    assert low < ours.low - 0.1
    assert high > ours.high - 0.1
    assert difference(ours, 0.1, 0.0) == pytest.approx((ours.low - 0.1, ours.high - 0.1))


@pytest.mark.parametrize(("models", "spread"), [(2, 0.2), (5, 0.1), (5, 0.5), (10, 0.3)])
def test_the_interval_holds_another_models_shift(models: int, spread: float) -> None:
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        shifts = [
            Shift(spread * random.standard_normal() + 0.1 * random.standard_normal(), 0.1, 805)
            for _ in range(models)
        ]
        found = predict(shifts)
        hits += found.low <= spread * random.standard_normal() <= found.high
    assert hits >= 0.91 * 300


def test_of_equally_many_prompts_no_models_shift_weighs_less_than_anothers() -> None:
    """An error made of a few wins hangs together with its shift."""
    values, errors = (0.0, 0.1, 0.2, 1.5), (0.1, 0.1, 0.1, 0.9)
    given = [Shift(v, e, 50) for v, e in zip(values, errors, strict=True)]
    turned = [Shift(v, e, 50) for v, e in zip(values, reversed(errors), strict=True)]
    first, second = predict(given), predict(turned)
    assert (first.mean, first.low, first.high) == pytest.approx(
        (second.mean, second.low, second.high)
    )
    # Of more prompts it weighs more.
    known = [*given[:3], Shift(1.5, 0.9, 5000)]
    assert predict(known).mean > first.mean
