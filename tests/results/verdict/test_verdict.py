"""The verdict's rule and the pooling of replicates against answers worked out by hand."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from harness.artefact.manifest import MetricValue
from harness.results.verdict.deciding import more
from harness.results.verdict.evidence import Evidence, ScoredRun
from harness.results.verdict.forecast import decide
from harness.results.verdict.sides import UNKNOWN_SPREAD
from harness.results.verdict.verdict import MARGIN, Verdict, Weighed, judge, margin_of, pool
from harness.row.reported import Reported
from harness.row.row import Row
from harness.stats.intervals import error_of_mean, t_quantile, with_unjudged


def measured(value: float, error: float | None = 0.5, **more: Any) -> MetricValue:
    counts = {"judged": 1000, "expected": 1000, **more}
    return MetricValue(value=value, standard_error=error, **counts)


def one_run(metric: MetricValue, trained: bool = False, **more: Any) -> Evidence:
    trainings = ("model",) if trained else ()
    return Evidence({(0, 0, 0): ScoredRun(None, metric)}, (0, 100), trainings, False, True, **more)  # type: ignore[arg-type]


def of_grades(
    runs: Mapping[tuple[int, int, int], Sequence[float]], trained: bool = True, expected: int = 0
) -> Evidence:
    """The evidence that these grades in percent are."""
    metrics = {
        index: measured(
            statistics.fmean(grades),
            statistics.stdev(grades) / math.sqrt(len(grades)),
            judged=len(grades),
            expected=expected or len(grades),
        )
        for index, grades in runs.items()
    }
    trainings = tuple(str(t) for t in sorted({index[0] for index in runs})) if trained else ()
    return Evidence(
        {index: ScoredRun(None, metric) for index, metric in metrics.items()},  # type: ignore[arg-type]
        (0, 100),
        trainings,
        False,
        True,
        {index: dict(enumerate(grades)) for index, grades in runs.items()} if len(runs) > 1 else {},
    )


def judged(reported: Reported | None, evidence: Evidence | None, **more: Any) -> Verdict:
    return judge(reported, evidence, [], **more).verdict


def grades(wins: int, n: int = 1000, first: int = 0) -> list[float]:
    return [100.0 if first <= number < first + wins else 0.0 for number in range(n)]


def test_the_interval_of_the_difference_has_the_errors_of_both_sides() -> None:
    found = judged(Reported(value=60, standard_error=1.5), one_run(measured(62, 1.2)))
    ours = error_of_mean(62, 1.2, 1000, (0, 100))
    theirs = error_of_mean(60, 1.5, 1000, (0, 100))
    half = t_quantile(2 * 999) * math.hypot(ours, theirs)
    assert found.difference == 2
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert half == pytest.approx(1.96 * math.hypot(1.5, 1.2), rel=0.01)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (60.0, "reproduced"),  # ± 1.4
        (62.5, "inconclusive"),
        (57.0, "inconclusive"),
        (65.0, "not reproduced"),
        (55.0, "not reproduced"),
    ],
)
def test_the_verdict_follows_from_the_interval(value: float, verdict: str) -> None:
    found = judged(Reported(value=60, standard_error=0.5), one_run(measured(value)))
    assert found.name == verdict
    assert found.margin == MARGIN


@pytest.mark.parametrize(
    ("reported", "words"),
    [(1.0, ", within which even 0 lies"), (98.5, ", within which even 100 lies"), (3.0, "")],
)
def test_a_margin_that_holds_an_end_of_the_scale_is_told(reported: float, words: str) -> None:
    found = judged(Reported(value=reported, standard_error=0.1), one_run(measured(reported, 0.1)))
    assert found.name == "reproduced"
    assert found.reason.partition("margin 3")[2] == words


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-3.0, 3.0, "reproduced"),
        (-3.1, 1.0, "inconclusive"),
        (2.9, 9.0, "inconclusive"),
        (3.1, 9.0, "not reproduced"),
        (-9.0, -3.1, "not reproduced"),
        (-9.0, 9.0, "inconclusive"),
    ],
)
def test_an_interval_decides_by_where_it_lies(low: float, high: float, verdict: str) -> None:
    assert decide(low, high, 3.0) == verdict


def test_a_reported_number_without_an_error_has_the_largest_that_it_can_have() -> None:
    told = judge(Reported(value=20, judged=400), one_run(measured(20)), [])
    assert told.reported_error_from == "binomial"
    assert told.reported_error == pytest.approx(100 * math.sqrt(0.2 * 0.8 / 399))
    as_ours = judge(Reported(value=20), one_run(measured(20)), [])
    assert as_ours.reported_error == pytest.approx(100 * math.sqrt(0.2 * 0.8 / 999))


def test_unjudged_prompts_widen_the_interval_at_both_ends() -> None:
    whole = judged(Reported(value=80, standard_error=0.5), one_run(measured(80)))
    holes = measured(80, judged=900)
    found = judged(Reported(value=80, standard_error=0.5), one_run(holes))
    side = with_unjudged(80, 0.5, 900, 1000, (0, 100))
    assert (side.low, side.high) == (72, 82)
    assert whole.name == "reproduced"
    assert found.name == "inconclusive"
    assert found.low is not None
    assert found.high is not None
    assert found.low < 72 - 80
    assert found.high > 82 - 80
    # Our own interval is as if they were like the others.
    assert found.reproduced_low == pytest.approx(whole.reproduced_low, abs=0.1)


def test_what_the_published_run_left_unjudged_widens_the_interval_too() -> None:
    whole = judged(Reported(value=30, standard_error=1.0), one_run(measured(30)))
    holes = Reported(value=30, standard_error=1.0, judged=700, expected=800)
    found = judged(holes, one_run(measured(30)))
    assert whole.name == "reproduced"
    assert found.name == "inconclusive"
    assert found.low is not None
    assert found.high is not None
    # All of its 100 won it were 38.75, all lost 26.25.
    assert found.low < 30 - 38.75
    assert found.high > 30 - 26.25


def test_prompts_that_all_went_one_way_leave_an_interval() -> None:
    found = judged(
        Reported(value=0, standard_error=0), one_run(measured(0, 0.0, judged=50, expected=50))
    )
    assert found.low is not None
    assert found.low < -1
    assert found.reproduced_high is not None
    assert found.reproduced_high > 1
    assert found.reproduced_low == 0


def test_one_training_is_never_called_reproduced() -> None:
    evidence = one_run(measured(60), trained=True)
    found = judge(Reported(value=60, standard_error=0.5), evidence, [], margin=50)
    assert found.verdict.name == "inconclusive"
    assert found.verdict.more == (("train", 1),)
    assert found.foretold is not None
    assert not found.foretold.is_first
    assert "one training" in found.verdict.reason
    assert found.assumed == 100 * UNKNOWN_SPREAD


def test_one_training_is_called_not_reproduced_only_beyond_what_trainings_could_differ_by() -> None:
    near = judged(Reported(value=60, standard_error=0.5), one_run(measured(66), trained=True))
    assert judged(Reported(value=60, standard_error=0.5), one_run(measured(66))).name == (
        "not reproduced"
    )
    assert near.name == "inconclusive"
    far = judged(Reported(value=60, standard_error=0.5), one_run(measured(75), trained=True))
    assert far.name == "not reproduced"


def test_what_trainings_differ_by_enters_on_both_sides_and_once() -> None:
    alike = of_grades({(t, 0, 0): grades(600) for t in range(3)})
    apart = of_grades({(t, 0, 0): grades(600 + 20 * t) for t in (-1, 0, 1)})
    reported = Reported(value=60, standard_error=0.1)
    tight, wide = judge(reported, alike, []), judge(reported, apart, [])
    assert tight.reproduced is not None
    assert wide.reproduced is not None
    assert tight.reproduced.between == 0
    assert wide.reproduced.between == pytest.approx(4.0)  # sd 2 points
    assert wide.verdict.high is not None
    assert tight.verdict.high is not None
    # Beside the error over prompts of 1.55: 2 * sqrt(1 + 1/3) with two degrees of freedom.
    assert tight.verdict.high == pytest.approx(3.05, abs=0.05)
    assert 6 < wide.verdict.high < math.hypot(4.303 * 2 * math.sqrt(4 / 3), 3.05)


def test_noise_of_single_prompts_is_not_counted_again_as_a_spread_between_trainings() -> None:
    """Trainings of one score that win other prompts: what their prompts explain of the variance
    between them, which is in the errors over prompts, is taken out once for each of both sides."""
    runs = {(t, 0, 0): grades(600, first=50 * t) for t in range(3)}
    found = judge(Reported(value=60, standard_error=1.5), of_grades(runs), [])
    assert found.reproduced is not None
    assert found.reproduced.split is not None
    assert found.reported_span is not None
    assert found.verdict.high is not None
    within = found.reproduced.split.top.within
    assert within > 0.1
    known = (
        found.reproduced.span.low_error**2 + found.reported_span.low_error**2 - within * (1 + 1 / 3)
    )
    assert found.verdict.high == pytest.approx(t_quantile(2 * 999) * math.sqrt(known))


def test_judgings_average_their_noise_and_add_nothing_in_common() -> None:
    hard = grades(600)
    flipped = [grades(600, first=50 * j) for j in range(3)]
    once = judge(Reported(value=60, standard_error=0.5), of_grades({(0, 0, 0): hard}, False), [])
    thrice = judge(
        Reported(value=60, standard_error=0.5),
        of_grades({(0, 0, j): one for j, one in enumerate(flipped)}, False),
        [],
    )
    assert once.reproduced is not None
    assert thrice.reproduced is not None
    assert thrice.reproduced.replicated == ""
    assert thrice.reproduced.span.low_error < once.reproduced.span.low_error


def test_judgings_that_drift_are_counted_as_a_spread() -> None:
    drifting = {(0, 0, j): grades(500 + 60 * j) for j in range(3)}
    found = judge(Reported(value=56, standard_error=0.5), of_grades(drifting, False), [])
    assert found.reproduced is not None
    assert found.reproduced.replicated == "judge"
    assert found.verdict.name == "inconclusive"
    text = more(found, Reported(value=56, standard_error=0.5))
    assert "would not, if the difference stays at +0.00: endless ones would leave" in text
    # A standard deviation of 6 points between judgings: more prompts take nothing of it off.
    assert "leaves ±11.7" in text
    assert text.endswith("it takes more runs of the study's own, of which there is one")


def test_replicates_without_grades_count_what_they_differ_by() -> None:
    runs = {(t, 0, 0): ScoredRun(None, measured(60 + 2 * t, 0.1)) for t in (-1, 0, 1)}  # type: ignore[arg-type]
    evidence = Evidence(runs, (0, 100), ("a", "b", "c"), False, False)
    found = judge(Reported(value=60, standard_error=0.1), evidence, [])
    ours = found.reproduced
    assert ours is not None
    assert (ours.between, ours.df, ours.split) == (4.0, 2, None)
    assert found.verdict.name == "inconclusive"


def test_inconclusive_says_how_many_replicates_would_most_likely_decide() -> None:
    apart = of_grades({(t, 0, 0): grades(600 + 10 * t) for t in (-1, 0, 1)})
    reported = Reported(value=60, standard_error=0.1)
    found = judged(reported, apart, margin=4)
    assert found.name == "inconclusive"
    ((kind, count),) = found.more
    assert kind == "train"
    assert f"{count} more training" in found.reason
    # With as many more that differ as these do, it is decided.
    more = {(t, 0, 0): grades(600 + 10 * (t % 3 - 1)) for t in range(3 + count)}
    assert judged(reported, of_grades(more), margin=4).name == "reproduced"


def test_what_no_replicate_can_decide_is_said_to_be_so() -> None:
    once = judge(Reported(value=50, standard_error=1.8), one_run(measured(50, 1.8)), [])
    assert once.verdict.more == ()
    assert "replicates alone would not decide it" in once.verdict.reason
    assert once.foretold is not None
    # The reported number's error alone, which nothing here takes off.
    assert once.foretold.limit == pytest.approx(1.96 * 1.8, rel=0.01)
    hard = grades(500)
    same = of_grades({(0, 0, j): hard for j in range(2)}, trained=False)
    twice = judge(Reported(value=50, standard_error=1.0), same, [])
    assert twice.verdict.more == ()
    assert twice.foretold is not None
    # Judgings that agree in everything: all of our error is the choice of prompts.
    assert twice.foretold.limit == pytest.approx(1.96 * math.hypot(1.58, 1.0), rel=0.01)


def test_endless_replicates_leave_no_more_than_todays_interval() -> None:
    trainings = (grades(3, 6, 1), grades(4, 6, 2), grades(3, 6))
    few = of_grades({(t, 0, 0): of for t, of in enumerate(trainings)})
    found = judge(Reported(value=50, standard_error=0.3), few, [])
    assert found.foretold is not None
    assert found.interval is not None
    low, high = found.interval(0.95)
    assert found.foretold.limit == (high - low) / 2
    assert f"would leave ±{found.foretold.limit:.2g}" in found.verdict.reason


def test_a_kind_without_replicates_is_asked_for_where_it_could_decide() -> None:
    found = judge(Reported(value=50, standard_error=1.0), one_run(measured(50, 1.5)), [])
    assert found.verdict.name == "inconclusive"
    assert found.verdict.more == (("judge", 1),)
    assert "would show whether replicates can decide it" in found.verdict.reason
    trained = one_run(measured(50, 1.5), trained=True)
    found = judge(Reported(value=50, standard_error=0.5), trained, [])
    assert found.verdict.more == (("train", 2),)


def test_what_unjudged_prompts_leave_open_is_in_what_endless_replicates_leave() -> None:
    holes = Reported(value=11.42, standard_error=1.167, judged=744, expected=805)
    found = judge(holes, one_run(measured(11.42, 1.1)), [])
    assert found.foretold is not None
    # 61 of 805 prompts, all lost or all won.
    assert found.foretold.unjudged == pytest.approx(100 * 61 / 805 / 2)
    assert found.foretold.limit > found.foretold.unjudged + 1.96
    assert "±3.8 of it by unjudged prompts" in found.verdict.reason


def test_the_chance_of_a_verdict_is_how_often_more_trainings_give_one() -> None:
    """Of trainings that win prompts beyond the present ones, told before and run after."""
    random = np.random.default_rng(4)
    reported, n = Reported(value=40, standard_error=0.5), 4000
    told: list[float] = []
    came: list[bool] = []
    for _ in range(60):
        # Prompts stay; each training draws a fifth of them anew, and differs by 1 point.
        hard = random.random(n)
        runs: dict[tuple[int, int, int], list[float]] = {}
        for t in range(16):
            own = np.where(random.random(n) < 0.2, random.random(n), hard)
            runs[t, 0, 0] = (100.0 * (own < 0.4 + 0.01 * random.standard_normal())).tolist()
        now = judge(reported, of_grades({i: runs[i] for i in list(runs)[:2]}), [])
        if now.foretold is None or now.foretold.chance is None:
            continue
        ((kind, count),) = now.foretold.more
        if kind != "train" or count > 14:
            continue
        then = judged(reported, of_grades({i: runs[i] for i in list(runs)[: 2 + count]}))
        told.append(now.foretold.chance)
        came.append(then.name != "inconclusive")
    assert len(told) > 20
    assert statistics.fmean(came) == pytest.approx(statistics.fmean(told), abs=0.25)


def test_a_number_of_replicates_is_said_with_its_chance() -> None:
    apart = of_grades({(t, 0, 0): grades(600 + 10 * t) for t in (-1, 0, 1)})
    found = judge(Reported(value=60, standard_error=0.1), apart, [], margin=4)
    assert found.foretold is not None
    assert found.foretold.chance is not None
    assert 0 < found.foretold.chance < 1
    assert f"with a chance of about {100 * found.foretold.chance:.0f} %" in found.verdict.reason
    # Where they could be moved but little, it is as good as certain.
    wider = judge(Reported(value=60, standard_error=0.1), apart, [], margin=6)
    if wider.foretold is not None and wider.foretold.chance is not None:
        assert wider.foretold.chance >= found.foretold.chance


def test_the_run_without_a_standard_error_is_named() -> None:
    one = measured(100, None, judged=1)
    runs = {(0, 0, 0): ScoredRun(None, measured(60)), (1, 0, 0): ScoredRun(None, one)}  # type: ignore[arg-type]
    evidence = Evidence(runs, (0, 100), ("a", "b"), False, True)
    found = judged(Reported(value=60), evidence)
    assert found.name == "not comparable"
    assert found.reason == "the standard error is not known: run 2 of 2 has 1 judged prompt"


def test_what_cannot_be_compared_is_said_to_be_so_and_why() -> None:
    ours = one_run(measured(80))
    assert judged(Reported(value=80), None).name == "not run"
    no_number = judged(None, ours)
    assert (no_number.name, no_number.reason) == ("not comparable", "no number was reported")
    empty = judged(Reported(value=None), ours)
    assert (empty.name, empty.reason) == ("not comparable", "the study leaves this cell empty")
    no_error = judged(Reported(value=80), one_run(measured(80, None)))
    assert no_error.name == "not comparable"
    assert "standard error" in no_error.reason
    no_margin = judged(Reported(value=80), ours, margin=None)
    assert no_margin.name == "not comparable"
    assert "0.0000 below the reported number" in no_margin.reason


def test_a_number_that_cannot_be_compared_has_its_own_interval_all_the_same() -> None:
    found = judged(None, one_run(measured(80)))
    assert found.reproduced_low == pytest.approx(79, abs=0.1)
    assert found.reproduced_high == pytest.approx(81, abs=0.1)
    assert (found.low, found.margin) == (None, None)


def test_a_simulated_number_is_never_given_another_verdict() -> None:
    for value in (80, 10):
        found = judge(Reported(value=80), one_run(measured(value)), ["teacher", "judge"]).verdict
        assert found.name == "simulated"
        assert found.reason == "simulated: teacher, judge"


def row(**changes: Any) -> Row:
    return Row.model_validate({"row": "one", "table": "t", "title": "T", **changes})


@pytest.mark.parametrize(
    ("metric", "margin"),
    [
        ("win_rate", 3.0),
        ("win_rate/koala", 3.0),
        ("length_controlled_win_rate", 3.0),
        ("mmlu", 3.0),
        ("average", 3.0),
        ("rubric_score", None),
        ("winning_score", None),
        ("held_out_loss", None),
    ],
)
def test_percentages_have_a_margin_and_other_metrics_only_the_specs(
    metric: str, margin: float | None
) -> None:
    assert margin_of(row(), metric) == margin
    kind = metric.partition("/")[0]
    assert margin_of(row(margins={kind: 0.5}), metric) == 0.5
    assert margin_of(row(margins={"other": 0.5}), metric) == margin


def test_one_replicate_pools_to_itself() -> None:
    one = measured(37.5, 1.25, wins=3, losses=5, lower_bound=30.0, upper_bound=40.0)
    pooled = pool([one])
    assert pooled.to_json() == {
        **one.to_json(),
        "replicate_sd": None,
        "replicates": 1,
    }


def test_replicates_pool_to_mean_root_mean_square_error_sample_sd_and_summed_counts() -> None:
    pooled = pool(
        [
            measured(70, 3.0, lower_bound=69, upper_bound=71),
            measured(74, 4.0, judged=900, lower_bound=66, upper_bound=76),
        ]
    )
    assert pooled.value == 72
    assert pooled.standard_error == pytest.approx(math.sqrt((9 + 16) / 2))
    assert pooled.replicate_sd == pytest.approx(math.sqrt(8))
    assert (pooled.judged, pooled.expected) == (1900, 2000)
    assert (pooled.lower_bound, pooled.upper_bound) == (67.5, 73.5)


def test_a_standard_error_that_one_replicate_lacks_is_not_made_up_from_the_others() -> None:
    assert pool([measured(70), measured(72, None)]).standard_error is None


def test_a_verdict_is_the_same_whatever_ran_first() -> None:
    runs = {(t, 0, 0): grades(600 + 7 * t, first=3 * t) for t in range(4)}
    turned = dict(reversed(list(runs.items())))
    reported = Reported(value=61)
    first: Weighed = judge(reported, of_grades(runs), [])
    assert first == judge(reported, of_grades(turned), [])
