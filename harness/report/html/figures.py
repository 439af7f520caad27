"""A line's numbers in words and in figures, for the matrix and the stories."""

import math
from typing import Any

from harness.artefact.metrics import metric_of
from harness.report.html.charts import NumberLine
from harness.report.html.markup import Html, tag
from harness.results import losses
from harness.results.matrix import MatrixLine
from harness.results.verdict.verdict import margin_of

SIGNS = {
    "reproduced": "✓", "not reproduced": "✕", "inconclusive": "~", "not comparable": "≠",
    "not run": "○", "not judged": "–", "simulated": "◇",
}  # fmt: skip
"""Each verdict's sign, so that no colour has to tell it alone."""


def is_loss(line: MatrixLine) -> bool:
    return metric_of(line.cells.metric).is_loss


def is_percent(line: MatrixLine) -> bool:
    return metric_of(line.cells.metric).is_percentage


def number(line: MatrixLine, value: float | None) -> str:
    if value is None:
        return ""
    digits = metric_of(line.cells.metric).digits
    return f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def metric(line: MatrixLine) -> str:
    return str(line.cells.metric).replace("_", " ") or "–"


def tone(verdict: str) -> str:
    """The class that gives a verdict its colours."""
    return "v-" + verdict.replace(" ", "-")


def pill(verdict: str) -> Html:
    sign = tag("span", SIGNS.get(verdict, "·"), aria_hidden="true")
    return tag("span", sign, " ", verdict, class_=f"pill {tone(verdict)}")


def interval(line: MatrixLine) -> tuple[float | None, float | None]:
    """The 95 % interval of our number."""
    return line.cells.interval_low, line.cells.interval_high


def margin(line: MatrixLine) -> float | None:
    """Also of a number that is not run yet."""
    value: float | None = line.cells.margin
    if value is None and line.loaded is not None and line.cells.reported is not None:
        return margin_of(line.loaded.row, line.cells.metric)
    return value


def number_line(line: MatrixLine) -> NumberLine:
    c = line.cells
    low, high = interval(line)
    return NumberLine(
        _finite(c.reported), _finite(c.reported_se), margin(line), _finite(c.reproduced),
        _finite(low), _finite(high), _finite(c.lower_bound), _finite(c.upper_bound),
        is_percent(line),
    )  # fmt: skip


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def over(line: MatrixLine) -> str:
    """Judged of expected, with the bounds where some went unjudged."""
    c = line.cells
    text = losses.over(c) if is_loss(line) else ""
    if c.expected is not None and (not text or not c.is_all_judged):
        text = f"{c.judged} of {c.expected}" + (f" examples: {text}" if text else "")
    if c.lowest is not None and text:
        text += f", scores {c.lowest} to {c.highest}"
    return text


def bounds(line: MatrixLine) -> str:
    """Where prompts went unjudged: the score with all of them lost and with all of them won."""
    c = line.cells
    if c.lower_bound is None or c.is_all_judged:
        return ""
    return f"bounds {number(line, c.lower_bound)} to {number(line, c.upper_bound)}"


def marks(line: MatrixLine) -> list[Html]:
    """What a number must never stand without."""
    labels = []
    if line.cells.reproduced is not None:
        if line.cells.simulated:
            labels.append(tag("span", "simulated", class_="mark v-simulated"))
        if losses.SCALED_DOWN in line.cells.simulated:
            labels.append(tag("span", losses.SCALED_DOWN, class_="mark v-simulated"))
        if line.cells.random_weights:
            labels.append(tag("span", "random weights", class_="mark"))
    return labels


def sentence(line: MatrixLine) -> str:
    """The comparison in words; what a figure shows."""
    c = line.cells
    low, high = interval(line)
    parts = []
    if c.reported is not None:
        text = f"Reported: {number(line, c.reported)}"
        if c.reported_se is not None:
            text += f" ± {number(line, c.reported_se)}"
        if c.reported_judged is not None:
            text += f" over {c.reported_judged} of {c.reported_expected or '?'}"
        if margin(line) is not None:
            text += f", margin ±{margin(line):g}"
        parts.append(text)
    elif c.unreported:
        parts.append("The study leaves this cell empty")
    else:
        parts.append("No number was reported")
    if c.reproduced is not None:
        text = f"Here: {number(line, c.reproduced)}"
        if c.simulated:
            text += " (simulated)"
        if low is not None and high is not None:
            text += f", 95 % interval {number(line, low)} to {number(line, high)}"
        elif c.standard_error is not None:
            text += f" ± {number(line, c.standard_error)} (one standard error)"
        text += f", over {over(line)}" if over(line) else ""
        text += f", {bounds(line)}" if bounds(line) else ""
        if c.replicate_sd is not None:
            text += f"; {c.replicates} replicates, sd {number(line, c.replicate_sd)}"
        parts.append(text)
    else:
        parts.append("Not run")
    return ". ".join(parts) + "."


def money(usd: float | None) -> str:
    if usd is None:
        return ""
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def seconds(value: float | None) -> str:
    """`48 s`, `12.5 min`, `3.2 h`."""
    if value is None:
        return ""
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes, in units of 1024."""
    value, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if value >= 10 else f"{value:.3g} {units[0]}"


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
