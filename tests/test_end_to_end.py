"""Whole rows through the command line, in this environment: what the README promises."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "specs" / "smoke"
CACHES = ("HARNESS_", "XDG_", "HF_", "TORCH", "TRITON", "MPL", "CUDA_CACHE", "NLTK")
"""Beginnings of the variables that say where something is kept."""


def harness(*words: str | Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(CACHES)}
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, words)],
        cwd=ROOT,
        env={**env, "HOME": str(home)} if home else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def matrix(volume: Path, *specs: Path | str) -> dict[str, dict[str, str]]:
    out = volume / "results"
    harness("table", "--executor", "local", "--volume", volume, "--out", out, *specs)
    with (out / "matrix.csv").open(newline="", encoding="utf-8") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def test_the_trained_smoke_row_beats_the_untrained_one_and_both_are_marked_simulated(
    tmp_path: Path,
) -> None:
    specs = (SMOKE / "base.yaml", SMOKE / "sft.yaml")
    home = tmp_path / "home"
    home.mkdir()
    harness("run", "--volume", tmp_path, *specs, home=home)
    assert not list(home.rglob("*")), "a stage wrote into the home folder"
    assert list((tmp_path / "cache" / "libraries").rglob("fontlist*")), "no library kept anything"
    assert list((tmp_path / "cache" / "tokens").glob("*.npz"))
    rows = matrix(tmp_path, *specs)
    assert float(rows["smoke-base"]["ours"]) < 10
    assert float(rows["smoke-sft"]["ours"]) > 80
    for row in rows.values():
        assert (row["judged"], row["expected"]) == ("100", "100")
        assert row["verdict"] == "simulated"
        assert row["random_weights"] == "yes"
    assert rows["smoke-base"]["simulated"] == "judge"
    assert rows["smoke-sft"]["simulated"] == "judge; teacher"

    again = harness("run", "--volume", tmp_path, *specs)
    assert again.stdout.count("there already") == 6
    before = (tmp_path / "results" / "matrix.md").read_bytes()
    matrix(tmp_path, *specs)
    assert (tmp_path / "results" / "matrix.md").read_bytes() == before


def test_real_inputs_fill_a_row_with_the_numbers_of_alpaca_evals_own_leaderboard(
    tmp_path: Path, shared_data: Path
) -> None:
    spec = SMOKE / "real_inputs.yaml"
    harness("run", "--volume", tmp_path, "--data", shared_data, spec)
    row = matrix(tmp_path, "--data", str(shared_data), spec)["smoke-real-inputs"]
    (board,) = (tmp_path / "artefacts" / "judge").glob("*/leaderboard.csv")
    with board.open(newline="", encoding="utf-8") as file:
        (theirs,) = csv.DictReader(file)
    assert float(row["ours"]) == float(theirs["win_rate"])
    assert float(row["standard_error"]) == float(theirs["standard_error"])
    assert row["judged"] == theirs["n_total"] == row["expected"] == "40"
    manifest = json.loads((board.parent / "manifest.json").read_text(encoding="utf-8"))
    ours = manifest["metrics"]["win_rate"]
    counts = (ours["wins"], ours["losses"], ours["draws"])
    assert counts == tuple(int(theirs[c]) for c in ("n_wins", "n_wins_base", "n_draws"))
    assert 0 < ours["wins"] < 40, "a judge that errs gives both kinds of verdict"
