"""The row's spec as it is written; what it extends stands once, at the page's end."""

from harness.report.html.collect import Story
from harness.report.html.markup import Html, tag
from harness.report.html.section import StorySection


def _spec(story: Story) -> Html:
    links = [tag("li", tag("a", p.name, href=f"#{story.appendix.spec(p)}")) for p in story.parents]
    extends = tag("div", tag("p", "It is merged over:"), tag("ul", links)) if links else None
    text = tag("div", story.spec.text, class_="text code", tabindex=0, role="region",
               aria_label=f"Text of {story.spec.name}")  # fmt: skip
    return tag("details", tag("summary", tag("code", story.spec.name)), text, extends)


SECTION = StorySection("Spec", _spec)
