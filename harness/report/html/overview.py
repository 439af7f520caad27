"""The top of the page: how many lines have which verdict, and the matrix with its filters."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.common import numbers
from harness.common.progress import counted
from harness.report.html import charts, figures
from harness.report.html.markup import Html, join, tag
from harness.results.line import UNREPORTED, MatrixLine, bounds, over, reported_counts
from harness.results.matrix import DAMAGED, EXPLANATION, LOSSES, conclusions
from harness.results.verdict.verdict import ANOTHER_JUDGE, MARGIN

SIMULATED = (
    "Numbers marked simulated come from the harness's own simulated teacher or judge, or from a "
    "scaled-down twin of a row. They show that the pipeline works, and say nothing about any real "
    "model."
)
ORDER = tuple(figures.SIGNS)
RULES = {
    "reproduced": "the 95 % interval of the difference lies within the margin",
    "not reproduced": "it lies wholly outside",
    "inconclusive": "neither; with how many more replicates, of which kind, would decide it, and "
    "how likely",
    "not comparable": "no number was reported, or there is no margin for the metric",
    ANOTHER_JUDGE: "another model judged the published number, or it was asked in another way, or "
    "compared with another baseline",
    "not run": "no judged artefact, or of a loss no model, fits the spec as it stands",
    "not judged": "the row answers prompts and has no judge",
    "simulated": "the simulated teacher or judge had a hand in it, or it is a scaled-down twin",
    DAMAGED: "something that was made of the row was changed since; its notes say what",
}
"""In the words of docs/results.md."""


def tally(lines: Sequence[MatrixLine]) -> Html:
    """How many of the numbers have which verdict: a bar in proportion, and a list."""
    counts = Counter(line.cells.verdict for line in lines)
    verdicts = [verdict for verdict in ORDER if counts[verdict]]
    verdicts += sorted(set(counts) - set(ORDER))
    at, parts = 0.0, []
    for verdict in verdicts:
        width = 1000 * counts[verdict] / len(lines)
        gap = 0 if verdict == verdicts[-1] else 3
        parts.append(
            tag("rect", x=charts.coordinate(at), y=0, width=charts.coordinate(max(width - gap, 1)),
                height=12, class_=figures.tone(verdict))
        )  # fmt: skip
        at += width
    bar = tag("svg", parts, viewBox="0 0 1000 12", preserveAspectRatio="none", class_="tally-bar",
              aria_hidden="true")  # fmt: skip
    items = [tag("li", tag("b", counts[v]), " ", figures.pill(v)) for v in verdicts]
    return join(bar, tag("ul", items, class_="tally", aria_label="Verdicts")) if lines else Html()


def notice(lines: Sequence[MatrixLine]) -> Html | None:
    if not any(line.cells.simulated for line in lines):
        return None
    return tag("p", SIMULATED, class_="notice v-simulated")


COLUMNS = (
    ("Row", "text"), ("Metric", "text"), ("Reported", "n"), ("Ours", "n"),
    ("Compared", ""), ("Judged", "n"), ("Replicates", "n"), ("Verdict", "text"), ("Notes", "count"),
    ("Dollars", "n"), ("Time", "n"),
)  # fmt: skip
"""Heading, and how it is sorted: not where it is empty."""


def matrix(lines: Sequence[MatrixLine]) -> Html:
    """All lines, with filters and sorting where there is a script."""
    heads = []
    for place, (name, kind) in enumerate(COLUMNS):
        inner: Any = name
        if kind:
            sign = tag("span", "", class_="sign", aria_hidden="true")
            inner = join(
                tag("span", name, class_="no-js-only"),
                tag("button", name, " ", sign, type="button", data_sort=place, data_kind=kind,
                    class_="js-only", hidden=True),
            )  # fmt: skip
        heads.append(
            tag("th", inner, scope="col", role="columnheader",
                class_="n" if kind == "n" else None)
        )  # fmt: skip
    body = [_row(line) for line in lines]
    matrix_table = tag(
        "table",
        tag("caption", "One line for each row and metric, from the specs and the manifests"),
        tag("thead", tag("tr", heads, role="row"), role="rowgroup"),
        tag("tbody", body, role="rowgroup"),
        id="matrix-table",
        role="table",
    )
    box = tag(
        "div", matrix_table, class_="scroll", tabindex=0, role="region", aria_label="Results matrix"
    )
    below = [tag("p", sentence, class_="soft") for sentence in conclusions(lines)]
    return join(_filters(lines), box, below)


def _filters(lines: Sequence[MatrixLine]) -> Html:
    tables = list(dict.fromkeys(line.cells.table for line in lines))
    verdicts = [v for v in ORDER if any(line.cells.verdict == v for line in lines)]

    def choice(label: str, name: str, values: Sequence[str]) -> Html:
        options = [tag("option", "all", value="")]
        options += [tag("option", value, value=value) for value in values]
        return tag("label", tag("span", label), tag("select", options, data_filter=name))

    return tag(
        "form",
        choice("Table", "table", tables),
        choice("Verdict", "verdict", verdicts),
        tag("label", tag("span", "Search"),
            tag("input", type="search", data_filter="text", autocomplete="off",
                spellcheck="false", placeholder="row, title, note")),
        tag("button", "Clear", type="reset"),
        tag("output", f"{numbers.out_of(len(lines), len(lines))} lines", aria_live="polite",
            data_count=True),
        class_="toolbar js-only",
        id="filters",
        role="search",
        aria_label="Filter the matrix",
        hidden=True,
    )  # fmt: skip


def _row(line: MatrixLine) -> Html:
    c = line.cells
    wide = c.measure.is_percentage and (c.reported is not None or c.ours is not None)
    drawn = charts.small(figures.number_line(line), figures.tone(c.verdict)) if wide else None
    planned = c.replicates_planned
    usd, wall = c.usd, c.env_wall_seconds
    notes = notes_of(line)
    cells = [
        tag("th",
            tag("a", c.row, href=f"#row-{c.row}"),
            tag("span", c.varied or c.title, class_="sub"),
            tag("span", f"table {c.table}", class_="sub"),
            scope="row", role="rowheader", data_label="Row", data_value=c.row),
        _cell("Metric", figures.metric(line), c.metric),
        _cell("Reported", _reported(line), c.reported, True),
        _cell("Ours", _ours(line), c.ours, True),
        _cell("Compared", drawn, None),
        _cell("Judged", _judged(line), c.judged, True),
        _cell("Replicates", numbers.out_of(c.replicates, planned) if planned is not None else "",
              c.replicates if planned is not None else None, True),
        _cell("Verdict", [figures.pill(c.verdict), _sub(_reason(line))], c.verdict),
        _cell("Notes", _lines(notes), len(notes) or None),
        _cell("Dollars", figures.money(usd), usd, True),
        _cell("Time", figures.seconds(wall), wall, True),
    ]  # fmt: skip
    return tag("tr", cells, role="row", data_table=c.table, data_verdict=c.verdict,
               data_title=c.title)  # fmt: skip


def _cell(label: str, content: Any, value: Any, numeric: bool = False) -> Html:
    """`value`: what it is sorted by; None and "" stand last."""
    empty = content in (None, "") or content == [] or content == ["", None]
    return tag(
        "td", content, role="cell", data_label=label, data_value="" if value is None else value,
        class_=" ".join(["n"] * numeric + ["empty"] * empty) or None,
    )  # fmt: skip


def _sub(text: str) -> Html | None:
    return tag("span", text, class_="sub") if text else None


def _lines(texts: Sequence[str]) -> list[Html]:
    return [tag("span", text, class_="line") for text in texts]


def _reported(line: MatrixLine) -> list[Any]:
    c = line.cells
    if c.reported is None:
        return [tag("span", UNREPORTED, class_="soft")] if c.unreported else []
    error = line.error(c.reported_se).lstrip()
    return [line.number(c.reported), _sub(error), _sub(reported_counts(c))]


def _ours(line: MatrixLine) -> list[Any]:
    c = line.cells
    if c.ours is None:
        return []
    spread = numbers.interval(c.interval_low, c.interval_high, c.measure.digits)
    spread = spread or line.error(c.standard_error).lstrip()
    return [line.number(c.ours), _sub(spread), figures.marks(line)]


def _judged(line: MatrixLine) -> list[Any]:
    c = line.cells
    text = over(line, " of ", with_bounds=False)
    if c.expected is None:
        return [_sub(text)] if text else []
    count = numbers.out_of(c.judged, c.expected)
    more = text.removeprefix(count).lstrip(",: ").removeprefix("examples: ")
    return [count, _sub(more), _sub(bounds(line, "bounds "))]


def _reason(line: MatrixLine) -> str:
    c = line.cells
    return "" if c.verdict == "simulated" else c.verdict_reason


def notes_of(line: MatrixLine) -> list[str]:
    """What the row's story has more of."""
    notes = [f"finding: {kind.replace('_', ' ')}" for kind in line.finding_kinds]
    for noun, listed in (
        ("deviation", line.deviations),
        ("assumption", line.row.stated("assumption")),
    ):
        if listed:
            notes.append(counted(len(listed), noun))
    return notes


def explanation(lines: Sequence[MatrixLine]) -> Html:
    rules = [join(tag("dt", figures.pill(v)), tag("dd", RULES[v])) for v in ORDER]
    texts = [EXPLANATION]
    if any(line.cells.measure.is_loss for line in lines):
        texts.append(LOSSES)
    drawn = (
        "In the figures the shaded band is the reported number and its margin, the dot is the number "
        "made here, the thick line its 95 % interval; a thin line with ends spans the bounds that "
        "unjudged prompts leave open."
    )
    margin = f"The margin is the spec's; of percentages {MARGIN:g} points where it names none."
    return join(tag("dl", rules, class_="rules"), [tag("p", t) for t in (*texts, margin, drawn)])
