"""alpaca_eval's leaderboard.csv: its lines, and whether a line's figures follow from one another."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.audit.model import MOST_DIGITS, Result, agreeing_digits, short
from harness.audit.parse.files import Unreadable, read_table
from harness.judge.scores import BASELINE, DRAW, MODEL, describe

NAMES = {"n_total": "n_judged"}
"""What alpaca_eval calls it -> what it is called here."""
WHOLE = frozenset({"n_judged", "n_wins", "n_wins_base", "n_draws", "avg_length"})
FIGURES = WHOLE | {
    "win_rate", "standard_error", "discrete_win_rate", "length_controlled_winrate",
    "lc_standard_error",
}  # fmt: skip
"""Columns that hold numbers, whatever else is added to a leaderboard."""
ABSENT = frozenset({"-", "--", "n/a", "na", "none", "null"})
"""What stands for no number."""
_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_COMMA = re.compile(r"[-+]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+),\d+")
ALPACA_EVAL_PROMPTS = 805
NEARLY_ALL = 700
"""From so many judgements on a set of AlpacaEval's is all of it, and not a subset chosen on purpose."""


@dataclass(frozen=True)
class LeaderboardLine:
    """One model's figures. decimals: of each as it is printed. unreadable: cells that are no number, by
    figure."""

    path: Path
    name: str
    figures: dict[str, float]
    decimals: dict[str, int]
    unreadable: dict[str, str] = field(default_factory=dict)


def read_lines_of(path: Path) -> list[LeaderboardLine]:
    """The lines of a leaderboard. Raises Unreadable: it is none."""
    table = read_table(path)
    if not table or "win_rate" not in table[0]:
        raise Unreadable("it has no column win_rate")
    name_column = "" if "" in table[0] else next(iter(table[0]))
    lines = []
    for row in table:
        figures, decimals, unreadable = {}, {}, {}
        for column, cell in row.items():
            name = NAMES.get(column, column)
            if column == name_column or not cell.strip():
                continue
            printed = _plain(cell, name in WHOLE)
            with suppress(ValueError):
                if math.isfinite(number := float(printed)):
                    is_short = "e" in printed.lower()
                    figures[name] = number
                    decimals[name] = MOST_DIGITS if is_short else len(printed.partition(".")[2])
            if name in FIGURES and name not in figures:
                unreadable[name] = cell.strip()
        lines.append(LeaderboardLine(path, row[name_column].strip(), figures, decimals, unreadable))
    return lines


def published_of(line: LeaderboardLine) -> dict[str, float]:
    """The figures, counts as whole numbers."""
    return {
        name: int(value) if name in WHOLE and value == int(value) else value
        for name, value in line.figures.items()
    }


def recomputed(line: LeaderboardLine) -> dict[str, float | None]:
    """What a line's counts of wins, losses and draws say of its other figures.

    The discrete win rate always, and where it is the win rate (a judge that only knows wins, losses and
    draws) the win rate and its standard error too.
    """
    counts = [line.figures.get(n) for n in ("n_wins", "n_wins_base", "n_draws")]
    if any(c is None or c < 0 or c != int(c) or c > 1e6 for c in counts):
        return {}
    wins, losses, draws = (int(c) for c in counts if c is not None)
    if wins + losses + draws == 0:
        return {}
    described = describe([MODEL] * wins + [BASELINE] * losses + [DRAW] * draws)
    discrete = described["discrete_win_rate"]
    figures = {"n_judged": described["n_total"], "discrete_win_rate": discrete}
    rate = line.figures.get("win_rate")
    if rate is not None and agreeing_digits(rate, described["win_rate"] or 0.0) >= 6:
        figures["win_rate"] = described["win_rate"]
        figures["standard_error"] = described["standard_error"]
    return figures


def faults(line: LeaderboardLine) -> list[str]:
    """Where a line's figures contradict one another, in words."""
    contradictions = []
    by_counts, f = recomputed(line), line.figures
    if not by_counts:
        return []
    for name in ("n_judged", "discrete_win_rate", "standard_error"):
        figure = by_counts.get(name)
        if name not in f or figure is None:
            continue
        if agreeing_digits(f[name], figure) < min(line.decimals[name], 8):
            contradictions.append(f"{name} is {f[name]:g}, by the counts {figure:g}")
    wins, losses, draws = f["n_wins"], f["n_wins_base"], f["n_draws"]
    total = wins + losses + draws
    # A win is worth more than a half and at most one, a loss at least nothing and less than a half.
    least, most = 50 * (wins + draws) / total, 50 * (2 * wins + losses + draws) / total
    rate = f.get("win_rate")
    if rate is not None and not least - 0.01 <= rate <= most + 0.01:
        contradictions.append(f"win_rate is {rate:g}, by the counts between {least:g} and {most:g}")
    return contradictions


def expected_by(line: LeaderboardLine) -> tuple[int, str] | None:
    """AlpacaEval's 805 where a line is surely of that set: the length-controlled win rate is for it."""
    judged = line.figures.get("n_judged")
    if judged is None or "length_controlled_winrate" not in line.figures:
        return None
    if NEARLY_ALL <= judged <= ALPACA_EVAL_PROMPTS:
        return ALPACA_EVAL_PROMPTS, f"AlpacaEval's set has {ALPACA_EVAL_PROMPTS}"
    return None


def check_lines(result: Result, lines: list[LeaderboardLine]) -> None:
    """count_mismatch for each line whose figures do not fit together."""
    for line in lines:
        wrong = faults(line)
        if wrong:
            evidence = {"name": line.name, "file": line.path.name, "figures": line.figures}
            message = f"{line.name or 'a line'} of {line.path.name}: {'; '.join(wrong)}"
            result.mismatch(message, evidence)


def check_unreadable(result: Result, lines: Sequence[LeaderboardLine]) -> None:
    """What stands for a number and is none: a note, and no match; count_mismatch for what could be
    recomputed."""
    for line in lines:
        for name, cell in line.unreadable.items():
            whose = f"{name} of {line.name or 'a line'} in {line.path.name}"
            is_single = line.figures.get("n_judged") == 1
            if is_single and name == "standard_error" and cell.lower() == "nan":
                continue  # One judgement has none.
            result.notes.append(f"{whose} is {short(cell)!r}, which could not be read as a number")
            # What else is published may still be wrong.
            result.matches = False if result.matches is False else None
            if cell.lower() in ABSENT or (lines[1:] == [] and result.metrics.get(name) is None):
                continue
            result.mismatch(
                f"{whose} is {short(cell)!r}: what is published cannot be known",
                {"file": line.path.name, "name": line.name, "figure": name, "published": short(cell),
                 "recomputed": result.metrics.get(name)},
            )  # fmt: skip


def _plain(cell: str, is_whole: bool) -> str:
    """A cell as Python writes numbers: without a percent sign, a decimal comma (`99,9`; but `1,234` may
    be either, and is read of whole numbers alone) or commas between thousands."""
    text = cell.strip().removesuffix("%").rstrip()
    if _GROUPED.fullmatch(text) and (is_whole or "." in text or text.count(",") > 1):
        return text.replace(",", "")
    if _COMMA.fullmatch(text) and not _GROUPED.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    return text
