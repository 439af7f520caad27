"""The matrix: denominators, marks, escaping, and files that change only when the results do."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.errors import InputError
from harness.report.matrix import (
    HEADINGS,
    NUMBERS,
    Line,
    display,
    lines_of,
    to_csv,
    to_markdown,
    write_all,
)
from harness.report.plans import show_plans
from harness.report.terminal import show_artefact, show_matrix
from harness.spec.load import load_rows
from harness.store import Damaged
from tests.helpers import InstantExecutor, evaluation, make, planned, planner, write_row

HOSTILE = (
    'a|b\n<script>alert("x")</script> [link](http://x) `code` *bold* _it_ ~no~ $x$ \\ & &lt; '
    "\x1b[31mred\x1b]0;title\x07 \u202e"
)
SCORE = {"value": 40.0, "standard_error": 2.0, "judged": 3, "expected": 3,
         "lower_bound": 40.0, "upper_bound": 40.0}  # fmt: skip


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def row(tmp_path: Path) -> Callable[..., Path]:
    """Writes a row with all four stages whose teacher and judge are (so the spec says) real."""
    folder = tmp_path / "specs"

    def write(name: str = "one", **changes: Any) -> Path:
        judge = {"model": "judge"}
        return write_row(folder, name, **{"eval": evaluation(folder, judge=judge), **changes})

    return write


def scored(*scores: dict[str, Any], simulated: str = "", cost: Any = None) -> InstantExecutor:
    """Gives each judging the next score; `simulated`: the stage that says it is."""
    left = list(scores)

    def outcome(job: Any) -> dict[str, Any]:
        result: dict[str, Any] = {"simulated": ["teacher"] if job.stage == simulated else []}
        if job.stage == "judge":
            result["metrics"] = {"win_rate": left.pop(0)}
        if job.stage in ("gen", "judge"):
            result["cost"] = {"calls": 2, "prompt_tokens": 30, "completion_tokens": 4}
        return result

    return InstantExecutor(outcome)


def lines(volume: Path, *specs: Path) -> list[Line]:
    return [m for row in load_rows(specs) for m in lines_of(row, [planner(volume)])]


def cells(volume: Path, spec: Path) -> dict[str, Any]:
    (line,) = lines(volume, spec)
    return line.cells


def shown(line: Line) -> dict[str, str]:
    return dict(zip(HEADINGS, display(line), strict=True))


def test_a_row_that_did_not_run_stands_in_the_matrix_with_its_reported_number(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(
        reported={"win_rate": {"value": 41.5, "standard_error": 1.7, "judged": 804,
                               "expected": 805}},
        source={"document": "paper.pdf", "table": "Table 2", "line": 3},
    )  # fmt: skip
    found = cells(volume, spec)
    assert found["verdict"] == "not run"
    assert found["reproduced"] is None
    assert found["calls"] is None
    assert found["source"] == "paper.pdf, Table 2, line 3"
    (line,) = lines(volume, spec)
    assert shown(line)["reported"] == "41.50 ± 1.70 of 804/805"
    assert shown(line)["replicates"] == "0/1"
    assert shown(line)["judged"] == ""


def test_a_row_that_ran_shows_score_counts_replicates_verdict_cost_and_keys(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(reported={"win_rate": {"value": 40}}, varied={"training": "full SFT", "k": 3})
    make(volume, spec, executor=scored({**SCORE, "standard_error": 0.5}))
    found = cells(volume, spec)
    assert found["verdict"] == "reproduced"
    assert (found["calls"], found["prompt_tokens"], found["completion_tokens"]) == (4, 60, 8)
    (plan,) = planned(volume, spec)
    assert found["env_artefacts"] == " ".join(f"{s.stage}/{s.key[:12]}" for s in plan.stages)
    (line,) = lines(volume, spec)
    seen = shown(line)
    assert seen["varied"] == "k=3; training=full SFT"
    assert seen["reproduced"] == "40.00 ± 0.50 (random weights)"
    assert seen["judged"] == "3/3"
    assert seen["replicates"] == "1/1"
    assert seen["cost"].startswith("4 calls, 60 + 8 tokens, ")
    assert seen["environment"] == "local"


def test_unjudged_prompts_show_as_judged_of_expected_with_both_bounds(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row()
    holes = {**SCORE, "value": 50.0, "judged": 2, "lower_bound": 33.333, "upper_bound": 66.667}
    make(volume, spec, executor=scored(holes))
    (line,) = lines(volume, spec)
    assert shown(line)["judged"] == "2/3, bounds 33.33 to 66.67"


def test_replicates_are_pooled_and_those_not_run_yet_are_counted(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(replicates={"judge": 2})
    make(volume, spec, executor=scored(SCORE, {**SCORE, "value": 44.0}))
    (line,) = lines(volume, spec)
    assert shown(line)["replicates"] == "2/2, sd 2.83"
    assert shown(line)["reproduced"].startswith("42.00 ± 2.00")
    assert shown(line)["judged"] == "6/6"
    more = row(replicates={"judge": 3})
    (line,) = lines(volume, more)
    assert shown(line)["replicates"] == "2/3, sd 2.83"


def test_a_simulated_teacher_marks_every_number_that_comes_of_its_data(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(reported={"win_rate": {"value": 40}})
    make(volume, spec, executor=scored(SCORE, simulated="gen"))
    found = cells(volume, spec)
    assert found["verdict"] == "simulated"
    assert found["simulated"] == "teacher"
    (line,) = lines(volume, spec)
    assert shown(line)["reproduced"] == "40.00 ± 2.00 (simulated, random weights)"
    assert "say nothing about any real model" in to_markdown([line], "T")
    assert "simulated" in to_csv([line])


def test_a_real_number_carries_no_mark(row: Callable[..., Path], volume: Path) -> None:
    spec = row(model={"path": "prompt.txt"})
    make(volume, spec, executor=scored(SCORE))
    (line,) = lines(volume, spec)
    assert shown(line)["reproduced"] == "40.00 ± 2.00"
    assert "simulated" not in to_markdown([line], "T")


def test_a_reported_metric_that_the_judge_does_not_give_has_a_line_that_says_so(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(reported={"win_rate": {"value": 40}, "elo": {"value": 1100}})
    make(volume, spec, executor=scored(SCORE))
    found = {line.cells["metric"]: line.cells for line in lines(volume, spec)}
    assert list(found) == ["elo", "win_rate"]
    assert found["elo"]["verdict"] == "not run"
    assert found["elo"]["verdict_reason"] == "the judge stage gives no elo"


def test_a_row_whose_data_is_absent_stands_in_the_matrix_with_the_reason(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(gen=None, data="data:alpaca.json")
    found = cells(volume, spec)
    assert found["verdict"] == "not run"
    assert found["verdict_reason"] == "its given data is not there"
    assert found["deviations"] == "data:alpaca.json is not pinned"


def test_stated_deviations_and_unpinned_data_stand_in_the_matrix(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(
        gen=None,
        data={"path": "data:alpaca.json", "sha256": "a" * 64},
        deviations=["another GPU", "a retired model"],
    )
    assert cells(volume, spec)["deviations"] == "another GPU; a retired model"


def test_results_of_the_first_environment_that_has_some_are_shown(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row()
    make(volume, spec, executor=scored(SCORE))
    (loaded,) = load_rows([spec])
    both = [planner(volume, executor="docker"), planner(volume)]
    (line,) = lines_of(loaded, both)
    assert line.cells["env_environment"] == "local"
    make(volume, spec, executor=scored({**SCORE, "value": 90.0}), kind="docker")
    (line,) = lines_of(loaded, both)
    assert line.cells["reproduced"] == 90.0
    assert line.cells["env_environment"].startswith("eval-")


def test_a_number_from_an_artefact_that_was_changed_is_never_shown(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row()
    make(volume, spec, executor=scored(SCORE))
    (made,) = (volume / "artefacts" / "judge").glob("*/made.txt")
    made.write_text("better")
    with pytest.raises(Damaged, match=r"made\.txt does not have the bytes it was made with"):
        lines(volume, spec)


def test_a_score_edited_in_the_manifest_is_refused(row: Callable[..., Path], volume: Path) -> None:
    spec = row()
    make(volume, spec, executor=scored(SCORE))
    (manifest,) = (volume / "artefacts" / "judge").glob("*/manifest.json")
    manifest.write_text(manifest.read_text().replace('"value": 40.0', '"value": 80.0'))
    with pytest.raises(Damaged, match="its manifest was edited"):
        lines(volume, spec)


def hostile_lines(row: Callable[..., Path], volume: Path) -> list[Line]:
    spec = row(
        title=HOSTILE,
        varied={"|": HOSTILE},
        deviations=["=HYPERLINK(1)", HOSTILE],
        source={"document": "=cmd|' /C calc'!A0"},
    )
    make(volume, spec, executor=scored(SCORE))
    return lines(volume, spec)


def test_hostile_text_stays_in_its_markdown_cell_and_is_shown_literally(
    row: Callable[..., Path], volume: Path
) -> None:
    text = to_markdown(hostile_lines(row, volume), HOSTILE)
    head, rule, body = text.splitlines()[-3:]
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


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n="])
def test_text_that_a_spreadsheet_would_run_is_quoted(
    row: Callable[..., Path], volume: Path, start: str
) -> None:
    (record,) = csv.DictReader(io.StringIO(to_csv(lines(volume, row(title=start + "1+1")))))
    assert record["title"][0] == "'"


def test_negative_numbers_stay_numbers_in_full_precision(
    row: Callable[..., Path], volume: Path
) -> None:
    spec = row(reported={"win_rate": {"value": -0.1}})
    make(volume, spec, executor=scored({**SCORE, "value": 1 / 3}))
    (record,) = csv.DictReader(io.StringIO(to_csv(lines(volume, spec))))
    assert record["reported"] == "-0.1"
    assert float(record["reproduced"]) == 1 / 3
    assert record["reported_se"] == ""
    assert set(record) >= NUMBERS


def test_the_terminal_shows_hostile_text_without_obeying_it(
    row: Callable[..., Path], volume: Path
) -> None:
    found = hostile_lines(row, volume)
    (plan,) = planned(volume, row(title=HOSTILE + " [bold]x[/nothing] :smile:", varied={}))
    out = io.StringIO()
    console = Console(file=out, width=400, force_terminal=True, color_system=None, emoji=False)
    show_matrix(console, found)
    show_plans(console, [plan])
    for stage in plan.stages:
        show_artefact(console, stage.artefact, checked=False)
    assert not set("\x1b\x07\u202e") & set(out.getvalue())
    assert "[bold]x[/nothing] :smile:" in out.getvalue()
    assert '"model_type": "qwen2"' in out.getvalue()


def test_written_again_with_the_same_results_every_file_stays_untouched(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    specs = [row("one", reported={"win_rate": {"value": 1}}), row("two", table="others")]
    make(volume, *specs, executor=scored(SCORE, SCORE))
    out = tmp_path / "results"
    paths = write_all(lines(volume, *specs), out)
    assert sorted(str(p.relative_to(out)) for p in paths) == [
        "matrix.csv", "matrix.md", "tables/others.csv", "tables/others.md", "tables/tests.csv",
        "tables/tests.md",
    ]  # fmt: skip
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in paths}
    write_all(lines(volume, *specs), out)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in paths} == before
    assert sorted(p for p in out.rglob("*") if p.is_file()) == sorted(paths)


def test_a_result_that_changed_rewrites_its_table_and_the_matrix_alone(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    one, two = row("one"), row("two", table="others", train={"steps": 2})
    make(volume, one, executor=scored(SCORE))
    out = tmp_path / "results"
    paths = write_all(lines(volume, one, two), out)
    before = {p: p.stat().st_ino for p in paths}
    make(volume, two, executor=scored(SCORE))
    write_all(lines(volume, one, two), out)
    changed = {p.name for p in paths if p.stat().st_ino != before[p]}
    assert changed == {"matrix.csv", "matrix.md", "others.csv", "others.md"}


def test_each_table_file_holds_its_own_rows(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    write_all(lines(volume, row("one"), row("two", table="others")), tmp_path)
    for name, rows in {"matrix": ["one", "two"], "tables/others": ["two"]}.items():
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            assert [r["row"] for r in csv.DictReader(file)] == rows


def test_files_of_a_table_that_is_gone_are_removed_and_a_persons_own_are_not(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    old = [line for r in load_rows([row(table="old")]) for line in lines_of(r, [planner(volume)])]
    write_all(old, tmp_path / "out")
    own = tmp_path / "out" / "tables" / "notes.md"
    own.write_text("# Table notes, by hand")
    new = [line for r in load_rows([row(table="new")]) for line in lines_of(r, [planner(volume)])]
    write_all(new, tmp_path / "out")
    left = {p.name for p in (tmp_path / "out" / "tables").iterdir()}
    assert left == {"new.csv", "new.md", "notes.md"}


def test_a_results_folder_that_cannot_be_made_is_one_clear_fault(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        write_all(lines(volume, row()), tmp_path / "file")


def test_the_manifest_says_what_the_table_says(row: Callable[..., Path], volume: Path) -> None:
    spec = row()
    make(volume, spec, executor=scored(SCORE, simulated="gen"))
    (manifest,) = (volume / "artefacts" / "judge").glob("*/manifest.json")
    written = json.loads(manifest.read_text())
    assert written["metrics"]["win_rate"]["value"] == cells(volume, spec)["reproduced"]
    assert written["simulated"] == ["teacher"]
    assert written["random_weights"] is True
