"""The HTML report: what it tells, that no text becomes markup, and that the same gives the same."""

import base64
import errno
import hashlib
import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artefact.store import Damaged
from harness.common.numbers import byte_size
from harness.errors import InputError
from harness.report.html import charts
from harness.report.html.markup import Html, escape, join, tag
from harness.report.html.overview import RULES
from harness.report.html.page import render, stories_of, write_report
from harness.report.html.sections import reader
from harness.report.html.sections.answers import _binned, _edges
from harness.report.html.sections.reader import sample
from harness.results.outputs import JudgedOutput, Judgement
from harness.row.load import load_rows
from tests.helpers import ROOT, command, evaluation, make, planned, planner, write_row
from tests.report.report_rows import HOSTILE, grades, report_row, several_rows
from tests.results.judged_rows import annotations, answers, judged_row


class Page(HTMLParser):
    """What a browser would make of the page, roughly: elements, and the text in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[tuple[str, int]] = []
        self.texts: dict[int, list[str]] = {}
        self.feed(text)
        self.close()
        assert [name for name, _ in self.open] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in ("meta", "link", "input", "br"):
            self.open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, number in self.open:
            self.texts.setdefault(number, []).append(data)

    def all(self, tag: str = "", **attributes: str) -> list[str]:
        """The text of every element with these attributes."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            " ".join(self.texts.get(n, []))
            for n, (name, own) in enumerate(self.elements)
            if tag in ("", name) and all(own.get(k) == v for k, v in wanted.items())
        ]


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    several_rows(folder)
    return folder


@pytest.fixture(scope="module")
def text(volume: Path) -> str:
    return rendered(volume)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def rendered(folder: Path, *specs: Path, outputs: int = 100) -> str:
    rows = load_rows(specs or [folder / "specs"])
    return render(stories_of(rows, [planner(folder / "runs")], outputs))


def story(page: Page, row: str) -> str:
    """A story's words, with single spaces."""
    (found,) = page.all("article", id=f"row-{row}")
    return " ".join(found.split())


def test_the_matrix_has_each_number_with_its_counts_interval_and_verdict(page: Page) -> None:
    (matrix,) = page.all("table", id="matrix-table")
    words = " ".join(matrix.split())
    # 30 % of 400 has a standard error of 2.3.
    assert re.search(
        r"30\.40 30\.00 25\.\d\d to 3[45]\.\d\d random weights 400 of 400 1 of 1", words
    )
    assert re.search(r"110 of 120 bounds \d\d\.\d\d to \d\d\.\d\d 2 of 2", words)
    verdicts = [e["data-verdict"] for n, e in page.elements if n == "tr" and "data-verdict" in e]
    assert verdicts[:3] != []
    assert {"reproduced", "not reproduced", "not run", "simulated"} <= set(verdicts)


def test_simulated_numbers_are_marked_in_the_matrix_in_their_story_and_above_all(
    page: Page,
) -> None:
    assert any(
        "Numbers marked simulated" in one for one in page.all("p", class_="notice v-simulated")
    )
    (row,) = page.all("tr", data_verdict="simulated")
    assert "35.00" in row
    assert row.count("simulated") == 2
    assert "35.00 (simulated)" in story(page, "trained")
    assert "simulated" not in story(page, "held")


def test_a_story_tells_verdict_source_deviations_assumptions_and_the_spec_as_written(
    page: Page, volume: Path
) -> None:
    words = story(page, "held")
    for part in (
        "a paper, Table 1, line 3",
        "the published judge is retired",
        "the upstream's template",
        "Reported: 30.40, margin ±12. Here: 30.00, 95 % interval",
        "✓ reproduced",
        "specs/held.yaml",
    ):
        assert part in words
    written = (volume / "specs" / "held.yaml").read_text()
    assert written in page.all("div", aria_label="Text of specs/held.yaml")
    assert str(volume) not in words


def test_a_story_tells_what_the_verdict_rests_on_and_with_what_it_is_confounded(page: Page) -> None:
    words = story(page, "fell")
    assert "✕ not reproduced" in words
    assert "ours 15.00 ± 1.79 over prompts, 95 % interval" in words
    assert re.search(r"confounded warning .*temperature: 0.7 against 1", words)
    assert "confounded" not in story(page, "open")
    (row,) = page.all("tr", data_verdict="not reproduced")
    assert "finding: confounded" in row


