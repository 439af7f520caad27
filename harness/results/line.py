"""A line of the matrix: its cells, what they rest on, and what stands in them in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.artefact.manifest import Finding
from harness.artefact.metrics import Metric, metric_of
from harness.common import numbers
from harness.results.losses import BITS, LAST, ONE_SEED, SCALED_DOWN
from harness.results.verdict.verdict import Weighed
from harness.row.load import LoadedRow
from harness.row.row import Row
from harness.run.plan import RowPlan
from harness.stats.intervals import LEVEL

HEADINGS = (
    "row", "varied", "metric", "reported", "ours", "95 % interval", "over", "replicates",
    "verdict", "notes", "cost", "environment", "artefacts",
)  # fmt: skip
DOES_NOT = "does not hold"
UNREPORTED, RANDOM_WEIGHTS = "unreported", "random weights"


@dataclass(frozen=True, kw_only=True)
class Cells:
    """In the order of matrix.csv's columns; None where there is none."""

    row: str
    table: str
    title: str
    varied: str
    metric: str
    reported: float | None
    unreported: str
    """`yes` where the study leaves the cell empty."""
    reported_se: float | None
    reported_judged: int | None
    reported_expected: int | None
    ours: float | None
    standard_error: float | None
    judged: int | None
    expected: int | None
    lower_bound: float | None
    upper_bound: float | None
    lowest: float | None
    highest: float | None
    examples: int | None
    tokens: int | None
    bytes: int | None
    steps: int | None
    replicates: int
    replicates_planned: int | None
    replicate_sd: float | None
    interval_low: float | None
    interval_high: float | None
    difference_low: float | None
    difference_high: float | None
    margin: float | None
    published_rejudged: float | None
    """The study's own answers under the row's judge, where the published number has another."""
    in_their_terms: float | None
    """The reproduced number as the published judge would have it, by the bridge; with its interval."""
    in_their_terms_low: float | None
    in_their_terms_high: float | None
    verdict: str
    verdict_reason: str
    verdict_among: int | None
    """How many verdicts of the table are adjusted for."""
    verdict_p: float | None
    """Holm's adjusted p value of the verdict among these."""
    verdict_holm: str
    """Whether it holds among them; empty where nothing was decided."""
    simulated: str
    random_weights: str
    """`yes` where they began so."""
    deviations: str
    assumptions: str
    findings: str
    confounded: str
    calls: float | None
    prompt_tokens: float | None
    completion_tokens: float | None
    usd: float | None
    source: str
    env_environment: str
    env_wall_seconds: float | None
    env_artefacts: str

    @property
    def is_all_judged(self) -> bool:
        """Also where nothing is counted."""
        return self.expected is None or self.judged is None or self.judged >= self.expected

    @property
    def measure(self) -> Metric:
        return metric_of(self.metric)


@dataclass(frozen=True)
class MatrixLine:
    """One line of the matrix."""

    loaded: LoadedRow
    cells: Cells
    weighed: Weighed
    """What its verdict rests on."""
    plan: RowPlan | None
    """Where the row's artefacts stand; None where it cannot be planned."""
    held_out: str = ""
    """Of a loss: see harness.results.losses.held_out_set."""
    findings: tuple[Finding, ...] = ()
    """Those of the stages behind the line, and of the comparability guard."""
    deviations: tuple[str, ...] = ()
    last_look: str = ""
    """What `harness settle` saw last, which the verdict keeps to; empty where it saw nothing."""
    looks: str = ""
    """The same in full: its terms and interval, and what the spec lacks to count what it bought."""
    has_ended: bool = False
    """Whether it buys nothing more."""
    with_bought: Weighed | None = None
    """The verdict with all that it bought, where the spec names fewer replicates."""

    @property
    def counted(self) -> Weighed:
        """The verdict with all replicates that there are."""
        return self.with_bought or self.weighed

    @property
    def row(self) -> Row:
        return self.loaded.row

    @property
    def finding_kinds(self) -> list[str]:
        return list(dict.fromkeys(finding.kind for finding in self.findings))

    @property
    def elsewhere(self) -> str:
        """Where the published number stands, where that is not in the document's line."""
        cell = self.row.reported.get(self.cells.metric)
        return f"the reported number is from {cell.source}" if cell and cell.source else ""

    @property
    def among(self) -> str:
        """Whether its verdict does not hold among the table's."""
        if self.cells.verdict_holm != DOES_NOT:
            return ""
        p = numbers.clear_of(1 - LEVEL, self.cells.verdict_p or 0.0, ".{}g", 2)
        return (
            f"{self.cells.verdict} alone, and not among the table's {self.cells.verdict_among} "
            f"verdicts (Holm's p {p})"
        )

    def number(self, value: float | None) -> str:
        """With the digits of the line's metric."""
        return numbers.number(value, self.cells.measure.digits)

    def error(self, value: float | None) -> str:
        return numbers.error(value, self.cells.measure.digits)


