"""The win rate as AlpacaEval defines it, what unjudged prompts leave open about it, and whether it
hangs on the place in which an output was shown. Nothing here needs more than Python."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.common import numbers
from harness.errors import HarnessError

COLUMNS = (
    "win_rate",
    "standard_error",
    "mode",
    "avg_length",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
    "discrete_win_rate",
)
"""Of alpaca_eval 0.6.6's leaderboard.csv, after the generator's name."""

SIGNIFICANT, LARGE = 0.01, 10.0
"""A position bias worth a finding: p below the one, and percentage points from the other on."""

BASELINE, DRAW, MODEL = 1.0, 1.5, 2.0
"""A preference: 1 where the baseline's output is better, 2 where the model's is; judges that give
probabilities lie between."""


def is_judgement(preference: float | None) -> bool:
    """Whether this is a preference at all; what a package writes for a failure, -1 say, is none."""
    return preference is not None and (preference == 0 or BASELINE <= preference <= MODEL)


def describe(preferences: Sequence[float | None]) -> dict[str, Any]:
    """What alpaca_eval's `get_winrate` says of these preferences, leaving out what is none.

    win_rate is 100 * mean(preference - 1), standard_error 100 * the sample standard deviation
    (ddof 1) / sqrt(n), both in percent; standard_error is None for fewer than two judgements,
    win_rate for none.
    """
    # Older annotations write a draw as 0.
    wins = [(p or DRAW) - 1 for p in preferences if p is not None and is_judgement(p)]
    n = len(wins)
    mean, error = mean_and_error(wins) if wins else (None, None)
    return {
        "win_rate": None if mean is None else 100 * mean,
        "standard_error": None if error is None else 100 * error,
        "n_wins": sum(win > 0.5 for win in wins),
        "n_wins_base": sum(win < 0.5 for win in wins),
        "n_draws": sum(win == 0.5 for win in wins),
        "n_total": n,
        "discrete_win_rate": _discrete(wins),
    }


def win_rate_metric(described: dict[str, Any], expected: int) -> dict[str, Any]:
    """The metric from `describe`'s figures, or a leaderboard's, over `expected` prompts.

    The bounds count the unjudged prompts as all lost and as all won.

    Raises:
        HarnessError: more were judged than expected.
    """
    judged = described["n_total"]
    if judged > expected:
        raise HarnessError(f"{judged} judgements of {expected} prompts")
    won = described["win_rate"] * judged if judged else 0.0
    return {
        "value": described["win_rate"],
        "standard_error": described["standard_error"],
        "judged": judged,
        "expected": expected,
        "wins": described["n_wins"],
        "losses": described["n_wins_base"],
        "draws": described["n_draws"],
        **bounds(won, judged, expected, 0, 100),
    }


def bounds(
    total: float, judged: int, expected: int, lowest: float, highest: float
) -> dict[str, float]:
    """Of a mean over `expected` prompts, of which those judged sum to `total`: the others are given
    the lowest and the highest score."""
    unjudged = expected - judged
    return {
        "lower_bound": (total + unjudged * lowest) / expected,
        "upper_bound": (total + unjudged * highest) / expected,
    }


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error, sample standard deviation (ddof 1) / sqrt(n); None for a single
    value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


def metrics_of_sets(
    sets: Sequence[str | None], preferences: Sequence[float | None]
) -> dict[str, dict[str, Any]]:
    """`win_rate/SET` for each of the prompt sets in `sets`, one a preference; None is no set."""
    metrics = {}
    for name in dict.fromkeys(s for s in sets if s is not None):
        of_set = [p for p, s in zip(preferences, sets, strict=True) if s == name]
        metrics[f"win_rate/{name}"] = win_rate_metric(describe(of_set), len(of_set))
    return metrics


def position_bias(rows: Iterable[tuple[bool, float | None]]) -> dict[str, Any]:
    """How a model fares where it is shown first and where it is shown second.

    rows: of each prompt that a judge was shown, whether the model's output came first, and the
    preference (None: unjudged). Identical outputs, which no judge is shown, are to be left out.

    Returns shown_first and shown_second, each with win_rate and standard_error in percent (None where
    there are too few) and judged; their difference in percentage points; and p_value of Fisher's
    exact test, two-sided, on wins and losses, draws left out. The last two are None where one of the
    places was never judged. The order is drawn for each prompt, so that without a bias only chance
    tells the two apart.
    """
    by_place: dict[bool, list[float | None]] = {True: [], False: []}
    for is_first, preference in rows:
        by_place[is_first].append(preference)
    first, second = describe(by_place[True]), describe(by_place[False])
    places = {
        name: {
            "win_rate": described["win_rate"],
            "standard_error": described["standard_error"],
            "judged": described["n_total"],
        }
        for name, described in (("shown_first", first), ("shown_second", second))
    }
    if first["n_total"] == 0 or second["n_total"] == 0:
        return {**places, "difference": None, "p_value": None}
    return {
        **places,
        "difference": first["win_rate"] - second["win_rate"],
        "p_value": fisher(
            first["n_wins"], first["n_wins_base"], second["n_wins"], second["n_wins_base"]
        ),
    }


def position_note(bias: dict[str, Any]) -> str:
    """The same in words; empty where nothing was judged in an order."""
    if not bias["shown_first"]["judged"] and not bias["shown_second"]["judged"]:
        return ""

    def told(place: dict[str, Any]) -> str:
        if not place["judged"]:
            return "was never judged"
        spread = numbers.error(place["standard_error"], 1)
        return f"wins {place['win_rate']:.1f}{spread} % of {place['judged']}"

    text = f"shown first the model {told(bias['shown_first'])}, "
    text += f"shown second {told(bias['shown_second'])}"
    if bias["p_value"] is not None:
        text += f" (difference {bias['difference']:+.1f} points, p = {bias['p_value']:.2g})"
    return text


def position_findings(bias: dict[str, Any]) -> list[dict[str, Any]]:
    """A finding where the bias is both significant and large."""
    if bias["p_value"] is None or bias["p_value"] >= SIGNIFICANT or abs(bias["difference"]) < LARGE:
        return []
    message = f"the judge favours a place: {position_note(bias)}"
    return [{"kind": "position_bias", "severity": "warning", "message": message, "evidence": bias}]


def position_notes(bias: dict[str, Any]) -> list[str]:
    """`position_note`, where no finding says the same."""
    note = position_note(bias)
    return [note] if note and not position_findings(bias) else []


def write_leaderboard(
    path: Path, name: str, outputs: Sequence[str], described: dict[str, Any]
) -> None:
    """A leaderboard.csv of one row, in alpaca_eval's columns."""
    length = sum(len(output) for output in outputs) / len(outputs)
    row = {"mode": "community", "avg_length": int(length), **described}
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["", *COLUMNS])
        table.writerow([name, *("" if row[c] is None else row[c] for c in COLUMNS)])