def test_a_story_tells_stages_with_keys_versions_seeds_and_cost(page: Page, volume: Path) -> None:
    (plan,) = planned(volume / "runs", volume / "specs" / "trained.yaml")
    words = story(page, "trained")
    for stage in plan.stages:
        assert stage.key[:12] in words
    for part in (
        "A Processor, 8 CPUs, 16.0 GiB", "Python 3.11.7, torch 2.13.0", "train 1", "train 2",
        "judge (train seed 2) 2 1,000 20 $0.25",
        "together 14 7,000 140 $1.75",
    ):  # fmt: skip
        assert part in words
    # Where every package is listed, once for all stages that had the same.
    assert page.all("details", id="environment-1")[0].count("click 8.5.1") == 1


def test_a_story_draws_losses_lengths_places_and_data(page: Page) -> None:
    titles = page.all("title")
    words = story(page, "trained")
    for part in (
        "train seed 1: train loss 3.2404 at step 1", "held-out loss 0.5588 at step 300",
        "Each point is the mean of 2 steps", "200 answers, median", "200 baseline outputs",
        "9 outputs", "9 examples of instruction data",
        "empty, train seed 1 15 of 200 7.5 %",
    ):  # fmt: skip
        assert part.lower() in words.lower()
    assert re.search(r"Shown first: \d\d\.\d % ± \d\.\d of 100; shown second: ", words)
    for title in ("Loss curve", "Lengths of the answers", "Win rate"):
        assert title in titles


def test_judge_replicates_say_how_far_the_judge_agrees_with_itself(page: Page) -> None:
    words = story(page, "open")
    assert "2 judgings of the same 60 outputs" in words
    assert "Cohen's kappa" in words
    assert "judging 2: " in words


def test_a_row_that_did_not_run_has_a_story_too(page: Page) -> None:
    words = story(page, "waiting")
    for part in (
        "○ not run",
        "Reported: 12.50",
        "Not run.",
        "judge",
        "to run",
        "specs/waiting.yaml",
    ):
        assert part in words


def test_rows_with_a_number_stand_before_those_without_and_a_table_has_its_studys_caption(
    tmp_path: Path,
) -> None:
    def row(name: str, table: str, *judgings: list[float | None]) -> Path:
        changes = {"table": table, "title": name, "varied": {"data": name}, "gen": None}
        if judgings:
            return report_row(tmp_path, name, list(judgings), **changes)
        parts = evaluation(tmp_path / "specs", {"model": "judge"})
        return write_row(tmp_path / "specs", name, eval=parts, train=None, **changes)

    specs = [row("a", "first"), row("b", "first", grades(20, 5)), row("c", "second"),
             row("d", "second", grades(20, 6))]  # fmt: skip
    layout = {"caption": "What <i>they</i> found", "source": "document 9, table 2",
              "list": [{"heading": "data", "varied": "data"}]}  # fmt: skip
    layouts = tmp_path / "specs" / "_tables.yaml"
    layouts.write_text(yaml.safe_dump({"tables": {"second": layout}}))
    text = rendered(tmp_path, *specs)
    assert re.findall(r'<th scope="row"[^>]*data-value="(.)"', text) == ["b", "d", "a", "c"]
    # Each row's story in its own table.
    assert re.findall(r'id="(?:row|table)-(\w+)"', text.partition('id="rows"')[2]) == [
        "first", "b", "a", "second", "d", "c"
    ]  # fmt: skip
    told = [one for one in Page(text).all("p", class_="soft") if "document 9" in one]
    assert told == ["What <i>they</i> found (document 9, table 2)"]


def test_the_verdicts_are_told_in_the_words_of_the_docs() -> None:
    page = (ROOT / "docs" / "results.md").read_text().partition("## Verdicts")[2]
    rules = dict(re.findall(r"^\| ([a-z: ]+) \| (.+) \|$", page.partition("##")[0], re.MULTILINE))
    assert rules == {"verdict": "when", **RULES}


def test_a_row_that_cannot_be_planned_says_why(tmp_path: Path) -> None:
    spec = write_row(tmp_path / "specs", gen=None, data="data:absent.jsonl")
    words = story(Page(rendered(tmp_path, spec)), "one")
    assert "It cannot be planned here: its given data is not there." in words


def test_a_row_that_only_makes_data_has_a_story_and_no_line(tmp_path: Path) -> None:
    spec = write_row(tmp_path / "specs", train=None, model=None, template=None)
    found = Page(rendered(tmp_path, spec))
    assert "a data set, not made yet" in story(found, "one")
    assert found.all("table", id="matrix-table") == []


