"""The verdict's rule and the pooling of replicates against answers worked out by hand."""

import math
from typing import Any

import pytest

from harness.report.verdict import judge, pool
from harness.spec.models import Reported


def measured(value: float, error: float | None = 0.5, **more: Any) -> dict[str, Any]:
    return {"value": value, "standard_error": error, "judged": 100, "expected": 100, **more}


@pytest.mark.parametrize(
    ("reported", "ours", "verdict", "words"),
    [
        # 95 %: 0 ± 1.96 * 0.5, within ±3.
        (Reported(value=80), [measured(80)], "reproduced", "between -1.0 and +1.0 points"),
        # 2.5 ± 0.98 reaches past the margin, and begins within it.
        (Reported(value=80), [measured(82.5)], "inconclusive", "between +1.5 and +3.5 points"),
        (Reported(value=80), [measured(90)], "not reproduced", "between +9.0 and +11.0 points"),
        (Reported(value=80), [measured(70)], "not reproduced", "between -11.0 and -9.0 points"),
        # An error of the reported number as large as ours: ± 1.96 * 2 * sqrt(2).
        (
            Reported(value=80, standard_error=2),
            [measured(80, 2.0)],
            "inconclusive",
            "between -5.5 and +5.5 points",
        ),
        (Reported(value=80), [measured(80, 2.0)], "inconclusive", "between -3.9 and +3.9"),
        # Replicates that spread: sd 5.66, so ± 1.96 * sqrt(0.25 + 32 / 2).
        (Reported(value=80), [measured(76), measured(84)], "inconclusive", "between -7.9 and +7.9"),
        (Reported(value=80), [measured(80)] * 2, "reproduced", "between -1.0 and +1.0"),
    ],
)
def test_the_verdict_follows_from_the_interval_of_the_difference(
    reported: Reported, ours: list[dict[str, Any]], verdict: str, words: str
) -> None:
    found = judge(reported, pool(ours), [])
    assert found.name == verdict
    assert words in found.reason


def test_unjudged_prompts_widen_the_interval_by_their_bounds() -> None:
    whole = measured(80, lower_bound=80, upper_bound=80)
    holes = measured(80, judged=95, lower_bound=76, upper_bound=81)
    assert judge(Reported(value=80), pool([whole]), []).name == "reproduced"
    found = judge(Reported(value=80), pool([holes]), [])
    assert found.name == "inconclusive"
    assert "between -5.0 and +2.0 points" in found.reason


def test_what_cannot_be_compared_is_said_to_be_so_and_why() -> None:
    ours = pool([measured(80)])
    assert judge(Reported(value=80), None, []).name == "not run"
    no_number = judge(None, ours, [])
    assert (no_number.name, no_number.reason) == ("not comparable", "no number was reported")
    no_error = judge(Reported(value=80), pool([measured(80, None)]), [])
    assert no_error.name == "not comparable"
    assert "standard error" in no_error.reason


def test_a_simulated_number_is_never_given_another_verdict() -> None:
    for value in (80, 10):
        found = judge(Reported(value=80), pool([measured(value)]), ["teacher", "judge"])
        assert found.name == "simulated"
        assert found.reason == "simulated: teacher, judge"


def test_one_replicate_pools_to_itself() -> None:
    one = measured(37.5, 1.25, wins=3, losses=5, lower_bound=30.0, upper_bound=40.0)
    pooled = pool([one])
    assert {name: pooled[name] for name in one} == one
    assert pooled["replicate_sd"] is None
    assert pooled["replicates"] == 1


def test_replicates_pool_to_mean_root_mean_square_error_sample_sd_and_summed_counts() -> None:
    pooled = pool(
        [
            measured(70, 3.0, lower_bound=69, upper_bound=71),
            measured(74, 4.0, judged=90, lower_bound=66, upper_bound=76),
        ]
    )
    assert pooled["value"] == 72
    assert pooled["standard_error"] == pytest.approx(math.sqrt((9 + 16) / 2))
    assert pooled["replicate_sd"] == pytest.approx(math.sqrt(8))
    assert (pooled["judged"], pooled["expected"]) == (190, 200)
    assert (pooled["lower_bound"], pooled["upper_bound"]) == (67.5, 73.5)


def test_a_standard_error_that_one_replicate_lacks_is_not_made_up_from_the_others() -> None:
    assert pool([measured(70), measured(72, None)])["standard_error"] is None
