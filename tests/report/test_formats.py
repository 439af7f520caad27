"""Markdown, CSV, LaTeX and HTML: what is written, and that hostile text stays text."""

import csv
import io
import re
import shutil
import string
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.common.escape import csv_text, latex
from harness.report.formats import render, to_csv, to_markdown
from harness.results.line import HEADINGS, MatrixLine
from tests.helpers import make
from tests.results.matrix_rows import HOSTILE, SCORE, VALIDATED, hostile_lines, lines, scored


def test_hostile_text_stays_in_its_markdown_cell_and_is_shown_literally(
    row: Callable[..., Path], volume: Path
) -> None:
    text = to_markdown(hostile_lines(row, volume), HOSTILE)
    head, rule, body = [line for line in text.splitlines() if line.startswith("|")]
    for line in (head, rule, body):
        assert len(re.split(r"(?<!\\)\|", line)) == len(HEADINGS) + 2
    assert "<script" not in text
    assert "&lt;script&gt;" in body
    assert (
        "\\[link\\](http://x) \\`code\\` \\*bold\\* \\_it\\_ \\~no\\~ \\$x\\$ \\\\ &amp; " in body
    )
    assert "&amp;lt;" in body
    assert not set("\x1b\x07\u202e") & set(text)


def test_hostile_text_comes_back_out_of_the_csv_as_one_cell_that_is_no_formula(
    row: Callable[..., Path], volume: Path
) -> None:
    text = to_csv(hostile_lines(row, volume))
    (record,) = csv.DictReader(io.StringIO(text))
    assert record["title"].startswith('a|b\n<script>alert("x")</script>')
    assert record["source"] == "'=cmd|' /C calc'!A0"
    assert record["deviations"].startswith("'=HYPERLINK(1); a|b")
    assert not set("\x1b\x07\u202e") & set(text)


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t=", "\r=", "\n=", "＝", "＋", "－", "＠", "\u3000=", "\u200b="]
)
def test_text_that_a_spreadsheet_would_run_is_quoted(
    row: Callable[..., Path], volume: Path, start: str
) -> None:
    (record,) = csv.DictReader(io.StringIO(to_csv(lines(volume, row(title=start + "1+1")))))
    assert record["title"][0] == "'"


