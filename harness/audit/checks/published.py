"""Published figures against recomputed ones: the leaderboard's, and those of a README's tables."""

import re
from typing import Any

from harness.audit.model import Result, agreeing_digits
from harness.audit.parse.readme import ReadmeLine

_CELL = re.compile(
    r"^[*_`~\s]*(-?\d{1,6}(?:\.\d+)?)\s*%?(?:\s*(?:±|\+/-|\(|/|of)\s*[^|]*)?[*_`\s]*$"
)
_WIN_RATE = re.compile(r"^\W*(?:alpaca\s?eval\W*)?win[ _-]?rates?\b(?!.*(?:\blc\b|length))", re.I)
_JUDGED = re.compile(r"^\W*(?:n_total|n|judged|n judged|rows judged|prompts judged)\W*$", re.I)
_SETTINGS = {
    "temperature": re.compile(r"^\W*temp(?:erature|\.)?\W*$", re.I),
    "top_p": re.compile(r"^\W*top[ _-]?p\W*$", re.I),
    "max_new_tokens": re.compile(r"^\W*max(?:imum)?[ _-]?(?:new[ _-]?)?tokens\W*$", re.I),
}
"""How a table's headings call a decoding setting."""
COUNTS = ("n_judged", "n_wins", "n_wins_base", "n_draws", "avg_length")


def check_published(result: Result, where: str) -> None:
    """count_mismatch for each published figure that is not what the stored judgements give."""
    if result.matches is not False:
        return
    differing = [name for name in result.digits if _differs(result, name)]
    differences = {
        n: {"published": result.published[n], "recomputed": result.metrics[n]} for n in differing
    }
    if not differences:
        return
    # The bare numbers: rounding is `digits`' to say.
    parts = [f"{n} {_g(v['published'])} / {_g(v['recomputed'])}" for n, v in differences.items()]
    harmless = set(differences) == {"avg_length"}
    result.mismatch(
        f"{where or 'what is published'} does not follow from what is stored (published / recomputed): "
        + ", ".join(parts),
        {"figures": differences},
        "warning" if harmless else "error",
    )


def check_line(result: Result, line: ReadmeLine) -> None:
    """count_mismatch where a README's table has another win rate or count for this result. Decoding
    settings that it states are kept for the comparison with other runs."""
    for heading, cell in line.cells.items():
        match = _CELL.match(cell)
        if match is None:
            continue
        for setting, pattern in _SETTINGS.items():
            if pattern.match(heading):
                result.material.settings.setdefault(setting, float(match[1]))
        counted = "n_judged" if _JUDGED.search(heading) else ""
        name = "win_rate" if _WIN_RATE.search(heading) else counted
        recomputed = result.metrics.get(name)
        if recomputed is None:
            continue
        printed = match[1]
        decimals = len(printed.partition(".")[2])
        claimed = float(printed)
        is_share = name == "win_rate" and claimed <= 1 and decimals >= 2 and recomputed > 1
        scale = 0.01 if is_share else 1.0
        if agreeing_digits(claimed, recomputed * scale) >= decimals:
            continue
        result.refute(
            f"{line.where}, says {name} {printed}; the stored judgements give "
            f"{_g(recomputed * scale)}",
            {"where": f"{line.path.name}:{line.number}", "claimed": claimed, "recomputed": recomputed,
             "quote": line.text[:160]},
        )  # fmt: skip


def _differs(result: Result, name: str) -> bool:
    if name in COUNTS:
        return bool(result.published[name] != result.metrics[name])
    return result.digits[name] < result.required_digits.get(name, 8)


def _g(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
