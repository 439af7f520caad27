"""Small, seeded runs of benchmarks/verdict_error_rates.py and settle_error_rates.py: against the truth.

Tolerances are three Monte Carlo standard errors above what the benchmark finds with many runs.
"""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import ROOT

RUNS = 400


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


@pytest.fixture(scope="module")
def rates(benchmarks: None) -> Any:
    return importlib.import_module("verdict_error_rates")


@pytest.mark.parametrize(("trainings", "sd"), [(0, 0.0), (2, 3.0), (3, 3.0), (5, 1.0)])
@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_verdicts_at_the_margin_are_seldom_wrong_and_intervals_cover(
    rates: Any, trainings: int, sd: float, ties: float
) -> None:
    case = rates.Case(80, 20.0, 20.0, ties, trainings, sd, mean=0.6)
    found = rates.simulate(case, RUNS, seed=1)
    assert found.reproduced < 0.05 + 0.033
    assert found.not_reproduced < 0.05 + 0.033
    assert found.covered == pytest.approx(0.95, abs=0.01 + 0.033)


def test_without_a_difference_and_with_a_wide_margin_it_is_reproduced(rates: Any) -> None:
    found = rates.simulate(rates.Case(80, 0.0, 28.0, trainings=3, training_sd=1.0), RUNS, seed=2)
    assert found.reproduced > 0.7
    assert found.not_reproduced == 0


def test_one_training_is_never_reproduced_and_seldom_wrongly_not(rates: Any) -> None:
    at_margin = rates.Case(80, 3.0, 3.0, trainings=1, training_sd=3.0)
    found = rates.simulate(at_margin, RUNS, seed=3)
    assert found.reproduced == 0
    assert found.not_reproduced < 0.05


def test_prompts_dropped_because_they_were_lost_do_not_take_the_truth_out_of_the_interval(
    rates: Any,
) -> None:
    case = rates.Case(80, 0.0, 20.0, dropped=0.1, lost_dropped=True)
    assert rates.simulate(case, RUNS, seed=4).covered > 0.95 - 0.033


def test_the_paired_interval_covers_and_sees_what_it_says_it_can_see(rates: Any) -> None:
    case = rates.Case(80, training_noise=0.4, judging_noise=0.0, mean=0.5)
    found = rates.simulate_pairs(case, RUNS, seed=5)
    assert found.covered == pytest.approx(0.95, abs=0.01 + 0.033)
    assert found.sign_test < 0.05 + 0.033
    gap = found.smallest_seen
    apart = rates.simulate_pairs(
        rates.replace(case, difference=gap, mean=0.5 + gap / 200), RUNS, seed=6
    )
    assert apart.covered == pytest.approx(0.95, abs=0.01 + 0.033)
    assert apart.excludes_0 > 0.8 - 0.06


def test_looks_of_settle_are_seldom_wrong_and_buy_trainings_and_judgings(
    benchmarks: None, rates: Any
) -> None:
    settle = importlib.import_module("settle_error_rates")
    case = rates.Case(80, 20.0, 20.0, trainings=1, training_sd=1.0)
    found = settle.simulate(case, settle.levels(settle.LOOKS), 40, 1)
    assert found.reproduced < 0.05 + 0.103
    assert found.looks > 1
    assert found.trainings > 2
