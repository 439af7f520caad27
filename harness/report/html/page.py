"""The report: one HTML page that holds all it needs and asks for nothing over a network.

page.html, style.css and script.js stand beside this file; style and script are named by their digests
in the page's Content-Security-Policy, so that nothing else on it can run, whatever a model wrote.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from harness.artefact.store import Unusable, write_atomically
from harness.common.grouping import grouped
from harness.common.numbers import byte_size
from harness.common.progress import counted
from harness.errors import InputError
from harness.report.formats import written_to
from harness.report.html import figures, overview
from harness.report.html.appendix import Appendix
from harness.report.html.collect import Story, story_of
from harness.report.html.markup import Html, join, tag
from harness.report.html.sections import SECTIONS
from harness.report.layout import Layout, layouts_of
from harness.results.line import MatrixLine
from harness.results.matrix import data_alone, lines_of_rows, not_looked_up
from harness.row.load import LoadedRow
from harness.run.plan import Planner


def write_report(
    rows: Sequence[LoadedRow],
    planners: Sequence[Planner],
    out: Path,
    outputs: int,
    every_row: bool = False,
) -> tuple[str, dict[str, Unusable]]:
    """Write the page of these rows to `out`, or to report.html in it where it is a folder. `outputs`:
    most of each row's in its reader; `every_row`: also those of which nothing is made yet. Without any
    row, nothing is written.

    Returns what was written, and what was left out, in words; and the rows of which something cannot be
    used, with what is wrong: they stand there without a number. The same artefacts give the same bytes.

    Raises:
        InputError: the file cannot be written.
        SpecFaults: a study's `_tables.yaml` is faulty.
    """
    out = out / "report.html" if out.is_dir() else out
    if out.exists() and not out.is_file():
        raise InputError(f"{out} is no file and cannot be written", "Name a file with --out.")
    stories = stories_of(rows, planners, outputs)
    listed = [s for s in stories if every_row or s.fault or (s.plan and s.plan.is_begun)]
    for planner in planners[:1]:
        planner.files.save()
    sentences = ["nothing written"]
    if listed:
        page = render(listed)
        with written_to("file"):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out, page)
        size = byte_size(len(page.encode()))
        sentences = [f"written: {out}, {counted(len(listed), 'row')}, {size}"]
    if left_out := [s for s in stories if s not in listed]:
        verb = "is" if len(left_out) == 1 else "are"
        sentences.append(
            f"{counted(len(left_out), 'row')} of which nothing is made yet {verb} left out"
            f"{not_looked_up([s.row for s in left_out if not s.plan])} (--all shows them all)"
        )
        # A table counts these by themselves.
        sentences.append(data_alone([s.loaded for s in left_out], " of them"))
    sentences.append(data_alone([s.loaded for s in listed]))
    return "; ".join(filter(None, sentences)), {s.row: s.fault for s in stories if s.fault}


def stories_of(rows: Sequence[LoadedRow], planners: Sequence[Planner], outputs: int) -> list[Story]:
    """As the matrix has the rows, those with a number first; rows without a line come last."""
    damaged: dict[str, Unusable] = {}
    while True:
        lines = _results_first(lines_of_rows(rows, planners, damaged))
        lines_by_row = grouped(lines, lambda line: line.cells.row)
        appendix = Appendix()
        places = {row: place for place, row in enumerate(lines_by_row)}
        stories = []
        for loaded in sorted(rows, key=lambda loaded: places.get(loaded.row.row, len(places))):
            row = loaded.row.row
            of_row = lines_by_row.get(row, [])
            try:
                story = story_of(loaded, planners, of_row, appendix, outputs, damaged.get(row))
            except Unusable as e:
                damaged[row] = e  # what no number comes of was changed: it has none all the same
                break
            stories.append(story)
        else:
            return stories


def render(stories: Sequence[Story]) -> str:
    """The page's text."""
    lines = [line for story in stories for line in story.lines]
    layouts = layouts_of(lines)
    tables: dict[str, list[Html]] = {}
    for story in stories:
        tables.setdefault(story.loaded.row.table, []).append(_article(story))
    style, script = _asset("style.css"), _asset("script.js")
    return Template(_asset("page.html")).substitute(
        style=style,
        script=script,
        style_digest=_digest(style),
        script_digest=_digest(script),
        count=f"{counted(len(stories), 'row')}, {counted(len(lines), 'line')} in the matrix.",
        tally=overview.tally(lines),
        notice=overview.notice(lines) or "",
        matrix=overview.matrix(lines) if lines else tag("p", "None of these rows has a number."),
        stories=join(
            [_table(name, layouts.get(name), articles) for name, articles in tables.items()]
        ),
        explanation=overview.explanation(lines),
        appendix=stories[0].appendix.render(),
    )


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a Content-Security-Policy names what stands between the tags."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _results_first(lines: Sequence[MatrixLine]) -> list[MatrixLine]:
    """The rows with a number, then those without; either as the tables have them."""
    reproduced = {line.cells.row for line in lines if line.cells.ours is not None}
    return sorted(lines, key=lambda line: line.cells.row not in reproduced)


def _table(name: str, layout: Layout | None, stories: Sequence[Html]) -> Html:
    heading = tag("h2", "Table ", tag("span", name), id=f"table-{name}")
    caption = tag("p", f"{layout.caption} ({layout.source})", class_="soft") if layout else None
    return tag(
        "section", heading, caption, *stories, aria_labelledby=f"table-{name}", class_="table"
    )


def _article(story: Story) -> Html:
    row = story.loaded.row
    parts = [section.render(story) for section in SECTIONS]
    summary = tag(
        "summary",
        tag("h3", row.title),
        tag("span", tag("code", row.row), _headline(story), class_="headline"),
    )
    body = tag("div", parts, class_="parts")
    details = tag("details", summary, body)
    return tag("article", details, id=f"row-{row.row}", class_="story", aria_label=f"Row {row.row}")


def _headline(story: Story) -> list[Any]:
    """The first line's verdict; further ones stand in the story."""
    parts: list[Any] = []
    for line in story.lines[:1]:
        c = line.cells
        if c.ours is not None:
            metric = figures.metric(line)
            parts.append(tag("span", f"{metric} ", tag("b", line.number(c.ours))))
        elif c.reported is not None:
            parts.append(tag("span", f"reported {line.number(c.reported)}"))
        parts.append(figures.pill(c.verdict))
    if not story.lines:
        is_made = any(s.artefact for s in story.stages)
        parts.append(tag("span", "a data set" if is_made else "a data set, not made yet"))
    return parts
