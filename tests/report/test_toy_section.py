"""A section of the report from outside: its title and its function are all that it takes."""

from pathlib import Path

import pytest

from harness.report.html import page
from harness.report.html.collect import Story
from harness.report.html.markup import Html, tag
from harness.report.html.section import StorySection
from harness.report.html.sections import SECTIONS
from harness.row.load import load_rows
from tests.helpers import planner
from tests.results.scored_rows import scored_row, wins


def _runs(story: Story) -> Html | None:
    """Nothing of a row that was not judged."""
    judged = sum(stage.stage == "judge" and stage.artefact is not None for stage in story.stages)
    return tag("p", f"{judged} judging of {story.row} <so far>") if judged else None


def test_a_section_in_the_list_stands_in_its_place_in_each_story_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_row(tmp_path, wins(40), row="judged")
    scored_row(tmp_path, row="waiting")
    rows, planners = load_rows([tmp_path / "specs"]), [planner(tmp_path / "runs")]
    before = page.render(page.stories_of(rows, planners, 10))
    monkeypatch.setattr(page, "SECTIONS", [StorySection("Runs", _runs), *SECTIONS])
    text = page.render(page.stories_of(rows, planners, 10))
    section = "<section><h4>Runs</h4><p>1 judging of judged &lt;so far&gt;</p></section>"
    assert text.count("<h4>Runs</h4>") == 1
    start = text.index('id="row-judged"')
    assert text.index(section, start) < text.index("<h4>Verdict</h4>", start)
    assert text.replace(section, "") == before
