"""A line of the matrix in words: what stands in each of its cells."""

from harness.artefact.metrics import metric_of
from harness.results import losses
from harness.results.line import Cells
from harness.results.matrix import MatrixLine

HEADINGS = (
    "row", "varied", "metric", "reported", "reproduced", "95 % interval", "over", "replicates",
    "verdict", "notes", "cost", "environment", "artefacts",
)  # fmt: skip
UNREPORTED = "unreported"


def display(line: MatrixLine) -> list[str]:
    """A line as a person reads it, in the order of HEADINGS; not escaped."""
    c = line.cells
    is_loss = _is_loss(c)
    digits = _digits(c)
    planned = c.replicates_planned
    replicates = f"{c.replicates}/{planned}" if planned else ""
    if c.replicate_sd is not None:
        replicates += f"{' training seeds' * is_loss}, sd {c.replicate_sd:.{digits}f}"
    elif is_loss and c.replicates == 1 and c.steps is not None:
        replicates += f", {losses.ONE_SEED}"
    reproduced = _with_error(c.reproduced, c.standard_error, digits)
    if reproduced:
        reproduced += losses.marks(c.simulated, c.random_weights)
    verdict = str(c.verdict)
    if c.verdict_reason and c.verdict != "simulated":
        verdict += f": {c.verdict_reason}"
    noted = [
        c.deviations,
        *dict.fromkeys(f"finding: {finding.kind}" for finding in line.findings),
    ]
    return [
        c.row, c.varied, c.metric, reported(line), reproduced, interval(line), over(line),
        replicates, verdict, "; ".join(filter(None, noted)), _cost(c), c.env_environment,
        c.env_artefacts,
    ]  # fmt: skip


def reported(line: MatrixLine) -> str:
    """The published value with its error and counts; a cell that the study leaves empty says so."""
    c = line.cells
    if c.reported is None:
        return UNREPORTED if c.unreported else ""
    text = _with_error(c.reported, c.reported_se, _digits(c))
    if c.reported_judged is not None:
        text += f" of {c.reported_judged}/{c.reported_expected or '?'}"
    return text


def interval(line: MatrixLine) -> str:
    """The 95 % interval of the reproduced value; empty where it is not known."""
    low, high = line.cells.interval_low, line.cells.interval_high
    digits = _digits(line.cells)
    return "" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def over(line: MatrixLine) -> str:
    """What the reproduced value is over, with the bounds that unjudged prompts leave."""
    c = line.cells
    text = losses.over(c) if _is_loss(c) else ""
    if c.expected is not None and (not text or not c.is_all_judged):
        text = f"{c.judged}/{c.expected}" + f" examples: {text}" * bool(text)
        text += bounds(line, ", bounds ")
    if text and c.lowest is not None:
        text += f", scores {c.lowest} to {c.highest}"
    return text


def bounds(line: MatrixLine, before: str = "") -> str:
    """`26.00 to 37.40`: all unjudged prompts lost, and won; empty where all were judged."""
    c = line.cells
    if c.lower_bound is None or c.is_all_judged:
        return ""
    return f"{before}{c.lower_bound:.2f} to {c.upper_bound:.2f}"


def in_study(line: MatrixLine, marked: bool = True) -> str:
    """The published value and ours in one cell: `29.31 (713/805) → 28.90 [26.10, 31.70] 713/805`.
    Without `marked` what makes ours simulated is told elsewhere."""
    c = line.cells
    digits = _digits(c)
    published = "" if c.reported is None else f"{c.reported:.{digits}f}"
    if published and c.reported_judged is not None:
        published += f" ({c.reported_judged}/{c.reported_expected or '?'})"
    published = published or (UNREPORTED if c.unreported else "not reported")
    if c.reproduced is None:
        return f"{published} → {c.verdict}"
    counts = f"{c.judged}/{c.expected}" if c.expected is not None else over(line)
    reproduced = f"{c.reproduced:.{digits}f}"
    reproduced += losses.marks(c.simulated, c.random_weights) * marked
    return " ".join(filter(None, (published, "→", reproduced, interval(line), counts)))


def _cost(c: Cells) -> str:
    cost = ""
    if c.calls is not None:
        cost = f"{c.calls} calls, {c.prompt_tokens} + {c.completion_tokens} tokens"
        cost += f", ${c.usd:.2f}" if c.usd else ""
    if c.env_wall_seconds is not None:
        cost += f"{', ' if cost else ''}{c.env_wall_seconds:.0f} s"
    return cost


def _is_loss(c: Cells) -> bool:
    return metric_of(c.metric).is_loss


def _digits(c: Cells) -> int:
    return metric_of(c.metric).digits


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")
