"""A line's numbers in words and in figures, for the matrix and the stories."""

import math
from typing import Any

from harness.common import numbers
from harness.report.html.charts import NumberLine
from harness.report.html.markup import Html, tag
from harness.results.line import (
    RANDOM_WEIGHTS,
    MatrixLine,
    bounds,
    labels,
    over,
    reported_counts,
)
from harness.results.matrix import DAMAGED
from harness.results.verdict.verdict import ANOTHER_JUDGE, margin_of

SIGNS = {
    "reproduced": "✓", "not reproduced": "✕", "inconclusive": "~", "not comparable": "≠",
    ANOTHER_JUDGE: "≠", "not run": "○", "not judged": "–", "simulated": "◇",
    DAMAGED: "!",
}  # fmt: skip
"""Each verdict's sign, so that no colour has to tell it alone."""


def metric(line: MatrixLine) -> str:
    return str(line.cells.metric).replace("_", " ") or "–"


def tone(verdict: str) -> str:
    """The class that gives a verdict its colours."""
    return "v-" + verdict.partition(":")[0].replace(" ", "-")


def pill(verdict: str) -> Html:
    sign = tag("span", SIGNS.get(verdict, "·"), aria_hidden="true")
    return tag("span", sign, " ", verdict, class_=f"pill {tone(verdict)}")


def margin(line: MatrixLine) -> float | None:
    """About the reported number; also of a number that is not run yet. None where ours is held against
    the study's own answers in its place."""
    c = line.cells
    if line.weighed.against is not None:
        return None
    if c.margin is None and c.reported is not None:
        return margin_of(line.row, c.metric)
    return c.margin


def number_line(line: MatrixLine) -> NumberLine:
    c = line.cells
    terms = None if line.weighed.is_simulated else line.weighed.in_their_terms
    return NumberLine(
        _finite(c.reported), _finite(c.reported_se), margin(line), _finite(c.ours),
        _finite(c.interval_low), _finite(c.interval_high), _finite(c.lower_bound),
        _finite(c.upper_bound), c.measure.is_percentage, _finite(c.published_rejudged),
        terms.percent if terms else None,
    )  # fmt: skip


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def marks(line: MatrixLine) -> list[Html]:
    """What a number must never stand without."""
    c = line.cells
    if c.ours is None:
        return []
    return [
        tag("span", label, class_="mark" if label == RANDOM_WEIGHTS else "mark v-simulated")
        for label in labels(c.simulated, c.random_weights)
    ]


def sentence(line: MatrixLine) -> str:
    """The comparison in words; what a figure shows."""
    return f"{_reported(line)}. {_ours(line)}."


def _reported(line: MatrixLine) -> str:
    c = line.cells
    if c.reported is None:
        empty = "The study leaves this cell empty"
        return empty if c.unreported else "No number was reported"
    text = f"Reported: {line.number(c.reported)}{line.error(c.reported_se)}"
    counts = reported_counts(c)
    text += f" over {counts}" if counts else ""
    return text if margin(line) is None else f"{text}, margin ±{margin(line):g}"


def _ours(line: MatrixLine) -> str:
    c = line.cells
    if c.ours is None:
        return "Not run"
    text = f"Here: {line.number(c.ours)}{' (simulated)' * bool(c.simulated)}"
    spread = numbers.interval(c.interval_low, c.interval_high, c.measure.digits)
    if spread:
        text += f", 95 % interval {spread}"
    elif c.standard_error is not None:
        text += f"{line.error(c.standard_error)} (one standard error)"
    counts = over(line, " of ", with_bounds=False)
    text += f", over {counts}" if counts else ""
    text += bounds(line, ", bounds ")
    if c.replicate_sd is not None:
        text += f"; {c.replicates} replicates, sd {line.number(c.replicate_sd)}"
    return text


def money(usd: float | None) -> str:
    return "" if usd is None else numbers.dollars(usd)


def seconds(value: float | None) -> str:
    """`48 s`, `12.5 min`, `3.2 h`."""
    if value is None:
        return ""
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def brief(value: Any) -> str:
    """A manifest's value in a few words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {brief(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(brief, value))
    return str(value)
