"""A part of a row's story."""

from collections.abc import Callable
from dataclasses import dataclass

from harness.report.html.collect import Story
from harness.report.html.markup import Html, tag


@dataclass(frozen=True)
class StorySection:
    title: str
    """Empty: the content stands without a heading."""
    content: Callable[[Story], Html | None]
    """None: the row has nothing of it, and the section is left out."""

    def render(self, story: Story) -> Html | None:
        content = self.content(story)
        if content is None or not self.title:
            return content
        return tag("section", tag("h4", self.title), content)
