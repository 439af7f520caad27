"""The files of the matrix and the tables: written, left alone, removed."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness.errors import InputError
from harness.report.formats import write_all
from harness.results.matrix import lines_of
from harness.row.load import load_rows
from tests.helpers import make, planner
from tests.results.matrix_rows import SCORE, lines, scored


def test_written_again_with_the_same_results_every_file_stays_untouched(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    specs = [row("one", reported={"win_rate": {"value": 1}}), row("two", table="others")]
    make(volume, *specs, executor=scored(SCORE, SCORE))
    out = tmp_path / "results"
    paths = write_all(lines(volume, *specs), out)
    assert sorted(str(p.relative_to(out)) for p in paths) == [
        "matrix.csv",
        "matrix.md",
        *(f"tables/others.{ending}" for ending in ("csv", "html", "md", "tex")),
        *(f"tables/tests.{ending}" for ending in ("csv", "html", "md", "tex")),
    ]
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
    assert changed == {
        "matrix.csv",
        "matrix.md",
        *(f"others.{ending}" for ending in ("csv", "html", "md", "tex")),
    }


def test_each_table_file_holds_its_own_rows(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    write_all(lines(volume, row("one"), row("two", table="others")), tmp_path)
    for name, rows in {"matrix": ["two", "one"], "tables/others": ["two"]}.items():
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
    assert left == {"new.csv", "new.md", "new.tex", "new.html", "notes.md"}


def test_a_results_folder_that_cannot_be_made_is_one_clear_fault(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        write_all(lines(volume, row()), tmp_path / "file")


def test_a_table_that_its_study_lays_out_is_written_in_both_forms(
    row: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    spec = row("one", varied={"data": 338})
    column = {"heading": "the study's own", "varied": "data"}
    layout = {"caption": "As the study has it", "source": "s", "list": [column]}
    tables = yaml.safe_dump({"tables": {"tests": layout}})
    (spec.parent / "_tables.yaml").write_text(tables)
    write_all(lines(volume, spec, row("two", table="others")), tmp_path / "out")
    folder = tmp_path / "out" / "tables"
    page = (folder / "tests.md").read_text()
    assert page.startswith("# Table tests\n")
    assert "\n## As the study has it (s)\n" in page
    for ending in ("tex", "html"):
        assert "As the study has it" in (folder / f"tests.{ending}").read_text()
        assert "Table others" in (folder / f"others.{ending}").read_text()
    assert (folder / "tests.csv").read_text().startswith("row,table,")