def test_artefacts_that_hold_nothing_to_show_leave_their_parts_out(tmp_path: Path) -> None:
    from tests.helpers import evaluation

    spec = write_row(tmp_path / "specs", eval=evaluation(tmp_path / "specs"))
    make(tmp_path / "runs", spec)
    words = story(Page(rendered(tmp_path, spec)), "one")
    assert "made by the instant executor" in words
    for part in ("Loss curve", "Read the outputs", "data card"):
        assert part not in words


@pytest.mark.parametrize("name", ["trainer_log.jsonl", "card.json", "annotations.json"])
def test_a_row_with_a_changed_artefact_is_shown_as_damaged_and_without_a_number(
    tmp_path: Path, name: str
) -> None:
    several_rows(tmp_path)
    rows = load_rows([tmp_path / "specs"])
    for path in (tmp_path / "runs").rglob(name):
        if json.loads(path.with_name("manifest.json").read_text())["row"] == "trained":
            path.write_text("[]")
    out = tmp_path / "report.html"
    _, damaged = write_report(rows, [planner(tmp_path / "runs")], out, 10)
    page = Page(out.read_text())
    assert [row for row in damaged if row != "hostile"] == ["trained"]
    assert all(isinstance(fault, Damaged) for fault in damaged.values())
    for row in damaged:
        words = story(page, row)
        assert "! damaged" in words
        assert f"{name} does not have the bytes it was made with" in words
        assert "nothing yet" in words
        assert "Read the outputs" not in words
    assert "30.00" in story(page, "held")


