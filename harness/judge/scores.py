"""The win rate as AlpacaEval defines it, what unjudged prompts leave open about it, and whether it
hangs on the place in which an output was shown. Nothing here needs more than Python."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

from harness.artefact.manifest import Finding, MetricValue
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


class Figures(TypedDict):
    """Of preferences, under the names of leaderboard.csv."""

    win_rate: float | None
    standard_error: float | None
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float | None


class PlaceFigures(TypedDict):
    """How a model fares in one place: in percent, None where there are too few."""

    win_rate: float | None
    standard_error: float | None
    judged: int


class PositionBias(TypedDict):
    """As `position_bias` says. `difference` in percentage points; None as `p_value` where one of the
    places was never judged."""

    shown_first: PlaceFigures
    shown_second: PlaceFigures
    difference: float | None
    p_value: float | None


def is_judgement(preference: float | None) -> bool:
    """Whether this is a preference at all; what a package writes for a failure, -1 say, is none."""
    return preference is not None and (preference == 0 or BASELINE <= preference <= MODEL)


def describe(preferences: Sequence[float | None]) -> Figures:
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


def win_rate_metric(figures: Figures, expected: int) -> MetricValue:
    """The metric from `describe`'s figures, or a leaderboard's, over `expected` prompts.

    The bounds count the unjudged prompts as all lost and as all won.

    Raises:
        HarnessError: more were judged than expected.
    """
    judged = figures["n_total"]
    if judged > expected:
        raise HarnessError(f"{judged} judgements of {expected} prompts")
    return MetricValue(
        value=figures["win_rate"],
        standard_error=figures["standard_error"],
        judged=judged,
        expected=expected,
        wins=figures["n_wins"],
        losses=figures["n_wins_base"],
        draws=figures["n_draws"],
        **bounds((figures["win_rate"] or 0.0) * judged, judged, expected, 0, 100),
    )


class Bounds(TypedDict):
    lower_bound: float
    upper_bound: float


def bounds(total: float, judged: int, expected: int, lowest: float, highest: float) -> Bounds:
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
) -> dict[str, MetricValue]:
    """`win_rate/SET` for each of the prompt sets in `sets`, one a preference; None is no set."""
    metrics = {}
    for name in dict.fromkeys(s for s in sets if s is not None):
        of_set = [p for p, s in zip(preferences, sets, strict=True) if s == name]
        metrics[f"win_rate/{name}"] = win_rate_metric(describe(of_set), len(of_set))
    return metrics


def place_figures(figures: Figures) -> PlaceFigures:
    return {
        "win_rate": figures["win_rate"],
        "standard_error": figures["standard_error"],
        "judged": figures["n_total"],
    }


def position_bias(rows: Iterable[tuple[bool, float | None]]) -> PositionBias:
    """How a model fares where it is shown first and where it is shown second.

    rows: of each prompt that a judge was shown, whether the model's output came first, and the
    preference (None: unjudged). Identical outputs, which no judge is shown, are to be left out.

    p_value is of Fisher's exact test, two-sided, on wins and losses, draws left out. The order is drawn
    for each prompt, so that without a bias only chance tells the two places apart.
    """
    by_place: dict[bool, list[float | None]] = {True: [], False: []}
    for is_first, preference in rows:
        by_place[is_first].append(preference)
    first, second = describe(by_place[True]), describe(by_place[False])
    difference = p_value = None
    if first["win_rate"] is not None and second["win_rate"] is not None:
        difference = first["win_rate"] - second["win_rate"]
        p_value = fisher(
            first["n_wins"], first["n_wins_base"], second["n_wins"], second["n_wins_base"]
        )
    return {
        "shown_first": place_figures(first),
        "shown_second": place_figures(second),
        "difference": difference,
        "p_value": p_value,
    }


def position_note(bias: PositionBias) -> str:
    """The same in words; empty where nothing was judged in an order."""
    if not bias["shown_first"]["judged"] and not bias["shown_second"]["judged"]:
        return ""

    def in_words(place: PlaceFigures) -> str:
        if not place["judged"]:
            return "was never judged"
        spread = numbers.error(place["standard_error"], 1)
        return f"wins {place['win_rate']:.1f}{spread} % of {place['judged']}"

    text = f"shown first the model {in_words(bias['shown_first'])}, "
    text += f"shown second {in_words(bias['shown_second'])}"
    if bias["p_value"] is not None:
        text += f" (difference {bias['difference']:+.1f} points, p = {bias['p_value']:.2g})"
    return text


def position_findings(bias: PositionBias) -> list[Finding]:
    """A finding where the bias is both significant and large."""
    difference, p_value = bias["difference"], bias["p_value"]
    if difference is None or p_value is None:
        return []
    if p_value >= SIGNIFICANT or abs(difference) < LARGE:
        return []
    message = f"the judge favours a place: {position_note(bias)}"
    return [Finding("position_bias", "warning", message, {**bias})]


def position_notes(bias: PositionBias) -> list[str]:
    """`position_note`, where no finding says the same."""
    note = position_note(bias)
    return [note] if note and not position_findings(bias) else []


def write_leaderboard(path: Path, name: str, outputs: Sequence[str], figures: Figures) -> None:
    """A leaderboard.csv of one row, in alpaca_eval's columns."""
    length = sum(len(output) for output in outputs) / len(outputs)
    row = {"mode": "community", "avg_length": int(length), **figures}
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["", *COLUMNS])
        table.writerow([name, *("" if row[c] is None else row[c] for c in COLUMNS)])


def read_leaderboard(path: Path, name: str) -> Figures:
    """The figures of one row of a leaderboard.csv, under `describe`'s names.

    Raises:
        HarnessError: the row or one of its figures is not there.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    try:
        row = rows[name]
        error = row["standard_error"]
        return {
            "win_rate": float(row["win_rate"]),
            "standard_error": float(error) if error else None,
            "n_wins": int(row["n_wins"]),
            "n_wins_base": int(row["n_wins_base"]),
            "n_draws": int(row["n_draws"]),
            "n_total": int(row["n_total"]),
            "discrete_win_rate": float(row["discrete_win_rate"]),
        }
    except (KeyError, ValueError) as e:
        raise HarnessError(f"{path} has no usable row for {name!r}: {e}") from None


def differences(first: Figures, second: Figures, tolerance: float) -> list[str]:
    """The figures in which two descriptions differ by more than `tolerance`."""

    def is_same(a: object, b: object) -> bool:
        if isinstance(a, int | float) and isinstance(b, int | float):
            return abs(a - b) <= tolerance
        return a == b

    of_second = {**second}
    return [
        f"{name}: {value} and {of_second[name]}"
        for name, value in first.items()
        if not is_same(value, of_second[name])
    ]


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