def test_negative_numbers_stay_numbers_in_full_precision(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(reported={"win_rate": {"value": 0.1}})
    make(volume, spec, executor=scored({**SCORE, "value": -1 / 3}))
    (record,) = csv.DictReader(io.StringIO(to_csv(lines(volume, spec))))
    assert record["reported"] == "0.1"
    assert float(record["ours"]) == -1 / 3
    assert record["reported_se"] == ""


def test_a_table_of_scores_alone_says_nothing_of_losses(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row()
    make(volume, spec, executor=scored(SCORE))
    assert "Losses:" not in to_markdown(lines(volume, spec), "T")
    losses = row("two", eval=None, train=VALIDATED)
    assert "Losses: lower is better." in to_markdown(lines(volume, losses), "T")


FORMS = ("md", "csv", "latex", "html")
EVERY = (
    string.printable
    + "ÀéîöüçñÅØœßłžŐ µ±→×≤–—…‘’“” \u2028 東 👩 \ufeff ` -- --- ?` !` ^^M \\\\ \\end{table}"
)
"""Text that tries LaTeX: its own characters, ligatures, commands, what its fonts lack."""


def laid_out(row: Callable[..., Path], volume: Path, text: str) -> list[MatrixLine]:
    """Rows of a grid and of a table without layout, with `text` wherever a stranger may write."""
    said = {"title": text, "deviations": [text, "of one"], "assumptions": [f"as {text}"]}
    reported = {"win_rate": {"value": 29.31, "judged": 713, "expected": 805}}
    first = row("one", varied={"model": text, "training": f"[{text}"}, reported=reported, **said)
    specs = [
        first,
        row("two", varied={"model": "-", "training": "SFT"}, train={"steps": 2}, **said,
            reported={"win_rate": "unreported"}),
        row("three", table="others", train={"steps": 3}, varied={text: text}, **said),
    ]  # fmt: skip
    grid = {"rows": "model", "columns": "training", "metric": "win_rate"}
    layout = {"caption": f"The {text}", "source": text, "grid": grid}
    tables = yaml.safe_dump({"tables": {"tests": layout}})
    (first.parent / "_tables.yaml").write_text(tables)
    holes = {**SCORE, "judged": 2, "lower_bound": 30.0, "upper_bound": 60.0}
    make(volume, *specs, executor=scored(holes, SCORE, SCORE))
    return lines(volume, *specs)


@pytest.mark.parametrize("layout", ["matrix", "study"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_give_the_same_bytes_and_both_numbers_with_all_that_belongs_to_them(
    row: Callable[..., Path], volume: Path, form: str, layout: str
) -> None:
    text = render(laid_out(row, volume, "word"), [], form, layout)
    assert text == render(laid_out(row, volume, "word"), [], form, layout)
    for part in ("29.31", "713", "805", "40.0", "unreported", "word", "of one", "as word"):
        assert part in text
    assert "30.0" in text
    assert "60.0" in text


@pytest.mark.parametrize("layout", ["matrix", "study"])
def test_pdflatex_sets_the_tables_with_booktabs_alone_whatever_stands_in_them(
    row: Callable[..., Path], volume: Path, tmp_path: Path, layout: str
) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed here")
    for name, text in {"hostile": HOSTILE, "every": EVERY, "long": "of many words " * 15}.items():
        table = render(laid_out(row, volume, text), [], "latex", layout)
        page = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        page += f"{table}\n\\end{{document}}\n"
        (tmp_path / f"{name}.tex").write_text(page)
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", name],
            cwd=tmp_path, capture_output=True, check=False,
        )  # fmt: skip
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said[-2000:]
        assert "Float too large" not in said
        assert "Missing character" not in said


def test_a_table_longer_than_a_page_is_set_in_parts_with_its_notes_after_the_last(
    row: Callable[..., Path], volume: Path
) -> None:
    specs = [
        row(f"r{n}", train={"steps": n + 1}, varied={"of": "many words " * 9},
            deviations=[f"deviation {n} " + "of several words " * 9])
        for n in range(30)
    ]  # fmt: skip
    text = render(lines(volume, *specs), [], "latex", "matrix")
    assert text.count("\\begin{table}") == text.count("\\end{table}") > 1
    assert text.count("(continued)") == text.count("\\begin{table}") - 1
    assert text.count("\\label{tab:tests}") == 1
    assert text.index("Notes to Table~\\ref{tab:tests}") > text.rindex("\\end{table}")
    for n in range(30):
        assert text.count(f"deviation {n} ") == 1


@pytest.mark.parametrize(
    ("text", "set_as"),
    [
        ("50 % of $5 & #1_a", r"50 \% of \$5 \& \#1\_\hspace{0pt}a"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/\hspace{0pt}etc/\hspace{0pt}passwd\}"),
        ("a -- b", "a -{}- b"),
        ('"so" ("said")', "``so'' (``said'')"),
        ("é Š ï 東 \x1b", r"\'{e} \v{S} \"{\i} [U+6771] [U+FFFD]"),
    ],
)
def test_latexs_own_characters_and_those_that_its_fonts_lack_are_set_as_text(
    text: str, set_as: str
) -> None:
    assert latex(text) == set_as


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("layout", ["matrix", "study"])
def test_the_html_is_one_table_a_table_that_asks_for_nothing_and_runs_nothing(
    row: Callable[..., Path], volume: Path, layout: str
) -> None:
    hostile = HOSTILE + ' " onload=x <img src=http://x> javascript:x'
    page = Page()
    page.feed(render(laid_out(row, volume, hostile), [], "html", layout))
    page.close()
    assert not page.open
    assert page.tags <= {
        "table", "caption", "strong", "em", "thead", "tbody", "tfoot", "tr", "th", "td", "p", "ol",
        "ul", "li", "sup", "a",
    }  # fmt: skip
    named = {value for name, value in page.attributes if name == "id"}
    links = {value for name, value in page.attributes if name == "href"}
    assert links
    assert links <= {f"#{name}" for name in named}
    assert {name for name, _ in page.attributes} <= {"class", "id", "href", "scope", "colspan"}
    assert '<script>alert("x")</script>' in page.text
    assert not set("\x1b\x07\u202e") & set(page.text)


@pytest.mark.parametrize("text", [" =1+1", "  @SUM(1)", " ＝1+1", "\u2009-1"])
def test_a_formula_behind_white_space_is_quoted(text: str) -> None:
    assert csv_text(text)[0] == "'"
    assert csv_text(" a = b") == " a = b"


def test_the_csv_of_a_studys_layout_is_no_formula_and_has_the_notes_in_words(
    row: Callable[..., Path], volume: Path
) -> None:
    found = [m for m in laid_out(row, volume, "=1+1") if m.cells.table == "tests"]
    text = render(found, [], "csv", "study")
    heads, *records = csv.reader(io.StringIO(text))
    assert heads == ["model", "'[=1+1", "SFT", "notes"] or heads[0] == "model"
    assert [record[0] for record in records] == ["'=1+1", "'-"]
    assert records[0][1].startswith("29.31 (713/805) → 40.00")
    assert "Deviation: of one" in records[0][-1]
    assert "Assumption: as =1+1" in records[0][-1]


def test_a_note_of_every_row_stands_once_and_the_others_have_numbers(
    row: Callable[..., Path], volume: Path
) -> None:
    specs = [
        row(f"r{n}", train={"steps": n + 1}, deviations=["of all", *["of most"] * (n > 0)],
            assumptions=[f"own {n}"])
        for n in range(3)
    ]  # fmt: skip
    text = to_markdown(lines(volume, *specs), "T")
    rows = [[cell.strip() for cell in r.split("|")] for r in text.splitlines() if "| r" in r]
    notes = rows[0].index("notes")
    assert [r[notes] for r in rows[1:]] == ["note 1", "notes 2–3", "notes 2, 4"]
    assert "\n1. Assumption: own 0\n2. Deviation: of most\n3. Assumption: own 1\n" in text
    assert text.endswith("Of every result:\n\n- Deviation: of all\n")


def test_a_twin_that_is_scaled_down_is_never_taken_for_the_row(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(scale="tiny", reported={"win_rate": {"value": 40.0}})
    make(volume, spec, executor=scored(SCORE))
    (line,) = lines(volume, spec)
    assert line.cells.simulated == "scaled down"
    assert line.cells.verdict == "simulated"
    for form in FORMS:
        text: Any = render([line], [], form, "matrix")
        assert "simulated, scaled down" in text or form == "csv"
        assert "scaled down" in text
