"""Tables laid out as their study has them: what stands in which cell, and faults of `_tables.yaml`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.report.formats import render
from harness.report.layout import NO_LAYOUT, read_layouts
from harness.results.line import MatrixLine
from harness.row.load import SpecFaults, load_rows
from tests.helpers import ROOT, InstantExecutor, command, make
from tests.results.matrix_rows import SCORE, VALIDATED, lines, scored

Write = Callable[..., Path]
HOLES = {"value": 40.0, "standard_error": 1.0, "judged": 8, "expected": 10,
         "lower_bound": 32.0, "upper_bound": 52.0}  # fmt: skip
LIST = {
    "caption": "The table",
    "source": "document 000",
    "list": [
        {"heading": "data", "varied": "data"},
        {"heading": "win rate", "metric": "win_rate"},
    ],
}
GRID = {
    "caption": "The grid",
    "source": "document 003",
    "grid": {"rows": "model", "columns": "training", "metric": "win_rate",
             "row_order": ["large", "small"], "column_order": ["Baseline", "SFT"]},
}  # fmt: skip


@pytest.fixture
def laid_out(tmp_path: Path) -> Callable[..., Path]:
    """Writes `_tables.yaml` beside the rows."""

    def write(**tables: Any) -> Path:
        path = tmp_path / "specs" / "_tables.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"tables": tables}))
        return path

    return write


def table(found: list[MatrixLine], form: str = "md") -> list[list[str]]:
    """The cells of the lines of a markdown table, its headings first."""
    rows = [r for r in render(found, [], form, "study").splitlines() if r.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return [cells[0], *cells[2:]]


def test_a_list_has_the_studys_columns_and_lines_and_both_numbers_in_one_cell(
    row: Write, volume: Path, laid_out: Callable[..., Path]
) -> None:
    laid_out(tests=LIST)
    reported = {"win_rate": {"value": 29.31, "judged": 713, "expected": 805}}
    specs = [
        row("a", varied={"data": 338}, source={"document": "d", "line": 2}, reported=reported),
        row("b", varied={"data": "none"}, source={"document": "d", "line": 1},
            reported={"win_rate": "unreported"}, train={"steps": 2}),
    ]  # fmt: skip
    make(volume, specs[0], executor=scored(HOLES))
    heads, first, second = table(lines(volume, *specs))
    assert heads == ["data", "win rate", "verdict"]
    assert first[:2] == ["none", "unreported → not run"]
    assert second[0] == "338"
    assert second[1].startswith("29.31 (713/805) → 40.00 (random weights) \\[")
    assert "\\] 8/10<sup>" in second[1]
    text = render(lines(volume, *specs), [], "md", "study")
    assert "8 of 10 judged; the others all lost, and all won: 32.00 to 52.00" in text


def test_verdicts_of_several_metrics_stand_in_the_order_of_their_columns(
    row: Write, volume: Path, laid_out: Callable[..., Path]
) -> None:
    metrics = ["win_rate", "train_loss", "bits_per_byte", "held_out_loss"]
    verdicts = ["reproduced", "not run", "inconclusive", "not reproduced"]
    laid_out(tests={**LIST, "list": [{"heading": m, "metric": m} for m in metrics]})
    (line,) = lines(volume, row(train=VALIDATED))[:1]
    several = [
        replace(line, cells=replace(line.cells, metric=metric, verdict=verdict))
        for metric, verdict in zip(metrics, verdicts, strict=True)
    ]
    assert table(several)[1][-1].startswith(", ".join(verdicts))


def test_a_grid_has_the_studys_order_and_a_cell_for_each_pair(
    row: Write, volume: Path, laid_out: Callable[..., Path]
) -> None:
    laid_out(tests=GRID)
    specs = [
        row("a", varied={"model": "small", "training": "SFT"}, reported={"win_rate": {"value": 6}}),
        row("b", varied={"model": "large", "training": "Baseline"}, train={"steps": 2}),
        row("c", varied={"model": "tiny", "training": "SFT"}, train={"steps": 3}),
        row("d", varied={"model": "small"}, train={"steps": 4}),
    ]
    make(volume, specs[0], executor=scored({**SCORE, "value": 6.0}))
    found = lines(volume, *specs)
    heads, large, small, tiny = table(found)
    assert heads == ["model", "Baseline", "SFT"]
    assert large[1:] == ["not reported → not run", ""]
    assert small[2].startswith("6.00 → 6.00 (random weights) \\[")
    assert small[2].partition("<sup>")[0].endswith(" 3/3, inconclusive")
    assert (tiny[0], tiny[1]) == ("tiny", "")
    assert "Beside the grid: d: not reported → not run." in render(found, [], "md", "study")


def test_a_grid_of_several_metrics_has_the_names_that_the_study_gives_them(
    row: Write, volume: Path, laid_out: Callable[..., Path]
) -> None:
    metrics = {"ARC": "arc_challenge", "MMLU": "mmlu"}
    laid_out(tests={"caption": "c", "source": "s", "grid": {"metrics": metrics, "columns": "size"}})
    result = {"arc_challenge": {**SCORE, "value": 55.0}, "mmlu": {**SCORE, "value": 41.0},
              "hellaswag": SCORE}  # fmt: skip

    def outcome(job: Any) -> dict[str, Any]:
        return {"metrics": result} if job.stage == "judge" else {}

    tasks = {name: {"folder": str(ROOT / "specs/smoke/tasks" / name)} for name in result}
    parts = {"answer": None, "judge": {"kind": "lm_eval", "tasks": tasks}}
    spec = row(varied={"size": "7B"}, reported={"arc_challenge": "unreported"}, eval=parts)
    later = row("two", varied={"size": "13B"}, train={"steps": 2}, eval=parts)
    make(volume, spec, executor=InstantExecutor(outcome))
    found = lines(volume, spec, later)
    heads, arc, mmlu = table(found)
    assert heads == ["metric", "7B", "13B"]
    assert [arc[0], mmlu[0]] == ["ARC", "MMLU"]
    assert arc[1].startswith("unreported → 55.00")
    assert mmlu[1].startswith("not reported → 41.00")
    assert arc[2] == mmlu[2] == "not reported → not run"
    assert "but in the matrix: hellaswag." in render(found, [], "md", "study")


def test_a_confounded_row_and_one_that_is_simulated_are_marked_in_their_own_cells(
    row: Write, volume: Path, laid_out: Callable[..., Path]
) -> None:
    laid_out(tests=LIST)
    specs = [row("a", varied={"data": 1}), row("b", varied={"data": 2}, train={"steps": 2}),
             row("c", varied={"data": 3}, train={"steps": 3}, studied=["model"])]  # fmt: skip
    make(volume, specs[0], executor=scored(SCORE, simulated="gen"))
    found = lines(volume, *specs)
    _, a, b, c = table(found)
    assert "(simulated, random weights)" in a[1]
    assert a[2] == "simulated"
    assert b[2] == "not run"
    text = render(found, [], "md", "study")
    assert "say nothing about any real model" in text
    hot = yaml.safe_load(specs[2].read_text())
    hot["eval"]["answer"]["decoding"] = {"temperature": 0.7}
    specs[2].write_text(yaml.safe_dump(hot))
    _, _, _, c = table(lines(volume, *specs))
    assert c[2] == "not run, confounded"


def test_a_twins_table_has_the_studys_layout_and_says_that_it_is_scaled_down(
    row: Write, volume: Path, laid_out: Callable[..., Path]
) -> None:
    laid_out(tests=LIST)
    spec = row("a", table="tests-tiny", scale="tiny", varied={"data": 1})
    make(volume, spec, executor=scored(SCORE))
    found = lines(volume, spec)
    assert render(found, [], "md", "study").startswith("# The table, scaled down (document 000)")
    _, only = table(found)
    assert only[1].startswith("not reported → 40.00 (simulated, scaled down")
    assert only[2] == "simulated"


def test_what_makes_every_number_of_a_table_simulated_is_told_once(
    row: Write, volume: Path, laid_out: Callable[..., Path]
) -> None:
    laid_out(tests=LIST)
    specs = [row(n, table="tests-tiny", scale="tiny", varied={"data": n}) for n in ("a", "b")]
    for spec in specs:
        make(volume, spec, executor=scored(SCORE))
    for form in ("md", "latex", "html"):
        text = render(lines(volume, *specs), [], form, "study")
        assert text.count("scaled down, random weights") == 1, form
    assert "Every number of ours in this table: simulated, scaled down, random weights." in text
    cells = table(lines(volume, *specs))
    assert all(one[1].startswith("not reported → 40.00 \\[") for one in cells[1:])
    # Where one of them is not, each says so for itself.
    specs.append(row("c", table="tests-tiny", varied={"data": "c"}, train={"steps": 9}))
    make(volume, specs[2], executor=scored(SCORE))
    _, a, _, c = table(lines(volume, *specs))
    assert "(simulated, scaled down, random weights)" in a[1]
    assert "(random weights)" in c[1]


def test_a_table_without_a_layout_has_the_matrixs_columns_and_says_so(
    row: Write, volume: Path, laid_out: Callable[..., Path]
) -> None:
    laid_out(tests=LIST)
    found = lines(volume, row("a", varied={"data": 1}), row("b", table="zz"))
    text = render(found, [], "md", "study")
    assert text.count(NO_LAYOUT) == 1
    assert text.index("# The table (document 000)") < text.index("# Table zz")


def test_a_layout_above_the_specs_folder_is_not_looked_for(
    row: Write, volume: Path, tmp_path: Path
) -> None:
    spec = row("a", varied={"data": 1})
    (tmp_path / "_tables.yaml").write_text(yaml.safe_dump({"tables": {"tests": LIST}}))
    assert NO_LAYOUT in render(lines(volume, spec), [], "md", "study")


@pytest.mark.parametrize(
    ("tables", "place", "words"),
    [
        ({"t": {**LIST, "lisst": []}}, ":", "tables.t.lisst: unknown key"),
        ({"t": {"caption": "c", "source": "s"}}, ":2:", "give exactly one of list, grid"),
        ({"t": {"caption": "c", "list": LIST["list"]}}, ":2:", "tables.t.source: is missing"),
        ({"t": {**LIST, "list": [{"heading": "h"}]}}, ":", "give exactly one of varied, metric"),
        ({"t": {**LIST, "list": []}}, ":", "at least 1 item"),
        ({"t": {**GRID, "grid": {"rows": "a", "columns": "a", "metric": "m"}}}, ":", "two things"),
        ({"t": {**GRID, "grid": {"rows": "a", "columns": "b"}}}, ":", "give metric"),
        ({"t": {**GRID, "grid": {"rows": "a", "metric": "m"}}}, ":", "give two of"),
        ({"A Table": LIST}, ":", "should match pattern"),
        ({"t": 3}, ":2:", "tables.t"),
    ],
)
def test_a_faulty_layout_is_told_with_file_and_line(
    laid_out: Callable[..., Path], tables: Any, place: str, words: str
) -> None:
    path = laid_out(**tables)
    with pytest.raises(SpecFaults) as faults:
        read_layouts(path)
    said = str(faults.value.faults[0])
    assert said.startswith(f"{path}{place}")
    assert words in said


@pytest.mark.parametrize("text", ["", "tables: [", "a: 1", "- 1", "tables: {t: }", "\x00"])
def test_a_layout_file_that_is_something_else_is_a_fault_and_no_traceback(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "_tables.yaml"
    path.write_text(text)
    with pytest.raises(SpecFaults):
        read_layouts(path)


@pytest.mark.parametrize(
    ("tables", "line", "words"),
    [
        ({"tests": {**LIST, "list": [{"heading": "h", "varied": "trainin"}]}}, 6,
         "tables.tests.list.0.varied: no row of the table varies 'trainin'; did you mean 'training'?"),
        ({"tests": {**LIST, "list": [{"heading": "h", "metric": "bits"}]}}, 6,
         "no row of the table measures 'bits'; known here: win_rate"),
        ({"tests": {**GRID, "grid": {**GRID["grid"], "columns": "size"}}}, 8,
         "tables.tests.grid.columns: no row of the table varies 'size'; known here: training, model"),
        ({"tests": {**GRID, "grid": {"metrics": {"a": "win_rat"}, "rows": "model"}}}, 6, "'win_rate'?"),
        ({"test": LIST}, 2, "no row here is of the table 'test'; did you mean 'tests'?"),
    ],
)  # fmt: skip
def test_a_name_that_no_row_of_the_table_has_is_told_with_its_line_and_the_nearest_name(
    row: Write, volume: Path, laid_out: Callable[..., Path], tables: Any, line: int, words: str
) -> None:
    path = laid_out(**tables)
    spec = row("a", varied={"training": "SFT"})
    row("b", varied={"model": "m"}, train={"steps": 2})
    for said in (
        command("validate", spec),
        command("table", "--format", "md", "--layout", "study", "--volume", volume, spec),
    ):
        assert said.exit_code == 2
        assert f"{path}:{line}:" in said.output
        assert words in " ".join(said.output.split())


def test_what_a_faulty_row_may_have_is_not_told_as_unknown(
    row: Write, laid_out: Callable[..., Path]
) -> None:
    path = laid_out(tests=LIST)
    row("a", varied={"model": "m"})
    with pytest.raises(SpecFaults, match="varies 'data'"):
        read_layouts(path, path.parent)
    row("b", varied={"data": 1}, title=3)
    assert list(read_layouts(path, path.parent)) == ["tests"]


def test_every_name_in_the_studies_layouts_is_one_of_their_rows() -> None:
    for path in sorted((ROOT / "specs").glob("*/_tables.yaml")):
        assert read_layouts(path, path.parent)


def test_every_row_of_the_studies_has_a_place_in_its_studys_layout() -> None:
    for path in sorted((ROOT / "specs").glob("*/_tables.yaml")):
        layouts = read_layouts(path)
        for loaded in load_rows([path.parent]):
            layout = layouts.get(loaded.row.table)
            if layout is None:
                assert not loaded.row.reported, loaded.path
                continue
            if layout.columns is not None:
                names = {column.varied for column in layout.columns}
            else:
                assert layout.grid is not None
                names = {layout.grid.rows, layout.grid.columns}
            assert names - {None} <= set(loaded.row.varied), loaded.path
