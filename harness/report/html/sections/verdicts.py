"""Each number against the reported one, with the reasoning behind its verdict."""

from harness.report.html import charts, figures
from harness.report.html.collect import Story
from harness.report.html.markup import Html, tag
from harness.report.html.section import StorySection
from harness.results.line import MatrixLine
from harness.results.verify import sentences


def _verdicts(story: Story) -> Html | None:
    if not story.lines:
        return None
    blocks: list[Html] = []
    for number, line in enumerate(story.lines, start=1):
        c = line.cells
        reason = c.verdict_reason
        marks = figures.marks(line)[bool(c.simulated) and c.verdict == "simulated" :]
        head = tag("p", figures.pill(c.verdict), " ", marks, " ",
                   reason[:1].upper() + reason[1:] + "." * bool(reason), class_="verdict")  # fmt: skip
        drawn = _drawn(f"figure-{story.row}-compared-{number}", line)
        items = [tag("div", tag("dt", name), tag("dd", text)) for name, text in sentences(line)]
        why = tag("dl", items, class_="reasons")
        if len(story.lines) == 1:
            blocks += [tag("div", drawn, head, class_="block"), why]
        else:
            why = tag("details", tag("summary", "The reasoning"), why)
            blocks.append(tag("div", drawn, head, why, class_="block"))
    return tag("div", blocks, class_="figures")


def _drawn(name: str, line: MatrixLine) -> Html:
    """The comparison as a figure; in words alone where there is no number at all."""
    numbers, sentence = figures.number_line(line), figures.sentence(line)
    title = figures.metric(line).capitalize() if line.cells.metric else "Nothing was measured yet"
    if numbers.values():
        return charts.number_line(name, title, sentence, numbers, figures.tone(line.cells.verdict))
    return tag("p", tag("strong", title), ". ", sentence)


SECTION = StorySection("Verdict", _verdicts)
