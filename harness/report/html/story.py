"""One row's story: where its number stands, what came of it, and everything it was made with."""

from collections.abc import Sequence
from typing import Any

from harness.report.html import charts, reader, words
from harness.report.html.collect import Story
from harness.report.html.made import Shared, stages
from harness.report.html.markup import Html, section, tag
from harness.report.html.measured import answers, data, training
from harness.report.matrix import Line, deviations
from harness.report.outputs import Shown


def story(told: Story, shared: Shared, outputs: int) -> Html:
    """The row's article. `outputs`: most of them in the reader."""
    row = told.loaded.row
    parts = [
        _about(told),
        _verdicts(told),
        _stated(told),
        _findings(told),
        data(told),
        training(told),
        answers(told),
        _reader(told, outputs),
        stages(told, shared),
        _spec(told, shared),
    ]
    summary = tag(
        "summary",
        tag("h3", row.title),
        tag("span", tag("code", row.row), _headline(told), class_="headline"),
    )
    body = tag("div", [part for part in parts if part is not None], class_="parts")
    made = tag("details", summary, body)
    return tag("article", made, id=f"row-{row.row}", class_="story", aria_label=f"Row {row.row}")


def _headline(told: Story) -> list[Any]:
    """The first line's verdict; further ones stand in the story."""
    found: list[Any] = []
    for line in told.lines[:1]:
        c = line.cells
        if c["reproduced"] is not None:
            metric = words.metric(line)
            found.append(tag("span", f"{metric} ", tag("b", words.number(line, c["reproduced"]))))
        elif c["reported"] is not None:
            found.append(tag("span", f"reported {words.number(line, c['reported'])}"))
        found.append(words.pill(str(c["verdict"])))
    if not told.lines:
        made = any(s.artefact for s in told.stages)
        found.append(tag("span", "a data set" if made else "a data set, not made yet"))
    return found


def _about(told: Story) -> Html:
    row = told.loaded.row
    source = row.source
    parts: list[tuple[str, Any]] = []
    if source is not None:
        line = f"line {source.line}" if source.line else None
        where = ", ".join(p for p in (source.document, source.table, line) if p)
        parts.append(("Source", [where, " ", _link(source.url)] if source.url else where))
    parts += [(name.capitalize(), words.told(value)) for name, value in row.varied.items()]
    if row.scale == "tiny":
        parts.append(("Scale", "tiny: a scaled-down twin of the row"))
    replicates = row.replicates
    seeds = {"training seeds": replicates.train_seeds, "sampling seeds": replicates.sampling_seeds}
    parts += [
        (name.capitalize(), words.told(list(found))) for name, found in seeds.items() if found
    ]
    if replicates.judge > 1:
        parts.append(("Judgings", f"{replicates.judge} of the same outputs"))
    items = [tag("div", tag("dt", name), tag("dd", value)) for name, value in parts]
    return tag("dl", items, class_="facts") if items else Html()


def _link(url: str) -> Html:
    if not url.startswith(("https://", "http://")):
        return tag("span", url)
    return tag("a", url, href=url, rel="noopener noreferrer")


def _verdicts(told: Story) -> Html | None:
    if not told.lines:
        return None
    pairs = list(zip(told.lines, told.reasons, strict=True))
    blocks: list[Html] = []
    for number, (line, reasons) in enumerate(pairs, start=1):
        c = line.cells
        reason = str(c["verdict_reason"] or "")
        marks = words.marks(line)[bool(c["simulated"]) and c["verdict"] == "simulated" :]
        head = tag("p", words.pill(str(c["verdict"])), " ", marks, " ",
                   reason[:1].upper() + reason[1:] + "." * bool(reason), class_="verdict")  # fmt: skip
        drawn = _drawn(f"figure-{told.row}-compared-{number}", line)
        items = [tag("div", tag("dt", name), tag("dd", text)) for name, text in reasons]
        why = tag("dl", items, class_="reasons")
        if len(pairs) == 1:
            blocks += [tag("div", drawn, head, class_="block"), why]
        else:
            why = tag("details", tag("summary", "The reasoning"), why)
            blocks.append(tag("div", drawn, head, why, class_="block"))
    return section("Verdict", tag("div", blocks, class_="figures"))


def _drawn(name: str, line: Line) -> Html:
    """The comparison as a figure; in words alone where there is no number at all."""
    shown, sentence = words.compared(line), words.sentence(line)
    title = words.metric(line).capitalize() if line.cells["metric"] else "Nothing was measured yet"
    if shown.known():
        return charts.compared(name, title, sentence, shown, words.tone(str(line.cells["verdict"])))
    return tag("p", tag("strong", title), ". ", sentence)


def _stated(told: Story) -> Html | None:
    row = told.loaded.row
    from_runs = [
        one for s in told.stages if s.artefact for one in s.artefact.manifest.get("deviations", [])
    ]
    lists = {
        "Deviations from the published set-up": [*deviations(row), *map(str, from_runs)],
        "Assumptions where the document is silent": row.assumptions,
    }
    blocks = [
        tag("div", tag("h5", title), tag("ul", [tag("li", one) for one in dict.fromkeys(found)]))
        for title, found in lists.items()
        if found
    ]
    return section("What differs", *blocks) if blocks else None


def _findings(told: Story) -> Html | None:
    if not told.findings:
        return None
    items = []
    for one in told.findings:
        evidence = one.get("evidence")
        more = None
        if evidence:
            pairs = evidence.items() if isinstance(evidence, dict) else [("", evidence)]
            more = tag("details", tag("summary", "evidence"),
                       tag("dl", [tag("div", tag("dt", k), tag("dd", words.told(v))) for k, v in pairs],
                           class_="facts"))  # fmt: skip
        kind = str(one["kind"]).replace("_", " ")
        severity = str(one.get("severity", "warning"))
        items.append(
            tag("li", tag("strong", kind), tag("span", severity, class_=f"mark s-{severity}"), " ",
                str(one["message"]), more)
        )  # fmt: skip
    return section("Findings", tag("ul", items, class_="findings"))


def _reader(told: Story, most: int) -> Html | None:
    if told.outputs is None or not told.outputs.prompts or not most:
        return None
    prompts: Sequence[Shown] = told.outputs.prompts
    shown = reader.sample(prompts, most, told.row)
    inner = reader.reader(told.row, shown, told.outputs.others)
    label = told.outputs.planned.label
    note = tag("p", f"Those of {label}.", class_="soft") if label and told.outputs.others else None
    made = tag("details", tag("summary", f"Read the outputs ({len(shown.prompts)} of {shown.of})"),
               note, inner)  # fmt: skip
    return section("Outputs", made)


def _spec(told: Story, shared: Shared) -> Html:
    links = [tag("li", tag("a", p.name, href=f"#{shared.spec(p)}")) for p in told.parents]
    extends = tag("div", tag("p", "It is merged over:"), tag("ul", links)) if links else None
    text = tag("div", told.spec.text, class_="text code", tabindex=0, role="region",
               aria_label=f"Text of {told.spec.name}")  # fmt: skip
    return section(
        "Spec", tag("details", tag("summary", tag("code", told.spec.name)), text, extends)
    )
