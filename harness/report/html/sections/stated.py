"""Where the row departs from the published set-up, and what it takes for granted."""

from harness.report.html.collect import Story
from harness.report.html.markup import Html, join, tag
from harness.report.html.section import StorySection
from harness.results.matrix import deviations


def _stated(story: Story) -> Html | None:
    row = story.loaded.row
    from_runs = [
        note for s in story.stages if s.artefact for note in s.artefact.manifest.deviations
    ]
    lists = {
        "Deviations from the published set-up": [*deviations(row), *map(str, from_runs)],
        "Assumptions where the document is silent": row.stated("assumption"),
    }
    blocks = [
        tag("div", tag("h5", title), tag("ul", [tag("li", note) for note in dict.fromkeys(notes)]))
        for title, notes in lists.items()
        if notes
    ]
    return join(blocks) if blocks else None


SECTION = StorySection("What differs", _stated)
