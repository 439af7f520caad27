"""Downloading models and data sets from the hub to the volume, against a small hub on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.artefact.call import CALL_FILE, RESULT_FILE, StageCall
from harness.gen.recipes.importing import ImportGen
from tests.modeling.hub_server import REVISION, Hub

MODEL, DATA = "some/model", "some/set"
FILES = {
    "config.json": b'{"model_type": "qwen2"}',
    "model.safetensors": bytes(range(256)) * 64,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"a pickle",
    "modeling_own.py": b"raise SystemExit('code from the hub was run')",
    "LICENSE": b"terms",
}
README = b"""---
configs:
- config_name: default
  data_files: [{split: train, path: data/*.jsonl}, {split: test, path: test.jsonl}]
---
"""
DATA_FILES = {
    "README.md": README,
    "LICENSE": b"terms",
    "data/train-0.jsonl": b'{"instruction": "q", "output": "a"}\n' * 3,
    "test.jsonl": b'{"instruction": "q", "output": "a"}\n',
    "more.parquet": b"PAR1",
    "more.csv": b"a,b\n",
    "more.json": b"[]",
    "set.py": b"raise SystemExit('code from the hub was run')",
    "notes.txt": b"notes",
    "data.zip": b"PK",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    hub.models[MODEL] = dict(FILES)
    hub.data_sets[DATA] = dict(DATA_FILES)
    yield hub
    hub.close()


def fetch(
    work: Path, endpoint: str, revision: str = REVISION, model: str = MODEL, **variables: str
) -> tuple[int, dict[str, Any], str]:
    """Fetch a model: the stage's exit code, its error event (or its result) and its log."""
    return run_stage(work, {"hub": {"id": model, "revision": revision}}, endpoint, **variables)


def fetch_data(
    work: Path, endpoint: str, revision: str = REVISION, name: str = DATA, **variables: str
) -> tuple[int, dict[str, Any], str]:
    """The same for a data set."""
    hub = {"id": name, "revision": revision, "config": None, "split": "train"}
    return run_stage(work, {"hub_data": hub}, endpoint, **variables)


def run_stage(
    work: Path, params: dict[str, Any], endpoint: str, **variables: str
) -> tuple[int, dict[str, Any], str]:
    work.mkdir(exist_ok=True)
    path = work / CALL_FILE
    StageCall("fetch", "k", params, {}, str(work)).write(path)
    # The hub's client waits long between its attempts; the tests do not.
    patience = work.parent / "patience"
    patience.mkdir(exist_ok=True)
    (patience / "sitecustomize.py").write_text(
        "import time\nsleep = time.sleep\ntime.sleep = lambda s: sleep(min(s, 0.01))\n"
    )
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("HF_", "TRANSFORMERS_", "HARNESS_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "harness.stage", str(path)],
        env={
            **kept,
            "PYTHONPATH": str(patience),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(work.parent / "home"),
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    errors = [e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "error"]
    said = errors[0] if errors else json.loads((work / RESULT_FILE).read_text())
    return done.returncode, said, done.stderr


def test_weights_and_texts_are_fetched_and_neither_pickles_nor_code(
    hub: Hub, tmp_path: Path
) -> None:
    code, result, log = fetch(tmp_path / "work", hub.url)
    assert code == 0, (result, log)
    snapshot = tmp_path / "work" / "snapshot"
    there = {p.name for p in snapshot.iterdir() if p.is_file()}
    assert there == set(FILES) - {"pytorch_model.bin", "modeling_own.py"}
    assert (snapshot / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert result["used"]["hub"] == {"id": MODEL, "revision": REVISION}
    assert set(hub.tokens.values()) == {None}


def test_a_models_own_code_is_fetched_where_the_row_trusts_it(hub: Hub, tmp_path: Path) -> None:
    params = {"hub": {"id": MODEL, "revision": REVISION}, "code": True}
    code, result, log = run_stage(tmp_path / "work", params, hub.url)
    assert code == 0, (result, log)
    there = {p.name for p in (tmp_path / "work" / "snapshot").iterdir() if p.is_file()}
    assert there == set(FILES) - {"pytorch_model.bin"}


def test_going_on_fetches_only_what_is_missing(hub: Hub, tmp_path: Path) -> None:
    fetch(tmp_path / "work", hub.url)
    (tmp_path / "work" / "snapshot" / "tokenizer.json").unlink()
    hub.fetched.clear()
    code, result, log = fetch(tmp_path / "work", hub.url)
    assert code == 0, (result, log)
    assert hub.fetched == ["tokenizer.json"]


def test_a_download_cut_short_is_not_taken_for_the_model(hub: Hub, tmp_path: Path) -> None:
    fetch(tmp_path / "work", hub.url)
    (tmp_path / "work" / "snapshot" / "model.safetensors").unlink()
    (tmp_path / "work" / RESULT_FILE).unlink()
    hub.close()
    code, error, _ = fetch(tmp_path / "work", hub.url)
    assert code == 1
    assert f"{MODEL} could not be downloaded" in error["message"]
    assert not (tmp_path / "work" / RESULT_FILE).exists()


def test_a_token_is_sent_and_written_nowhere(hub: Hub, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("hf_secret\n")
    code, _, log = fetch(tmp_path / "work", hub.url, HF_TOKEN_FILE=str(token_file))
    assert code == 0, log
    assert set(hub.tokens.values()) == {"Bearer hf_secret"}, hub.tokens
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p != token_file]
    assert len(written) > len(FILES) - 3
    assert not [p for p in written if b"hf_secret" in p.read_bytes()]
    assert "hf_secret" not in log


def test_a_token_under_the_older_name_of_the_hubs_client_is_sent(hub: Hub, tmp_path: Path) -> None:
    code, _, log = fetch(tmp_path / "work", hub.url, HUGGING_FACE_HUB_TOKEN="hf_secret")
    assert code == 0, log
    assert set(hub.tokens.values()) == {"Bearer hf_secret"}, hub.tokens


def test_an_unknown_revision_is_the_users_fault(hub: Hub, tmp_path: Path) -> None:
    code, error, log = fetch(tmp_path / "work", hub.url, revision="b" * 40)
    assert (code, error["exit_code"]) == (2, 2)
    assert error["message"] == f"{MODEL} has no revision {'b' * 40} on the hub"
    assert "Traceback" not in log


def test_an_unknown_model_is_the_users_fault(hub: Hub, tmp_path: Path) -> None:
    code, error, log = fetch(tmp_path / "work", hub.url, model="no/such")
    assert code == 2
    assert "there is no model no/such on the hub, or it is private" in error["message"]
    assert "HF_TOKEN" in error["hint"]
    assert "Traceback" not in log


def test_a_gated_model_asks_for_its_terms_and_a_token(hub: Hub, tmp_path: Path) -> None:
    hub.refusal = (403, "GatedRepo")
    code, error, log = fetch(tmp_path / "work", hub.url)
    assert code == 2
    assert error["message"] == f"the hub does not let this token read {MODEL}"
    assert "Accept the model's terms" in error["hint"]
    assert "Traceback" not in log


@pytest.mark.parametrize("how", ["nothing listens", "it fails", "offline"])
def test_a_hub_that_does_not_answer_is_a_failed_run_with_two_ways_out(
    hub: Hub, tmp_path: Path, how: str
) -> None:
    variables = {}
    if how == "nothing listens":
        hub.close()
    elif how == "it fails":
        hub.refusal = (500, "")
    else:
        variables = {"HF_HUB_OFFLINE": "1"}
    code, error, log = fetch(tmp_path / "work", hub.url, **variables)
    assert code == 1
    assert f"{MODEL} could not be downloaded from the hub" in error["message"]
    assert "model.path" in error["hint"]
    assert "Traceback" not in log


def test_a_token_file_that_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    code, error, _ = fetch(tmp_path / "work", hub.url, HF_TOKEN_FILE=str(tmp_path / "none"))
    assert code == 2
    assert str(tmp_path / "none") in error["message"]
    assert not hub.tokens


def test_of_a_data_set_the_data_files_and_their_configs_are_fetched_and_no_code(
    hub: Hub, tmp_path: Path
) -> None:
    code, result, log = fetch_data(tmp_path / "work", hub.url)
    assert code == 0, (result, log)
    snapshot = tmp_path / "work" / "snapshot"
    found = (p.relative_to(snapshot) for p in snapshot.rglob("*") if p.is_file())
    there = {p.as_posix() for p in found if p.parts[0] != ".cache"}
    assert there == set(DATA_FILES) - {"set.py", "notes.txt", "data.zip"}
    assert (snapshot / "README.md").read_bytes() == README
    assert result["used"]["hub_data"] == {
        "id": DATA,
        "revision": REVISION,
        "config": None,
        "split": "train",
    }
    assert set(hub.tokens.values()) == {None}


def test_a_fetched_data_set_can_be_imported(hub: Hub, tmp_path: Path) -> None:
    for name in ("more.parquet", "more.csv", "more.json"):
        del hub.data_sets[DATA][name]
    fetch_data(tmp_path / "work", hub.url)
    work = tmp_path / "gen"
    work.mkdir()
    inputs = {"hub": str(tmp_path / "work" / "snapshot")}
    call = StageCall("gen", "k", {}, inputs, str(work))
    for split, rows in (("train", 3), ("test", 1)):
        spec = {"hub": {"id": DATA, "revision": REVISION, "split": split}}
        made = ImportGen.model_validate(spec).make(call, [])
        assert len(made.examples) == rows


def test_going_on_with_a_data_set_fetches_only_what_is_missing(hub: Hub, tmp_path: Path) -> None:
    fetch_data(tmp_path / "work", hub.url)
    (tmp_path / "work" / "snapshot" / "data" / "train-0.jsonl").unlink()
    hub.fetched.clear()
    code, result, log = fetch_data(tmp_path / "work", hub.url)
    assert code == 0, (result, log)
    assert hub.fetched == ["data/train-0.jsonl"]


def test_faults_of_a_data_set_are_worded_for_it(hub: Hub, tmp_path: Path) -> None:
    code, error, _ = fetch_data(tmp_path / "a", hub.url, revision="b" * 40)
    assert (code, error["message"]) == (2, f"{DATA} has no revision {'b' * 40} on the hub")
    assert "hub.revision" in error["hint"]
    # A model of this name is no data set.
    code, error, log = fetch_data(tmp_path / "b", hub.url, name=MODEL)
    assert code == 2
    assert f"there is no data set {MODEL} on the hub, or it is private" in error["message"]
    assert "hub.id" in error["hint"]
    hub.refusal = (403, "GatedRepo")
    code, error, _ = fetch_data(tmp_path / "c", hub.url)
    assert code == 2
    assert "Accept the data set's terms" in error["hint"]
    hub.refusal = (500, "")
    code, error, _ = fetch_data(tmp_path / "d", hub.url)
    assert code == 1
    assert "file or folder" in error["hint"]
    assert "Traceback" not in log


def test_a_data_set_without_files_of_a_known_format_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.data_sets[DATA] = {"README.md": README, "data.zip": b"PK", "set.py": b""}
    code, error, _ = fetch_data(tmp_path / "work", hub.url)
    assert code == 2
    assert "the data set some/set holds no *.json, *.jsonl, *.parquet, *.csv" in error["message"]
    assert "in place of hub" in error["hint"]
