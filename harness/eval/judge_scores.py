"""The win rate as AlpacaEval defines it, and what unjudged prompts leave open about it."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    mean = math.fsum(wins) / n if n else None
    return {
        "win_rate": None if mean is None else 100 * mean,
        "standard_error": _standard_error(wins),
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
    won = described["win_rate"] * judged
    return {
        "value": described["win_rate"],
        "standard_error": described["standard_error"],
        "judged": judged,
        "expected": expected,
        "wins": described["n_wins"],
        "losses": described["n_wins_base"],
        "draws": described["n_draws"],
        "lower_bound": won / expected,
        "upper_bound": (won + 100 * (expected - judged)) / expected,
    }


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


def differences(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> list[str]:
    """The figures in which two descriptions differ by more than `tolerance`."""

    def same(a: float | None, b: float | None) -> bool:
        return a == b if a is None or b is None else abs(a - b) <= tolerance

    return [f"{c}: {ours[c]} and {theirs[c]}" for c in ours if not same(ours[c], theirs[c])]


def _standard_error(wins: Sequence[float]) -> float | None:
    n = len(wins)
    if n < 2:
        return None
    mean = math.fsum(wins) / n
    return 100 * math.sqrt(math.fsum((win - mean) ** 2 for win in wins) / (n - 1) / n)


def _discrete(wins: Sequence[float]) -> float | None:
    """The win rate with every judgement rounded to a win, a draw or a loss."""
    if not wins:
        return None
    return 100 * sum(win if win == 0.5 else round(win) for win in wins) / len(wins)
