"""The twins that continuous integration runs take every way that a study's row takes."""

import os
from pathlib import Path

import pytest

from harness.row.load import load_rows
from harness.row.twin import scaled
from tests.helpers import ROOT, harness, planner
from tests.specs.twins import COVERING, STUDIES, unfilled, ways

CONTROL = "specs/mini_lima/control_null.yaml"
"""Nothing is trained, so it runs in seconds: a constant answer, judged by alpaca_eval."""


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_covering_twins_take_every_way_that_any_studys_row_takes() -> None:
    rows = [scaled(loaded) for loaded in load_rows(STUDIES)]
    wanted = set().union(*(ways(row) for row in rows))
    chosen = [scaled(loaded) for loaded in load_rows([Path(path) for path in COVERING])]
    assert wanted - set().union(*(ways(row) for row in chosen)) == set()
    assert len(COVERING) < len(rows) / 2


def test_a_twin_fills_its_row_marked_simulated_and_can_be_shown_and_replayed(
    tmp_path: Path,
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HARNESS_", "OPENAI"))}
    env |= {"HARNESS_DATA": str(tmp_path), "COLUMNS": "200"}
    row = load_rows([Path(CONTROL)])[0]
    [wrong] = unfilled([scaled(row)], planner(tmp_path))
    assert wrong.startswith(f"{row.row.row}-tiny ")
    assert wrong.endswith(": not filled")

    def run(*arguments: str) -> str:
        done = harness(env, *arguments, "--scale", "tiny")
        assert done.returncode == 0, done.stdout
        return done.stdout

    run("run", CONTROL)
    assert unfilled([scaled(row)], planner(tmp_path)) == []
    assert "simulated" in run("table", CONTROL, "--format", "csv")
    assert f"{row.row.row}-tiny" in run("show", row.row.row)
    assert "exact" in run("replay", row.row.row)