def read_leaderboard(path: Path, name: str) -> dict[str, Any]:
    """The figures of one row of a leaderboard.csv, under `describe`'s names.

    Raises:
        HarnessError: the row or one of its figures is not there.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    try:
        row = rows[name]
        counts = {c: int(row[c]) for c in ("n_wins", "n_wins_base", "n_draws", "n_total")}
        error = row["standard_error"]
        return {
            "win_rate": float(row["win_rate"]),
            "standard_error": float(error) if error else None,
            **counts,
            "discrete_win_rate": float(row["discrete_win_rate"]),
        }
    except (KeyError, ValueError) as e:
        raise HarnessError(f"{path} has no usable row for {name!r}: {e}") from None


def differences(first: dict[str, Any], second: dict[str, Any], tolerance: float) -> list[str]:
    """The figures in which two descriptions differ by more than `tolerance`."""

    def same(a: float | None, b: float | None) -> bool:
        return a == b if a is None or b is None else abs(a - b) <= tolerance

    return [f"{c}: {first[c]} and {second[c]}" for c in first if not same(first[c], second[c])]


def _discrete(wins: Sequence[float]) -> float | None:
    """The win rate with every judgement rounded to a win, a draw or a loss."""
    if not wins:
        return None
    return 100 * sum(win if win == 0.5 else round(win) for win in wins) / len(wins)


def fisher(wins: int, losses: int, other_wins: int, other_losses: int) -> float:
    """Two-sided p of Fisher's exact test: the share of all tables with these margins that are no more
    likely than this one."""
    n, other_n, total = wins + losses, other_wins + other_losses, wins + other_wins

    def log_choose(a: int, b: int) -> float:
        return math.lgamma(a + 1) - math.lgamma(b + 1) - math.lgamma(a - b + 1)

    def log_share(k: int) -> float:
        return log_choose(n, k) + log_choose(other_n, total - k) - log_choose(n + other_n, total)

    # Tables that mirror each other are equally likely but for the last bits.
    most = log_share(wins) + 1e-7
    possible = range(max(0, total - other_n), min(n, total) + 1)
    return min(1.0, math.fsum(math.exp(log_share(k)) for k in possible if log_share(k) <= most))
