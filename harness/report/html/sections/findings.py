"""What a reader of the row's numbers should know."""

from harness.report.html import figures
from harness.report.html.collect import Story
from harness.report.html.markup import Html, tag
from harness.report.html.section import StorySection


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
    return tag("ul", items, class_="findings")


SECTION = StorySection("Findings", _findings)
