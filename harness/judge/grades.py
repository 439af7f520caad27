"""Pairwise grading's arithmetic: scores out of replies, verdicts out of scores, and position bias.

A judge scores two answers, once with the model's first and once with the baseline's. An order's verdict
is the sign of the difference, and win, tie or lose is the sign of both verdicts' sum (AlpaGasus, arXiv
2307.08701, section 4; its released code cuts the scores to integers before, this does not).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from harness.artefact.manifest import MetricValue
from harness.common import numbers
from harness.judge.scores import (
    BASELINE,
    DRAW,
    MODEL,
    PositionBias,
    describe,
    mean_and_error,
    place_figures,
    position_notes,
)

Scores = tuple[float, float]
"""Of the answer shown first, and of the one shown second."""
Orders = tuple[Scores, Scores]
"""What was given with the model's answer first, and with the baseline's first."""

PREFERENCES = {-1: BASELINE, 0: DRAW, 1: MODEL}


class GradingBias(PositionBias):
    """As `position_bias` says. Without a prompt the figures are None."""

    first_wins: int
    """Gradings that the answer in the first place won."""
    ties: int
    second_wins: int
    first_minus_second: float | None
    """Mean difference of the scores by place."""
    first_minus_second_standard_error: float | None
    orders_differ: float | None
    """Percent of prompts that got another verdict in the other order."""
    orders_opposed: float | None
    """Percent of those that got the opposite one."""


_FIRST_LINE = re.compile(
    r"""
    [\s*_`"'(\[]*                               # such as **8 7**
    (-?[0-9]+(?:\.[0-9]+)?) \s* [,;\s] \s* (-?[0-9]+(?:\.[0-9]+)?)
    [\s*_`"')\].]*
    """,
    re.VERBOSE,
)


def read_scores(reply: str, lowest: float, highest: float) -> Scores | None:
    """The two scores on a reply's first line that says anything, decimals as they are.

    None where that line holds anything else, or a score that is not in [lowest, highest].
    """
    match = _FIRST_LINE.fullmatch(reply.strip().partition("\n")[0])
    if match is None:
        return None
    first, second = float(match[1]), float(match[2])
    if not (lowest <= first <= highest and lowest <= second <= highest):
        return None
    return first, second


def verdicts(orders: Orders) -> tuple[int, int]:
    """Each order's verdict: 1 where the model's answer has the higher score, -1 where it has the
    lower one, 0 for equal ones."""
    model_first, baseline_first = orders
    return (
        _sign(model_first[0] - model_first[1]),
        _sign(baseline_first[1] - baseline_first[0]),
    )


def preference(orders: Orders) -> float:
    """1 where the model loses, 1.5 for a tie, 2 where it wins: by the sign of the verdicts' sum."""
    return PREFERENCES[_sign(sum(verdicts(orders)))]


def position_bias(graded: Sequence[Orders]) -> GradingBias:
    """How far the place decides, whichever answer stands there.

    Every prompt is shown in both orders, so that how good the answers are cancels out of it: what
    counts is the difference between a prompt's two orders.

    shown_first and shown_second: the model's win rate by one order's verdicts alone. p_value: of an
    exact sign test, two-sided, on the prompts whose orders favour one of the places.
    """
    both_verdicts = [verdicts(orders) for orders in graded]
    signs = [_sign(first - second) for orders in graded for first, second in orders]
    first_place, second_place = (
        place_figures(describe([PREFERENCES[of_pair[order]] for of_pair in both_verdicts]))
        for order in (0, 1)
    )
    shifts = [50.0 * (first - second) for first, second in both_verdicts]
    gaps = [((a[0] - a[1]) + (b[0] - b[1])) / 2 for a, b in graded]
    mean_gap, gap_error = mean_and_error(gaps) if gaps else (None, None)
    return {
        "shown_first": first_place,
        "shown_second": second_place,
        "difference": _mean(shifts),
        "p_value": _sign_test(shifts),
        "first_wins": signs.count(1),
        "ties": signs.count(0),
        "second_wins": signs.count(-1),
        "first_minus_second": mean_gap,
        "first_minus_second_standard_error": gap_error,
        "orders_differ": _mean([100.0 * (first != second) for first, second in both_verdicts]),
        "orders_opposed": _mean([100.0 * (first * second < 0) for first, second in both_verdicts]),
    }


def bias_notes(bias: GradingBias) -> list[str]:
    """Position bias in words, without those that a finding has; none where nothing was graded."""
    if bias["difference"] is None:
        return []
    within = numbers.error(bias["first_minus_second_standard_error"])
    return [
        *position_notes(bias),
        f"the answer shown first scored {bias['first_minus_second']:+.2f}{within} against the other "
        f"and won {bias['first_wins']} gradings, lost {bias['second_wins']}; "
        f"{bias['orders_differ']:.1f} % of the prompts got another verdict in the other order",
    ]


def winning_score(win_rate: MetricValue) -> MetricValue:
    """AlpaGasus's winning score, 1 + (wins - losses) / judged, out of the win rate's metric.

    2 where every prompt is won, 0 where every one is lost: the win rate on another scale.
    """

    def scaled(percent: float | None) -> float | None:
        return None if percent is None else percent / 50

    return replace(
        win_rate,
        value=scaled(win_rate.value),
        standard_error=scaled(win_rate.standard_error),
        lower_bound=scaled(win_rate.lower_bound),
        upper_bound=scaled(win_rate.upper_bound),
    )


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _sign_test(values: Sequence[float]) -> float | None:
    """Two-sided exact p of as many positive values as negative ones, zeros left out; None of none."""
    if not values:
        return None
    above, below = sum(value > 0 for value in values), sum(value < 0 for value in values)
    n = above + below
    tail = sum(math.comb(n, k) for k in range(min(above, below) + 1))
    p_value: float = 2 * tail / 2**n
    return min(1.0, p_value)
