"""The data sets that the row made, as their cards say."""

from collections.abc import Sequence

from harness.common import numbers
from harness.report.html import charts
from harness.report.html.collect import DataSet, Story
from harness.report.html.markup import Html, join, table, tag
from harness.report.html.section import StorySection


def _data(story: Story) -> Html | None:
    blocks = [_data_set(story.row, n, data_set) for n, data_set in enumerate(story.data, start=1)]
    return join(blocks) if blocks else None


def _data_set(row: str, number: int, data: DataSet) -> Html:
    overview, *rest = data.parts
    mark = [tag("span", "simulated", class_="mark v-simulated"), " "] if data.simulated else None
    lines = tag("ul", [tag("li", line) for line in overview.lines])
    drawn = None
    if data.bins:
        total = sum(count for _, count in data.bins)
        most = max(data.bins, key=lambda b: b[1])
        count = numbers.out_of(most[1], total, grouping=",")
        text = f"{total:,} outputs; the commonest length is {most[0]} words ({count})."
        drawn = charts.histogram(
            f"figure-{row}-data-{number}", "Lengths of the data set's outputs", text, data.bins
        )
    tables: list[Html] = []
    for part in rest:
        content = [tag("p", line) for line in part.lines]
        if part.rows:
            rows = [list(cells) for cells in part.rows]
            content.append(table(part.title, list(part.headings), rows, numeric=_numeric(rows)))
        tables.append(tag("div", tag("h5", part.title) if not part.rows else None, content))
    card = tag("details", tag("summary", "The whole data card"), tables) if tables else None
    label = tag("p", tag("strong", data.label)) if data.label else None
    return tag("div", label, tag("div", tag("div", mark, lines), drawn, class_="figures"), card)


def _numeric(rows: Sequence[Sequence[str]]) -> frozenset[int]:
    """Columns in which every cell begins with a digit or is a dash."""
    return frozenset(
        place
        for place in range(1, min(map(len, rows)))
        if all(row[place][:1].isdigit() or row[place] == "–" for row in rows)
    )


SECTION = StorySection("Data", _data)
