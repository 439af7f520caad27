"""specs/first_rows: a real model from a hub on loopback, by lm-eval, against what others published; and
trained on real data from a mirror on loopback."""

import csv
import hashlib
import json
import os
import string
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from harness.answer.prompts import read_prompts
from harness.data.records import read_records
from harness.row.load import load_rows
from harness.spec.base import DataPath
from harness.spec.prompts import PromptSet
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
    "gsm8k/exact_match/strict-match": (1.4, 1319),
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
    assert float(cells["ours"]) % (100 / ASKED) == 0
    assert cells["simulated"] == ""
    assert f"only the first {ASKED} of the {3 * ASKED} questions" in cells["deviations"]
    verified = harness(env, "verify", spec, *volume)
    assert verified.returncode in (0, 3, 4), verified.stdout
    assert "27.73" in verified.stdout
    assert harness(env, "needs", spec, *volume).returncode == 0
    replayed = harness(env, "replay", spec, *volume)
    assert replayed.returncode == 0, replayed.stdout


GIVEN = {
    "seed_tasks.jsonl": "data/self_instruct",
    "claude_t45.json": "data/alpagasus",
    "alpaca2-alpagasus2-vicuna.json": "oracles/alpagasus2",
    "alpagasus2-alpaca2-vicuna.json": "oracles/alpagasus2",
}
"""What the trained rows fetch, as far as it is beside the checkout, and the folder there."""
TRAINED = ("sft", "sft_lora", "control_random_k", "control_longest_k", "orpo")


def given(value: Any) -> Iterator[dict[str, Any]]:
    """The files that a spec names by address."""
    if isinstance(value, dict):
        if "url" in value:
            yield value
        for part in value.values():
            yield from given(part)
    elif isinstance(value, list):
        for part in value:
            yield from given(part)


def test_every_given_file_stands_at_a_commit_and_is_the_one_that_is_meant(
    shared_data: Path,
) -> None:
    files = [f for path in FOLDER.glob("*.yaml") for f in given(yaml.safe_load(path.read_text()))]
    seen = set()
    for file in files:
        host, _, commit = urlsplit(file["url"]).path.split("/")[1:4]
        assert len(commit) == 40, host
        name = file["url"].rpartition("/")[2]
        seen.add(name)
        if name in GIVEN:
            content = (shared_data.parent / GIVEN[name] / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file["sha256"]
            assert len(content) == file["bytes"]
    assert seen >= GIVEN.keys()


def test_what_is_held_out_is_the_same_for_every_row_and_not_trained_on(shared_data: Path) -> None:
    rows = [load_rows([FOLDER / f"{name}.yaml"])[0].row for name in ("loss_base", *TRAINED)]
    judges = [row.eval.judge for row in rows if row.eval]
    assert len(judges) == len(rows)
    assert all(judge == judges[0] for judge in judges)
    path = shared_data / "self_instruct" / "seed_tasks.jsonl"
    held_out = read_prompts(PromptSet(file=DataPath(path=str(path))), None)
    trained = [r.fields for r in read_records(shared_data / "alpagasus" / "claude_t45.json")]
    assert len(held_out) == 175
    assert not {prompt.key for prompt in held_out} & {
        (r["instruction"], r["input"]) for r in trained
    }
    assert not {p.output for p in held_out if len(p.output or "") > 50} & {
        r["output"] for r in trained
    }


def few(name: str, folder: Path) -> Path:
    """A trained row over few examples, of those files that are beside the checkout."""
    spec = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    filtered = yaml.safe_load((FOLDER / "_filtered.yaml").read_text())["gen"]
    judge = {"examples": {"first": 16}, "cutoff_length": 96, "threads": 1}
    small: dict[str, Any] = {
        "extends": str(FOLDER / f"{name}.yaml"),
        "eval": {"judge": judge},
    }
    if name != "loss_base":
        gen = spec.get("gen", filtered)
        gen[-1]["k"] = 16
        if "reviews" in gen[0]:
            gen[0]["reviews"] = [r for r in gen[0]["reviews"] if "vicuna" in r["file"]["path"]]
            gen[-1]["k"] = 4
        else:
            gen[0] = filtered[0]
        small |= {
            "gen": gen,
            "train": {"cutoff_length": 96, "threads": 1, "learning_rate": 0.00005},
            "replicates": {"train_seeds": [1]},
        }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(small))
    return path


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """A mirror as `wget -x` leaves one, of the files beside the checkout."""
    folder = tmp_path / "mirror"
    for spec in FOLDER.glob("*.yaml"):
        for file in given(yaml.safe_load(spec.read_text())):
            address = urlsplit(file["url"])
            name = address.path.rpartition("/")[2]
            if name in GIVEN:
                path = folder / str(address.hostname) / address.path[1:]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                path.symlink_to(SHARED / GIVEN[name] / name)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_trained_rows_run_from_addresses_and_lower_the_held_out_loss(
    shared_data: Path, hub: Hub, mirror: str, tmp_path: Path
) -> None:
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HARNESS_MIRROR": mirror,
        "COLUMNS": "200",
    }
    rows = [few(name, tmp_path) for name in ("loss_base", "sft", "orpo")]
    volume = ("--volume", tmp_path / "volume")
    done = harness(env, "run", *rows, *volume, seconds=900)
    assert done.returncode == 0, done.stdout
    table = harness(env, "table", *rows, *volume, "--format", "csv")
    lines = csv.DictReader(table.stdout.splitlines())
    losses = {
        line["row"].removeprefix("first-rows-"): float(line["ours"])
        for line in lines
        if line["metric"] == "held_out_loss"
    }
    assert losses["sft"] < losses["loss-base"]
    assert 1 < losses["loss-base"] < 4
    assert 0 < abs(losses["orpo"] - losses["loss-base"]) < 1
    compared = harness(env, "compare", *rows[:2], *volume)
    assert compared.returncode == 0, compared.stdout
    assert "held_out_loss" in compared.stdout
    # Example by example, and not the two numbers alone.
    assert "higher, and so worse, in the first" in compared.stdout
    assert "judged in both; the smallest difference that would have been seen" in compared.stdout
