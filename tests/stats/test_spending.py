"""Levels of several looks: what they spend, and that peeking does no harm."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from harness.stats.spending import levels


def test_the_looks_spend_what_one_look_would_and_little_at_first() -> None:
    for looks in (1, 2, 5, 20):
        found = levels(looks)
        assert len(found) == looks
        assert sum(1 - level for level in found) == pytest.approx(0.05)
        assert found == sorted(found, reverse=True)
        assert found[-1] < found[0] < 1 or looks == 1
        assert sum(1 - level for level in levels(looks, 0.99)) == pytest.approx(0.01)
    # Lan and DeMets' O'Brien-Fleming-like spending at a half of the information.
    assert 1 - levels(2)[0] == pytest.approx(0.0056, abs=1e-4)


def test_looking_at_every_step_is_wrong_as_rarely_as_looking_once() -> None:
    """A difference that lies at the margin: leaving it out at any look is wrong."""
    random = np.random.default_rng(0)
    runs, looks = 4000, 5
    steps = random.standard_normal((runs, looks)).cumsum(axis=1)
    means = steps / np.arange(1, looks + 1)
    errors = 1 / np.sqrt(np.arange(1, looks + 1))
    z = np.array([NormalDist().inv_cdf((1 + level) / 2) for level in levels(looks)])
    wrong = (np.abs(means) > z * errors).any(axis=1).mean()
    plain = (np.abs(means) > 1.96 * errors).any(axis=1).mean()
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    assert plain > 0.1
