"""One row's story: where its number stands, what came of it, and everything it was made with."""

from collections.abc import Sequence
from typing import Any

from harness.report.html import charts, figures
from harness.report.html.collect import Story
from harness.report.html.markup import Html, section, tag
from harness.report.html.sections import reader
from harness.report.html.sections.measured import answers, data, training
from harness.report.html.sections.stages import Appendix, stages
from harness.results.matrix import MatrixLine, deviations
from harness.results.outputs import JudgedOutput


def row_article(story: Story, appendix: Appendix, outputs: int) -> Html:
    """The row's article. `outputs`: most of them in the reader."""
    row = story.loaded.row
    parts = [
        _about(story),
        _verdicts(story),
        _stated(story),
        _findings(story),
        data(story),
        training(story),
        answers(story),
        _reader(story, outputs),
        stages(story, appendix),
        _spec(story, appendix),
    ]
    summary = tag(
        "summary",
        tag("h3", row.title),
        tag("span", tag("code", row.row), _headline(story), class_="headline"),
    )
    body = tag("div", [part for part in parts if part is not None], class_="parts")
    details = tag("details", summary, body)
    return tag("article", details, id=f"row-{row.row}", class_="story", aria_label=f"Row {row.row}")


def _headline(story: Story) -> list[Any]:
    """The first line's verdict; further ones stand in the story."""
    parts: list[Any] = []
    for line in story.lines[:1]:
        c = line.cells
        if c.reproduced is not None:
            metric = figures.metric(line)
            parts.append(tag("span", f"{metric} ", tag("b", figures.number(line, c.reproduced))))
        elif c.reported is not None:
            parts.append(tag("span", f"reported {figures.number(line, c.reported)}"))
        parts.append(figures.pill(str(c.verdict)))
    if not story.lines:
        is_made = any(s.artefact for s in story.stages)
        parts.append(tag("span", "a data set" if is_made else "a data set, not made yet"))
    return parts


def _about(story: Story) -> Html:
    row = story.loaded.row
    source = row.source
    parts: list[tuple[str, Any]] = []
    if source is not None:
        line = f"line {source.line}" if source.line else None
        where = ", ".join(p for p in (source.document, source.table, line) if p)
        parts.append(("Source", [where, " ", _link(source.url)] if source.url else where))
    parts += [(name.capitalize(), figures.brief(value)) for name, value in row.varied.items()]
    if row.scale == "tiny":
        parts.append(("Scale", "tiny: a scaled-down twin of the row"))
    replicates = row.replicates
    seeds = {"training seeds": replicates.train_seeds, "sampling seeds": replicates.sampling_seeds}
    parts += [
        (name.capitalize(), figures.brief(list(numbers)))
        for name, numbers in seeds.items()
        if numbers
    ]
    if replicates.judge > 1:
        parts.append(("Judgings", f"{replicates.judge} of the same outputs"))
    items = [tag("div", tag("dt", name), tag("dd", value)) for name, value in parts]
    return tag("dl", items, class_="facts") if items else Html()


def _link(url: str) -> Html:
    if not url.startswith(("https://", "http://")):
        return tag("span", url)
    return tag("a", url, href=url, rel="noopener noreferrer")


def _verdicts(story: Story) -> Html | None:
    if not story.lines:
        return None
    pairs = list(zip(story.lines, story.reasons, strict=True))
    blocks: list[Html] = []
    for number, (line, reasons) in enumerate(pairs, start=1):
        c = line.cells
        reason = str(c.verdict_reason or "")
        marks = figures.marks(line)[bool(c.simulated) and c.verdict == "simulated" :]
        head = tag("p", figures.pill(str(c.verdict)), " ", marks, " ",
                   reason[:1].upper() + reason[1:] + "." * bool(reason), class_="verdict")  # fmt: skip
        drawn = _drawn(f"figure-{story.row}-compared-{number}", line)
        items = [tag("div", tag("dt", name), tag("dd", text)) for name, text in reasons]
        why = tag("dl", items, class_="reasons")
        if len(pairs) == 1:
            blocks += [tag("div", drawn, head, class_="block"), why]
        else:
            why = tag("details", tag("summary", "The reasoning"), why)
            blocks.append(tag("div", drawn, head, why, class_="block"))
    return section("Verdict", tag("div", blocks, class_="figures"))


def _drawn(name: str, line: MatrixLine) -> Html:
    """The comparison as a figure; in words alone where there is no number at all."""
    numbers, sentence = figures.number_line(line), figures.sentence(line)
    title = figures.metric(line).capitalize() if line.cells.metric else "Nothing was measured yet"
    if numbers.values():
        return charts.number_line(
            name, title, sentence, numbers, figures.tone(str(line.cells.verdict))
        )
    return tag("p", tag("strong", title), ". ", sentence)


def _stated(story: Story) -> Html | None:
    row = story.loaded.row
    from_runs = [
        note for s in story.stages if s.artefact for note in s.artefact.manifest.deviations
    ]
    lists = {
        "Deviations from the published set-up": [*deviations(row), *map(str, from_runs)],
        "Assumptions where the document is silent": row.assumptions,
    }
    blocks = [
        tag("div", tag("h5", title), tag("ul", [tag("li", note) for note in dict.fromkeys(notes)]))
        for title, notes in lists.items()
        if notes
    ]
    return section("What differs", *blocks) if blocks else None


def _findings(story: Story) -> Html | None:
    if not story.findings:
        return None
    items = []
    for finding in story.findings:
        more = None
        if finding.evidence:
            pairs = finding.evidence.items()
            more = tag("details", tag("summary", "evidence"),
                       tag("dl",
                           [tag("div", tag("dt", k), tag("dd", figures.brief(v))) for k, v in pairs],
                           class_="facts"))  # fmt: skip
        kind = finding.kind.replace("_", " ")
        severity = tag("span", finding.severity, class_=f"mark s-{finding.severity}")
        items.append(tag("li", tag("strong", kind), severity, " ", finding.message, more))
    return section("Findings", tag("ul", items, class_="findings"))


def _reader(story: Story, most: int) -> Html | None:
    if story.outputs is None or not story.outputs.prompts or not most:
        return None
    prompts: Sequence[JudgedOutput] = story.outputs.prompts
    sample = reader.sample(prompts, most, story.row)
    inner = reader.reader(story.row, sample, story.outputs.other_labels)
    label = story.outputs.planned.label
    note = (
        tag("p", f"Those of {label}.", class_="soft")
        if label and story.outputs.other_labels
        else None
    )
    details = tag("details", tag("summary", f"Read the outputs ({len(sample.prompts)} of {sample.of})"),
               note, inner)  # fmt: skip
    return section("Outputs", details)


def _spec(story: Story, appendix: Appendix) -> Html:
    links = [tag("li", tag("a", p.name, href=f"#{appendix.spec(p)}")) for p in story.parents]
    extends = tag("div", tag("p", "It is merged over:"), tag("ul", links)) if links else None
    text = tag("div", story.spec.text, class_="text code", tabindex=0, role="region",
               aria_label=f"Text of {story.spec.name}")  # fmt: skip
    return section(
        "Spec", tag("details", tag("summary", tag("code", story.spec.name)), text, extends)
    )
