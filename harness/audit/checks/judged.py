"""Judged pairs, whoever judged them, and the checks on how the judging went: dropped rows, position,
length, and preferences that the judge's words do not bear out."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median

from harness.artefact.manifest import Severity
from harness.audit.checks.chance import larger, logistic, score_test
from harness.audit.model import EXAMPLES, SURE, Result, short
from harness.audit.parse.judged_pairs import JudgedPair
from harness.common import numbers
from harness.judge.scores import DRAW, bounds, describe, position_bias, position_note

FINDINGS = frozenset((
    "count_mismatch", "dropped_rows", "empty_or_truncated", "length_bias", "position_bias",
    "prompt_mismatch", "truncated_scores", "unparsed_scored",
))  # fmt: skip
"""What can be found in judged pairs, here and in the modules beside it."""
LOST_MARGIN = 3.0
"""Percentage points between the bounds from which on dropped rows leave the score unknown: the margin
within which a row counts as reproduced, unless its spec says otherwise."""
LOST_SHARE = 0.01
POSITION_POINTS, POSITION_ODDS = 10.0, 3.0
"""A position bias of practical size: so many points between the places, or such a ratio of the odds
and half as many points."""
LENGTH_EFFECT = 5.0
"""Points by which length moves the score."""
LENGTH_GAP = 40.0
"""Points between the win rates of longer and of shorter outputs from which on length is most of what
the judge sees, also where longer and shorter ones even out in the score."""
LENGTH_SIDE = 0.1
"""So large a share of the outputs must be longer, and shorter, than the baseline's before a score at
equal length is estimated: else it would be a guess far from what was seen."""
LENGTH_SURE = SURE / 10
"""p of the slope: where one is significant in few judgements, it is also large."""
FEWEST = 50
"""Judgements below which nothing is said of length."""
NO_BOUNDS = {"lower_bound": None, "upper_bound": None}
LARGEST = 1e6
"""Of a stored number, which is 1 to 2 as a preference, from which on no mean is made with it."""
UNREAD_MARGIN = 0.5
"""Points by which unread replies move the score from which on it is wrong."""


def measure(result: Result, rows: Sequence[JudgedPair], expected: int) -> None:
    """Set the metrics: win_rate and its bounds in percent, counts."""
    described = describe([row.preference for row in rows])
    judged = described["n_total"]
    expected = max(expected, judged)
    won = (described["win_rate"] or 0.0) * judged
    result.metrics = {
        "win_rate": described["win_rate"],
        "standard_error": described["standard_error"],
        "n_judged": judged,
        "n_expected": expected,
        **(bounds(won, judged, expected, 0, 100) if expected else NO_BOUNDS),
        **{name: value for name, value in described.items() if name != "n_total"},
    }


def check_dropped(
    result: Result, rows: Sequence[JudgedPair], missing: Sequence[str], why: str
) -> None:
    """dropped_rows: fewer prompts judged than expected.

    missing: outputs of prompts that have no row at all, as far as they are known. why: how one knows
    how many were expected.
    """
    m = result.metrics
    judged, expected = m["n_judged"], m["n_expected"]
    dropped = expected - judged
    if dropped <= 0:
        return
    none = [row for row in rows if row.preference is None]
    dropped_lengths = [length for row in none if (length := row.length) is not None]
    dropped_lengths += map(len, missing)
    judged_lengths = [
        len(row.output) for row in rows if row.preference is not None and row.output is not None
    ]
    counts = {"judged": judged, "expected": expected, "dropped": dropped}
    evidence = {**counts, "expected_from": why, **{name: m[name] for name in NO_BOUNDS}}
    evidence["examples"] = [
        {"instruction": short(row.instruction, 100), "characters": row.length}
        for row in none[:EXAMPLES]
    ]
    message = f"{numbers.out_of(judged, expected)} prompts were judged ({why})"
    if judged:
        message += (
            f"; with the other {dropped} lost the win rate is {m['lower_bound']:.1f}, with them won "
            f"{m['upper_bound']:.1f}, in place of {m['win_rate']:.1f}"
        )
    if dropped_lengths and judged_lengths:
        share, p = larger(dropped_lengths, judged_lengths)
        middle, judged_middle = median(dropped_lengths), median(judged_lengths)
        evidence |= {
            "mean_length_dropped": fmean(dropped_lengths),
            "mean_length_judged": fmean(judged_lengths),
            "median_length_dropped": middle,
            "median_length_judged": judged_middle,
            "longer_p_value": p,
        }
        if p < SURE and share != 0.5:
            word = "longer" if share > 0.5 else "shorter"
            message += (
                f"; the dropped outputs are {word} (median {middle:,.0f} characters, "
                f"the judged {judged_middle:,.0f}; p = {p:.1g}), so what was judged is no "
                "sample of all"
            )
    severity: Severity = "warning" if dropped >= LOST_SHARE * expected else "info"
    if not judged or m["upper_bound"] - m["lower_bound"] >= LOST_MARGIN:
        severity = "error"
    result.add("dropped_rows", severity, message, evidence)


def check_position(result: Result, rows: Sequence[JudgedPair], order_from: str) -> None:
    """position_bias, where each prompt was shown in one order, drawn for it."""
    bias = position_bias((row.first, row.preference) for row in rows if row.first is not None)
    if bias["p_value"] is None or bias["p_value"] >= SURE:
        return
    gap = abs(bias["difference"] or 0.0)
    rates = [bias["shown_first"]["win_rate"] or 0.0, bias["shown_second"]["win_rate"] or 0.0]
    odds = [max(r, 0.1) / max(100 - r, 0.1) for r in rates]
    ratio = max(odds) / min(odds)
    if gap < POSITION_POINTS and not (ratio >= POSITION_ODDS and gap >= POSITION_POINTS / 2):
        return
    result.add(
        "position_bias",
        "warning",
        f"the judge favours a place: {position_note(bias)}; what is measured is in part the place",
        {**bias, "odds_ratio": ratio, "order_from": order_from},
    )


def check_length(result: Result, rows: Sequence[JudgedPair]) -> None:
    """length_bias: by the published length-controlled win rate where there is one, and else by a
    logistic regression of the preference on tanh of the standardised difference in length (the length
    term of AlpacaEval's length control; Dubois et al., arXiv 2404.04475)."""
    shares_and_gaps = [
        (row.share, len(row.output) - len(row.baseline))
        for row in rows
        if row.preference is not None and row.output is not None and row.baseline is not None
        and row.output != row.baseline
    ]  # fmt: skip
    published = result.published
    raw, controlled = published.get("win_rate"), published.get("length_controlled_winrate")
    evidence = {}
    reasons = []
    if raw is not None and controlled is not None:
        evidence = {"win_rate": raw, "length_controlled_winrate": controlled}
        judged = published.get("n_judged") or len(shares_and_gaps)
        if abs(raw - controlled) >= LENGTH_EFFECT and judged >= FEWEST:
            reasons.append(
                f"the published win rate is {raw:.1f}, the length-controlled one {controlled:.1f} "
                f"({controlled - raw:+.1f} points)"
            )
    if len(shares_and_gaps) >= FEWEST:
        more_reasons, more_evidence = _length_in(shares_and_gaps, controlled is None)
        reasons += more_reasons
        evidence |= more_evidence
    if reasons:
        result.add(
            "length_bias", "warning", "length explains the score: " + "; ".join(reasons), evidence
        )


def _length_in(
    shares_and_gaps: Sequence[tuple[float, int]], estimates: bool
) -> tuple[list[str], dict[str, object]]:
    shares = [share for share, _ in shares_and_gaps]
    gaps = [gap for _, gap in shares_and_gaps]
    spread = math.sqrt(fmean(gap**2 for gap in gaps) - fmean(gaps) ** 2)
    if spread == 0:
        return [], {}
    x = [math.tanh(gap / spread) for gap in gaps]
    p = score_test(shares, x)
    longer = [share for share, gap in shares_and_gaps if gap > 0]
    shorter = [share for share, gap in shares_and_gaps if gap < 0]
    evidence: dict[str, object] = {
        "slope_p_value": p,
        "longer": {"judged": len(longer), "win_rate": 100 * fmean(longer) if longer else None},
        "shorter": {"judged": len(shorter), "win_rate": 100 * fmean(shorter) if shorter else None},
    }
    if p >= LENGTH_SURE or min(len(longer), len(shorter)) < max(10, LENGTH_SIDE * len(gaps)):
        return [], evidence
    intercept, slope = logistic(shares, x)
    equal, raw = 100 / (1 + math.exp(-intercept)), 100 * fmean(shares)
    evidence |= {"slope": slope, "win_rate_at_equal_length": equal}
    gap = 100 * (fmean(longer) - fmean(shorter))
    reasons = []
    if abs(gap) >= LENGTH_GAP:
        reasons.append(
            f"outputs longer than the baseline's win {numbers.percent(fmean(longer))} of "
            f"{len(longer)}, shorter ones {numbers.percent(fmean(shorter))} of {len(shorter)} "
            f"(p = {p:.1g})"
        )
    if estimates and abs(equal - raw) >= LENGTH_EFFECT:
        reasons.append(
            f"at equal length the win rate would be about {equal:.1f}, in place of {raw:.1f} "
            f"(p = {p:.1g})"
        )
    return reasons, evidence


def check_stored(
    result: Result,
    rows: Sequence[JudgedPair],
    unread: Sequence[int],
    what: Callable[[int], str] = lambda _: "",
) -> None:
    """unparsed_scored: numbers stored where no judgement was read.

    unread: the rows whose reply does not parse, though a number is stored. Rows whose number is no
    preference at all (-1, 3) count as well. what: of a row, the reply, for an example.
    """
    odd = [n for n, row in enumerate(rows) if row.number is not None and row.preference is None]
    faulty = sorted({*unread, *odd})
    if not faulty:
        return
    stored = [(row.number or DRAW) - 1 for row in rows if row.number is not None]
    out = set(faulty)
    right = [row.share for n, row in enumerate(rows) if row.preference is not None and n not in out]
    averaged = 100 * fmean(stored) if max(map(abs, stored)) < LARGEST else None
    without = 100 * fmean(right) if right else None
    effect = None if averaged is None or without is None else averaged - without
    published = result.published.get("win_rate")
    values = sorted({v for n in faulty if (v := rows[n].number) is not None})[:5]
    message = "1 reply that holds no judgement is stored as a number"
    if len(faulty) > 1:
        message = f"{len(faulty)} replies that hold no judgement are stored as numbers"
    message += f" ({', '.join(f'{v:g}' for v in values)})"
    if without is None:
        message += ": there is no judgement beside them"
    elif averaged is None:
        message += f": no mean can be made of that; over the others the win rate is {without:.2f}"
    else:
        message += f": averaged in, the win rate is {averaged:.2f}, without them {without:.2f}"
        if published is not None and abs(published - averaged) < abs(published - without):
            message += f"; the published {published:.2f} has them in"
    is_wrong = effect is None or abs(effect) >= UNREAD_MARGIN
    rates = {"win_rate_with": averaged, "win_rate_without": without, "effect": effect}
    examples = [
        {
            "instruction": short(rows[n].instruction),
            "reply": short(what(n)),
            "stored": _as_json(rows[n].number),
        }
        for n in faulty[:EXAMPLES]
    ]
    result.add(
        "unparsed_scored",
        "error" if is_wrong else "warning",
        message,
        {
            "rows": len(faulty),
            "of": len(rows),
            "stored_as": [_as_json(v) for v in values],
            **rates,
            "examples": examples,
        },
    )


def _as_json(number: float | None) -> float | str | None:
    """JSON has no infinite number."""
    return str(number) if number is not None and math.isinf(number) else number
