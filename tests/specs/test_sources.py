"""The studies' specs: each setting has a source, each published file a digest, and each published
number is the one that the study's stored files have."""

import csv
import io
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from harness.artefact.keys import file_digest
from harness.cli.views.sources import status_of
from harness.row.inherited import stale_sources
from harness.row.load import LoadedRow, load_rows
from harness.spec.provenance import Provenance
from harness.spec.source import Node, load_tree
from tests.helpers import ROOT

STUDIES = (
    "mini_lima",
    "mini_lima_assignment",
    "orpo_lab",
    "mini_lima_paper",
    "alpagasus2",
    "first_rows",
)
REQUIRED: tuple[str, ...] = ("orpo_lab", "alpagasus2", "first_rows")
"""Studies of which every setting must have a source; of the others, where any row names sources."""
MIRRORS = ".mirror"
"""Beside the shared folder, where there is one: public repositories without a work tree, in
OWNER+NAME/repo."""
Stored = tuple[float, float | None, int]
"""A published value, its standard error, and how many prompts were judged."""


@cache
def rows(study: str) -> list[LoadedRow]:
    return load_rows([ROOT / "specs" / study])


ALL_ROWS = [loaded for study in STUDIES for loaded in rows(study)]


@pytest.mark.parametrize("study", STUDIES)
def test_each_setting_of_each_row_has_a_source(study: str) -> None:
    if study not in REQUIRED and not any(loaded.row.sources for loaded in rows(study)):
        pytest.skip(f"specs/{study} names no sources")
    unsourced = {
        loaded.path.name: [s.path for s in loaded.row.settings() if status_of(s) == "no source"]
        for loaded in rows(study)
    }
    assert not {name: paths for name, paths in unsourced.items() if paths}


@pytest.mark.parametrize("study", STUDIES)
def test_a_value_that_a_row_replaces_has_a_source_of_its_own(study: str) -> None:
    parents: dict[Path, Node] = {}
    stale = {}
    for loaded in rows(study):
        tree = load_tree(loaded.path, [], parents)
        assert tree is not None
        stale[loaded.path.name] = stale_sources(tree, loaded.row.settings())
    assert not {name: paths for name, paths in stale.items() if paths}


def test_each_published_file_has_an_address_and_its_digest() -> None:
    for loaded in ALL_ROWS:
        published = loaded.row.reported
        for data in (*published.outputs, *published.annotations):
            assert data.sha256, (loaded.path, data.name)
            assert data.url, (loaded.path, data.name)


def _stored(source: Provenance, shared_data: Path) -> bytes | None:
    """A file that a number's source names, from where this machine keeps it; None where it does not."""
    facts = shared_data.parent / "facts/published-files.csv"
    oracles = shared_data.parent / "oracles/mini_lima"
    if facts.is_file() and oracles.is_dir():
        digests = {
            line["sha256"]
            for line in csv.DictReader(facts.open(encoding="utf-8", newline=""))
            if (line["repository"], line["path"]) == (source.repository, source.file)
        }
        for path in oracles.glob(f"*/{Path(str(source.file)).name}"):
            if file_digest(path) in digests:
                return path.read_bytes()
    kept = shared_data.resolve().parents[1] / MIRRORS
    folder = kept / str(source.repository).replace("/", "+") / "repo"
    if not folder.is_dir():
        return None
    shown = subprocess.run(
        ["git", "-C", str(folder), "show", f"{source.commit}:{source.file}"],
        capture_output=True,
        check=False,
    )
    return shown.stdout if shown.returncode == 0 else None


def _published(metric: str, name: str, content: bytes, line: int | None = None) -> Stored | None:
    """What a stored file says of a metric: leaderboard.csv, AlpaGasus's SET_result.json, a trainer's
    evaluation, a line of a notebook that prints a mean."""
    if name.endswith("leaderboard.csv") and metric == "win_rate":
        line, *_ = csv.DictReader(io.StringIO(content.decode()))
        return float(line["win_rate"]), float(line["standard_error"]), int(line["n_total"])
    if name == f"{metric.partition('/')[2]}_result.json" and metric.startswith("win_rate/"):
        counts = json.loads(content)
        wins, ties, losses = (counts[name] for name in ("win", "draw", "lose"))
        total = wins + ties + losses
        return 100 * (wins + ties / 2) / total, None, total
    if name.endswith("_evaluation_results.json") and metric == "held_out_loss":
        found = json.loads(content)
        examples = found["eval_runtime"] * found["eval_samples_per_second"]
        return found["eval_loss"], None, round(examples, -1)
    if name.endswith(".ipynb") and metric == "rubric_score" and line is not None:
        printed = content.decode().splitlines()[line - 1]
        return float(re.findall(r"Avg Score: ([\d.]+)", printed)[0]), None, 0
    return None


def test_each_reported_number_is_that_of_the_stored_file_it_names(shared_data: Path) -> None:
    compared = 0
    for loaded in ALL_ROWS:
        for metric, cell in loaded.row.reported.items():
            content = _stored(cell.source, shared_data) if cell.source else None
            if content is None or cell.source is None:
                continue
            name = Path(str(cell.source.file)).name
            stored = _published(metric, name, content, cell.source.line)
            if stored is None:
                continue
            value, error, judged = stored
            where = f"{loaded.path.name}, {metric}"
            _is_rounded(cell.value, value, where)
            if error is not None:
                _is_rounded(cell.standard_error, error, where)
            assert not judged or cell.judged in (None, judged), where
            compared += 1
    if not compared:
        pytest.skip("no spec names a stored file with its number that is here")


def _is_rounded(reported: float | None, stored: float, where: str) -> None:
    """To the decimals that are reported."""
    if reported is not None:
        decimals = len(repr(reported).partition(".")[2])
        assert abs(reported - stored) <= 0.5 * 10**-decimals + 1e-12, where


def test_a_number_that_is_not_the_stored_one_would_be_found(shared_data: Path) -> None:
    oracles = shared_data.parent / "oracles"
    board = oracles / "mini_lima/338-qwen-prompt1-results/leaderboard.csv"
    stored = _published("win_rate", board.name, board.read_bytes())
    assert stored is not None
    assert stored == pytest.approx((9.27771, 1.01875, 803), abs=1e-5)
    result = oracles / "alpagasus2/vicuna_result.json"
    assert _published("win_rate/vicuna", result.name, result.read_bytes()) == (73.75, None, 80)
    assert _published("win_rate/koala", result.name, result.read_bytes()) is None
    _is_rounded(9.16, 9.16499, "")
    with pytest.raises(AssertionError):
        _is_rounded(9.17, 9.16499, "")
