"""specs/first_rows: a real model from a hub on loopback, by lm-eval, against what others published."""

import csv
import json
import os
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.row.load import load_rows
from tests.conftest import SHARED
from tests.helpers import ROOT, harness
from tests.modeling.hub_server import Hub

FOLDER = ROOT / "specs" / "first_rows"
ROWS = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.startswith("_"))
ARC = SHARED / "data" / "eval" / "arc_challenge_test.jsonl"
ASKED = 8
PUBLISHED = {
    "arc_challenge/acc_norm": (27.73, 1172),
    "arc_easy/acc": (54.12, 2376),
    "gsm8k/exact_match/flexible-extract": (0.38, 1319),
    "hellaswag/acc_norm": (42.99, 10042),
    "piqa/acc_norm": (66.92, 1838),
}


def test_the_published_numbers_stand_in_the_rows_with_their_counts() -> None:
    rows = [loaded.row for path in ROWS for loaded in load_rows([path])]
    cells = {metric: cell for row in rows for metric, cell in row.reported.items()}
    assert {name: (cell.value, cell.expected) for name, cell in cells.items()} == PUBLISHED
    assert all(row.model is not None and row.model.hub is not None for row in rows)


def as_on_the_hub(line: str) -> dict[str, Any]:
    question = json.loads(line)
    labels = list(string.ascii_uppercase[: len(question["choices"])])
    return {
        "question": question["question"],
        "choices": {"text": question["choices"], "label": labels},
        "answerKey": labels[question["answer"]],
    }


@pytest.fixture
def hub(real_model: Path) -> Iterator[Hub]:
    """Holds the real model and ARC-Challenge's first questions, at the revisions that the row names."""
    row = yaml.safe_load((FOLDER / "arc_challenge.yaml").read_text())
    model = yaml.safe_load((FOLDER / "_base.yaml").read_text())["model"]["hub"]
    data = row["eval"]["judge"]["tasks"]["arc_challenge"]["hub"]
    lines = ARC.read_text().splitlines()[: 3 * ASKED]
    questions = "".join(json.dumps(as_on_the_hub(line)) + "\n" for line in lines)
    hub = Hub()
    hub.models[model["id"]] = {path.name: path for path in real_model.iterdir()}
    hub.data_sets[data["id"]] = {f"{data['config']}/test.jsonl": questions.encode()}
    hub.revisions = {each["id"]: each["revision"] for each in (model, data)}
    yield hub
    hub.close()


def test_a_first_row_runs_from_an_empty_volume_and_gets_a_real_number_and_a_verdict(
    hub: Hub, tmp_path: Path
) -> None:
    spec = tmp_path / "row.yaml"
    few = {"judge": {"tasks": {"arc_challenge": {"limit": ASKED}}}}
    spec.write_text(json.dumps({"extends": str(FOLDER / "arc_challenge.yaml"), "eval": few}))
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "COLUMNS": "200",
    }
    volume = ("--volume", tmp_path / "volume")
    needs = harness(env, "needs", spec, *volume)
    assert needs.returncode == 1, needs.stdout
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in needs.stdout
    assert "missing" in needs.stdout
    done = harness(env, "run", spec, *volume)
    assert done.returncode == 0, done.stdout
    table = harness(env, "table", spec, *volume, "--format", "csv")
    (cells,) = csv.DictReader(table.stdout.splitlines())
    assert (cells["reported"], cells["judged"], cells["expected"]) == (
        "27.73",
        str(ASKED),
        str(ASKED),
    )
    assert float(cells["reproduced"]) % (100 / ASKED) == 0
    assert cells["simulated"] == ""
    assert f"only the first {ASKED} of the {3 * ASKED} questions" in cells["deviations"]
    verified = harness(env, "verify", spec, *volume)
    assert verified.returncode in (0, 3, 4), verified.stdout
    assert "27.73" in verified.stdout
    assert harness(env, "needs", spec, *volume).returncode == 0
    replayed = harness(env, "replay", spec, *volume)
    assert replayed.returncode == 0, replayed.stdout