def display(line: MatrixLine) -> list[str]:
    """A line as a person reads it, in the order of HEADINGS; not escaped."""
    c = line.cells
    planned = c.replicates_planned
    replicates = f"{c.replicates}/{planned}" if planned else ""
    if c.replicate_sd is not None:
        seeds = " training seeds" * c.measure.is_loss
        replicates += f"{seeds}, sd {line.number(c.replicate_sd)}"
    elif c.measure.is_loss and c.replicates == 1 and c.steps is not None:
        replicates += f", {ONE_SEED}"
    ours = line.number(c.ours) + line.error(c.standard_error)
    if ours:
        ours += marks(c)
    verdict = c.verdict
    if c.verdict_reason and c.verdict != "simulated":
        verdict += f": {c.verdict_reason}"
    notes = [
        line.elsewhere,
        line.among,
        c.deviations,
        *(f"finding: {kind}" for kind in line.finding_kinds),
    ]
    return [
        c.row, c.varied, c.metric, reported(line), ours, interval(line), over(line),
        replicates, verdict, "; ".join(filter(None, notes)), _cost(c), c.env_environment,
        c.env_artefacts,
    ]  # fmt: skip


def reported(line: MatrixLine) -> str:
    """The published value with its error and counts; a cell that the study leaves empty says so."""
    c = line.cells
    if c.reported is None:
        return UNREPORTED if c.unreported else ""
    text = line.number(c.reported) + line.error(c.reported_se)
    counts = reported_counts(c, "/")
    return f"{text} of {counts}" if counts else text


def reported_counts(cells: Cells, sign: str = " of ") -> str:
    if cells.reported_judged is None:
        return ""
    return numbers.out_of(cells.reported_judged, cells.reported_expected, sign)


def interval(line: MatrixLine) -> str:
    """The 95 % interval of the reproduced value; empty where it is not known."""
    c = line.cells
    return numbers.bracketed(c.interval_low, c.interval_high, c.measure.digits)


def over(line: MatrixLine, sign: str = "/", with_bounds: bool = True) -> str:
    """What the reproduced value is over, with the bounds that unjudged prompts leave; `sign`: between
    judged and expected."""
    c = line.cells
    text = loss_over(c) if c.measure.is_loss else ""
    if c.expected is not None and (not text or not c.is_all_judged):
        examples = f" examples: {text}" if text else ""
        text = numbers.out_of(c.judged, c.expected, sign) + examples
        text += bounds(line, ", bounds ") * with_bounds
    if text and c.lowest is not None:
        text += f", scores {c.lowest} to {c.highest}"
    return text


def bounds(line: MatrixLine, before: str = "") -> str:
    """`26.00 to 37.40`: all unjudged prompts lost, and won; empty where all were judged."""
    c = line.cells
    if c.lower_bound is None or c.is_all_judged:
        return ""
    return before + numbers.interval(c.lower_bound, c.upper_bound)


def in_study(line: MatrixLine, marked: bool = True) -> str:
    """The published value and ours in one cell: `29.31 (713/805) → 28.90 [26.10, 31.70] 713/805`.
    Without `marked` what makes ours simulated is told elsewhere."""
    c = line.cells
    published = line.number(c.reported)
    counts = reported_counts(c, "/")
    if published and counts:
        published += f" ({counts})"
    published = published or (UNREPORTED if c.unreported else "not reported")
    if c.ours is None:
        return f"{published} → {c.verdict}"
    counts = over(line) if c.expected is None else numbers.out_of(c.judged, c.expected, "/")
    ours = line.number(c.ours) + marks(c) * marked
    return " ".join(filter(None, (published, "→", ours, interval(line), counts)))


def _cost(c: Cells) -> str:
    costs = []
    if c.calls is not None:
        costs.append(
            f"{c.calls} call{'s' * (c.calls != 1)}, {c.prompt_tokens} + {c.completion_tokens} tokens"
        )
    if c.usd and costs:
        costs.append(numbers.dollars(c.usd))
    if c.env_wall_seconds is not None:
        costs.append(f"{c.env_wall_seconds:.0f} s")
    return ", ".join(costs)


def labels(simulated: str, random_weights: object) -> list[str]:
    """What a number must never stand without: that it is simulated, of a scaled-down row, or of weights
    that began random."""
    return [
        *["simulated"] * bool(simulated),
        *[SCALED_DOWN] * (SCALED_DOWN in simulated.split("; ")),
        *[RANDOM_WEIGHTS] * bool(random_weights),
    ]


def in_brackets(texts: Sequence[str]) -> str:
    return f" ({', '.join(texts)})" if texts else ""


def marks(cells: Cells) -> str:
    """A number's labels, to stand behind it."""
    return in_brackets(labels(cells.simulated, cells.random_weights))


def loss_over(cells: Cells) -> str:
    """What a loss was measured over, in words; of bits per byte the bytes, else the tokens."""
    kind = cells.measure.name
    if kind == LAST:
        return f"the last of {cells.steps} steps" if cells.steps else ""
    if cells.examples is None:
        return ""
    size = f"{cells.bytes:,} bytes" if kind == BITS else f"{cells.tokens:,} tokens"
    return f"{cells.examples:,} held-out examples, {size}"