@pytest.fixture
def judged_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is judged, on the volume that a command takes by itself."""
    for name in ("HARNESS_DATA", "HARNESS_INPUTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    judged_row(tmp_path, answers(3), annotations(1.0, 2.0, 1.5))


@pytest.mark.usefixtures("judged_here")
def test_a_row_that_cannot_be_looked_up_is_told_of_as_such(tmp_path: Path) -> None:
    write_row(tmp_path / "specs", "lost", gen=None, data="data:gone.json")
    write_row(tmp_path / "specs", "waiting", train={"steps": 2})
    assert command("report").stdout.endswith(
        "; 2 rows of which nothing is made yet are left out; 1 of them could not be looked up, as what "
        "the spec names is not there, or is another file: lost (--all shows them all)\n"
    )


def test_an_artefact_whose_file_was_never_sound_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.report import report_rows

    parts = report_rows.gen_and_train(tmp_path)
    monkeypatch.setattr(
        report_rows.Stages, "_train", lambda self, job: ({"trainer_log.jsonl": '{"loss": 1}\n'}, {})
    )
    report_row(tmp_path, "one", [grades(4, 2)], **parts)
    words = story(Page(rendered(tmp_path)), "one")
    assert re.search(r"damaged .*trainer_log.jsonl of the artefact train/\w+ does not hold", words)


def test_the_readers_outputs_are_there_without_a_script_with_everything_said_of_them(
    page: Page,
) -> None:
    items = page.all("article", class_="item")
    (first,) = [i for i in items if "open" in i and "prompt 0 " in i and "Prompt 0" in i]
    for part in ("answer 0", "baseline 0", "davinci", "I prefer it.", "judging 1: ", "koala"):
        assert part in first
    marks = [e["data-of"] for n, e in page.elements if e.get("class") == "item"]
    assert {"won", "lost", "unjudged", "flagged", "changed"} <= {
        m for one in marks for m in one.split()
    }


def test_nothing_hostile_becomes_markup_anywhere(page: Page, text: str) -> None:
    names = {name for name, _ in page.elements}
    assert not names & {"img", "i", "b "}
    assert [n for n, _ in page.elements].count("script") == 1
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        link = attributes.get("href", "#")
        assert link.startswith(("#", "https://example.org/", "data:,"))
    # Shown as it was written, in every place that could hold it.
    words = story(page, "hostile")
    assert words.count("<script>window.ran = 1</script>") > 100
    for sign in "\x00\x07\x1b\r\u202e\u2066\u2028\ud83d":
        assert sign not in text
    assert "␛[31m␀␇" in text
    assert "⟨U+202E⟩desrever" in text
    assert "👩\u200d🚀" in text
    assert "naïve 東京" in text
    text.encode()


def test_every_place_of_a_strangers_text_is_escaped_there_and_not_left_out(page: Page) -> None:
    words = story(page, "hostile")
    shown = html.unescape(escape(HOSTILE))
    told = " ".join(shown.split())
    for place in (
        f"Answer of {told}", f"Baseline {told}", f"I prefer it. {told}", f"baseline 3 {told}",
        f"prompt 3 {told}", f"device: {told}", "<b>bold</b>", "javascript:1",
    ):  # fmt: skip
        assert place in words, place


def test_the_page_asks_for_nothing_and_names_its_style_and_script_by_digest(text: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = html.unescape(policy[1])
    assert rules.startswith("default-src 'none';")
    for name in ("style", "script"):
        (inner,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in rules
    assert not re.search(r"(?:src|srcset|action|xlink:href)=\"", text)
    assert "url(" not in text
    assert "@import" not in text
    assert "innerHTML" not in text


def test_the_same_artefacts_give_the_same_bytes(volume: Path, text: str) -> None:
    assert rendered(volume) == text
    assert "20" + "26-" not in text  # no date
    assert str(volume) not in text


def test_ids_are_unique_and_every_link_within_the_page_leads_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        link = attributes.get("href", "")
        if link.startswith("#"):
            assert link[1:] in ids
        for name in ("aria-labelledby", "for"):
            assert set(attributes.get(name, "").split()) <= set(ids)


@pytest.mark.usefixtures("judged_here")
def test_the_command_writes_the_page_whole_and_says_so(tmp_path: Path) -> None:
    said = command("report", "--executor", "local").output
    out = tmp_path / "runs" / "results" / "report.html"
    assert said == f"written: runs/results/report.html, 1 row, {byte_size(len(out.read_bytes()))}\n"
    assert Page(out.read_text()).all("h1") == ["What was reported, and what was reproduced"]
    before = out.read_bytes()
    command("report", "--executor", "local")
    assert out.read_bytes() == before
    without = command("report", "--executor", "local", "--outputs", "0")
    assert without.exit_code == 0
    assert "Read the outputs" not in out.read_text()
    assert [p.name for p in out.parent.iterdir()] == ["report.html"]


def test_rows_of_which_nothing_is_made_are_counted_and_left_out_but_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HARNESS_DATA", "HARNESS_INPUTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs" / "results" / "report.html"
    write_row(tmp_path / "specs", "waiting", eval=None)
    told = "1 row of which nothing is made yet is left out (--all shows them all)\n"
    assert command("report").stdout == f"nothing written; {told}"
    assert not out.exists()
    judged_row(tmp_path, answers(3), annotations(1.0, 2.0, 1.5))
    done = command("report")
    assert ", 1 row, " in done.stdout
    assert done.stdout.endswith(f"; {told}")
    assert 'id="row-waiting"' not in out.read_text()
    done = command("report", "--all")
    assert ", 2 rows, " in done.stdout
    assert "left out" not in done.stdout
    assert 'id="row-waiting"' in out.read_text()


def test_a_row_that_makes_data_alone_is_told_of_from_the_executor_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HARNESS_DATA", "HARNESS_INPUTS", "HARNESS_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs", write_row(tmp_path / "specs", train=None))
    done = command("report")
    assert ", 1 row, " in done.stdout
    assert "left out" not in done.stdout
    text = (tmp_path / "runs" / "results" / "report.html").read_text()
    assert 'id="row-one"' in text


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rows = load_rows([write_row(tmp_path / "specs")])
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")  # as a device, it must not be replaced by a file
    for out in (tmp_path / "file" / "report.html", tmp_path / "taken", tmp_path / "pipe"):
        with pytest.raises(InputError, match="cannot be written"):
            write_report(rows, [planner(tmp_path / "runs")], out, 10, every_row=True)
    assert (tmp_path / "pipe").is_fifo()
    assert not list(tmp_path.glob(".*"))


def test_a_page_that_a_read_only_file_system_refuses_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load_rows([write_row(tmp_path / "specs")])
    open_path = Path.open

    def refuse(path: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if "w" in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return open_path(path, mode, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    out = tmp_path / "report.html"
    with pytest.raises(InputError) as refused:
        write_report(rows, [planner(tmp_path / "runs")], out, 10, every_row=True)
    assert refused.value.message == f"{out} cannot be written: Read-only file system"
    assert "--out" in refused.value.hint


def test_a_folder_gets_the_report_under_its_own_name(tmp_path: Path) -> None:
    rows = load_rows([write_row(tmp_path / "specs")])
    folder = tmp_path / "out"
    folder.mkdir()
    said, _ = write_report(rows, [planner(tmp_path / "runs")], folder, 10, every_row=True)
    assert said.startswith(f"written: {folder / 'report.html'}, 1 row, ")
    assert [p.name for p in folder.iterdir()] == ["report.html"]


def prompts(*preferences: float | None, flagged: tuple[int, ...] = ()) -> list[JudgedOutput]:
    return [
        JudgedOutput(
            n,
            {"flags": ["empty"] if n in flagged else []},
            judgements=[Judgement("", p, None, None, ())],
        )
        for n, p in enumerate(preferences)
    ]


def test_a_sample_has_worst_best_flagged_and_a_seeded_draw_and_says_so() -> None:
    many = prompts(*[1.0 + n / 100 for n in range(100)], flagged=(40, 41))
    found = sample(many, 20, "row")
    assert found.words == (
        "20 of 100 outputs: 4 worst, 4 best, 2 flagged or unjudged and 10 drawn at random (seed 0)"
    )
    numbers = [p.index for p in found.prompts]
    assert numbers == sorted(set(numbers))
    assert {0, 1, 2, 3, 40, 41, 96, 97, 98, 99} < set(numbers)
    assert sample(many, 20, "row") == found
    assert sample(many, 20, "other") != found
    assert sample(many, 100, "row").words == "all 100 outputs"


def test_a_sample_is_never_larger_than_asked_for() -> None:
    for most in range(1, 13):
        many = prompts(*[None] * 6, *[1.0, 2.0] * 4, flagged=(1, 7, 9))
        assert len(sample(many, most, "row").prompts) == min(most, 14)


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert reader.cut("a" * reader.LONGEST) == "a" * reader.LONGEST
    assert "[1,234 more characters]" in reader.cut("a" * (reader.LONGEST + 1234))


def test_markup_escapes_text_in_content_and_attributes_and_leaves_markup() -> None:
    assert tag("p", "<b>", Html("<i>"), None, ["&", 3], title='"') == (
        '<p title="&quot;">&lt;b&gt;<i>&amp;3</p>'
    )
    assert tag("input", hidden=True, data_x=0, checked=False) == '<input hidden data-x="0">'
    assert join("a", None, []) == "a"
    assert escape("a\nb\u200d\x00") == "a\nb\u200d␀"


def test_an_axis_has_round_numbers_inside_its_range() -> None:
    assert charts.ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert charts.ticks(26.2, 34.9) == [28, 30, 32, 34]
    assert charts.ticks(5, 5) == [5]


def test_the_interval_is_drawn_where_its_numbers_are() -> None:
    numbers = charts.NumberLine(50, None, 10, 60, 55, 65, is_percent=True)
    low, high = numbers.domain()
    assert low < 40
    assert high > 65
    drawn = charts.number_line("x", "Title", "words", numbers, "")

    def place(value: float) -> str:
        return charts.Scale(low, high, charts.SIDE, charts.WIDTH - charts.SIDE)(value)

    assert f'd="M{place(55)} 58H{place(65)}" class="interval"' in drawn
    assert f'<circle cx="{place(60)}"' in drawn
    assert f'd="M{place(50)} 20V74" class="reported"' in drawn
    band = re.search(r'<rect x="([\d.]+)" y="20" width="([\d.]+)"', drawn)
    assert band is not None
    assert float(band[1]) == pytest.approx(float(place(40)), abs=0.11)
    assert float(band[1]) + float(band[2]) == pytest.approx(float(place(60)), abs=0.11)


def test_a_thinned_curve_keeps_its_mean_and_its_range() -> None:
    curve = [(float(n), float(n % 7)) for n in range(1, 1001)]
    thin = charts.thinned(curve)
    assert len(thin) <= charts.POINTS
    total = sum(y for _, y in thin) / len(thin)
    assert total == pytest.approx(3.0, abs=0.05)
    assert charts.thinned(curve[:50]) == curve[:50]


def test_every_length_falls_into_one_bin() -> None:
    for most in (0, 1, 2, 3, 7, 100, 999):
        lengths = list(range(most + 1))
        assert sum(count for _, count in _binned(lengths, _edges(most))) == most + 1


def test_numbers_that_are_no_numbers_do_not_break_a_figure() -> None:
    odd: Any = charts.NumberLine(None, None, None, 1.0, float("nan"), float("inf"))
    assert odd.values() == [1.0]
