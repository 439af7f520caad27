"""What a row is: its source, what it varies, its replicates."""

from typing import Any

from harness.report.html import figures
from harness.report.html.collect import Story
from harness.report.html.markup import Html, tag
from harness.report.html.section import StorySection


def _about(story: Story) -> Html | None:
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
    return tag("dl", items, class_="facts") if items else None


def _link(url: str) -> Html:
    if not url.startswith(("https://", "http://")):
        return tag("span", url)
    return tag("a", url, href=url, rel="noopener noreferrer")


SECTION = StorySection("", _about)
