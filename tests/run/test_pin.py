"""Revisions left open: they plan, they do not run, and `harness pin` writes what the hub says."""

import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artefact.keys import open_hubs
from harness.errors import InputError
from harness.row.load import load_rows
from harness.run.pin import Pinned, RevisionPlace, _written, open_places
from harness.run.runner import Runner
from tests.helpers import InstantExecutor, harness, planner, write_row

MODEL, DATA = "owner/model", "owner/data"
AT = {f"models/{MODEL}": "a" * 40, f"datasets/{DATA}": "b" * 40, "models/owner/judge": "c" * 40}
GATED, TOKEN = "models/owner/gated", "hf_goodgoodgoodgood"


class Hub:
    """Says at which commit its repositories are; `asked` is what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.commits: dict[str, Any] = dict(AT)
        self.status: int | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0].removeprefix("/api/")
                if "/" in path:  # the client asks for lists of its own, too
                    hub.asked.append(path)
                name = path.partition("/")[2]
                authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                if hub.status is not None:
                    self.send(hub.status, {}, {})
                elif path == GATED and not authorised:
                    self.send(403, {}, {"X-Error-Code": "GatedRepo"})
                elif path in hub.commits or path == GATED:
                    sha = hub.commits.get(path, "d" * 40)
                    self.send(200, {"id": name, "sha": sha, "siblings": []}, {})
                else:
                    self.send(404, {}, {"X-Error-Code": "RepoNotFound"})

            def send(self, status: int, answer: Any, headers: dict[str, str]) -> None:
                body = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


Pin = Callable[..., tuple[int, str]]


@pytest.fixture
def pin(hub: Hub, tmp_path: Path) -> Pin:
    """Runs `harness pin SPECS`: exit code and what it says."""
    (tmp_path / "patience").mkdir()
    (tmp_path / "patience" / "sitecustomize.py").write_text(
        "import time\nsleep = time.sleep\ntime.sleep = lambda s: sleep(min(s, 0.01))\n"
    )
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("HF_", "HARNESS_", "TRANSFORMERS_"))
    }

    def run(*specs: Path, **variables: str) -> tuple[int, str]:
        env = {**kept, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), **variables}
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "patience"), os.getcwd()])
        done = harness(env, "pin", *specs)
        return done.returncode, done.stdout

    return run


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


BLOCK = """\
# A study, with comments.
row: one
table: tests
title: "A row"   # quoted

model:
  hub:
    id: owner/model   # the base
    revision: null    # open
"""


def test_the_commit_takes_the_place_of_null_and_all_else_stays_as_it_was(
    pin: Pin, tmp_path: Path
) -> None:
    spec = written(tmp_path / "s" / "a.yaml", BLOCK)
    code, said = pin(spec)
    assert code == 0, said
    assert spec.read_text() == BLOCK.replace("null ", "a" * 40 + " ")
    assert f"{spec}:9: owner/model at {'a' * 40}" in said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{id: owner/model, revision: null}", "{id: owner/model, revision: HASH}"),
        ("{id: owner/model, revision: ~ } # c", "{id: owner/model, revision: HASH } # c"),
        ("{ revision: , id: owner/model}", "{ revision: HASH , id: owner/model}"),
        ("{id: owner/model}", "{id: owner/model, revision: HASH}"),
        ("{id: 'owner/model' }", "{id: 'owner/model', revision: HASH }"),
        ("\n    id: owner/model", "\n    id: owner/model\n    revision: HASH"),
        ("\n    id: owner/model # why\n", "\n    id: owner/model # why\n    revision: HASH\n"),
        ("\r\n    id: owner/model\r\n", "\r\n    id: owner/model\r\n    revision: HASH\r\n"),
        ("\n    revision:\n    id: owner/model\n", "\n    revision: HASH\n    id: owner/model\n"),
        ("\n    revision: #\n    id: owner/model", "\n    revision: HASH #\n    id: owner/model"),
    ],
)  # fmt: skip
def test_every_way_of_leaving_a_revision_open_is_written_in_its_own_style(
    pin: Pin, tmp_path: Path, before: str, after: str
) -> None:
    head = "row: one\ntable: é𝄞\ntitle: t\nmodel:\n  hub: "
    spec = written(tmp_path / "a.yaml", head + before)
    code, said = pin(spec)
    assert code == 0, said
    assert spec.read_bytes().decode() == head + after.replace("HASH", "a" * 40)
    assert yaml.safe_load(spec.read_text())["model"]["hub"]["revision"] == "a" * 40


def test_the_file_that_extends_brought_the_id_from_is_changed_once_for_all_its_rows(
    pin: Pin, hub: Hub, tmp_path: Path
) -> None:
    base = written(
        tmp_path / "_base.yaml",
        "table: t\nmodel: {hub: {id: owner/model}}\ngen:\n  - recipe: import\n"
        "    hub: {id: owner/data}\n",
    )
    texts = [f"extends: _base.yaml\nrow: {name}\ntitle: t\n" for name in ("one", "two")]
    specs = [written(tmp_path / f"{n}.yaml", text) for n, text in enumerate(texts)]
    code, said = pin(tmp_path)
    assert code == 0, said
    assert [spec.read_text() for spec in specs] == texts
    assert yaml.safe_load(base.read_text())["gen"][0]["hub"]["revision"] == "b" * 40
    assert yaml.safe_load(base.read_text())["model"]["hub"]["revision"] == "a" * 40
    assert sorted(hub.asked) == [f"datasets/{DATA}", f"models/{MODEL}"]
    for loaded in load_rows([tmp_path]):
        assert open_hubs(loaded.row) == []


def test_a_null_that_hides_an_inherited_revision_is_written_where_the_null_stands(
    pin: Pin, tmp_path: Path
) -> None:
    base = f"table: t\nmodel: {{hub: {{id: owner/model, revision: {'e' * 40}}}}}\n"
    written(tmp_path / "_base.yaml", base)
    spec = written(
        tmp_path / "a.yaml",
        "extends: _base.yaml\nrow: one\ntitle: t\nmodel: {hub: {revision: null}}\n",
    )
    assert pin(spec)[0] == 0
    assert (tmp_path / "_base.yaml").read_text() == base
    assert spec.read_text().endswith(f"model: {{hub: {{revision: {'a' * 40}}}}}\n")


def test_a_judges_model_is_asked_for_as_a_model_and_a_prompt_set_as_a_data_set(
    tmp_path: Path,
) -> None:
    spec = written(
        tmp_path / "a.yaml",
        "row: one\neval:\n  answer: {prompts: {hub: {id: owner/data}}}\n"
        "  judge: {model: {hub: {id: owner/judge}}, length_control: {hub: {id: owner/data}}}\n",
    )
    assert [(p.kind, p.id) for p in open_places([spec])] == [
        ("data set", "owner/data"),
        ("model", "owner/judge"),
        ("data set", "owner/data"),
    ]


def test_what_is_pinned_stays_and_the_hub_is_not_asked(pin: Pin, hub: Hub, tmp_path: Path) -> None:
    text = BLOCK.replace("null", "e" * 40)
    spec = written(tmp_path / "a.yaml", text)
    code, said = pin(spec)
    assert (code, said.strip()) == (0, "no revision is open")
    assert (spec.read_text(), hub.asked) == (text, [])


def test_a_gated_model_needs_a_token_and_without_it_nothing_is_written(
    pin: Pin, tmp_path: Path
) -> None:
    text = BLOCK.replace(MODEL, "owner/gated")
    other = written(tmp_path / "a.yaml", BLOCK)
    spec = written(tmp_path / "b.yaml", text.replace("row: one", "row: two"))
    code, said = pin(tmp_path / "a.yaml", spec)
    assert code == 2
    assert "owner/gated" in said
    assert "HF_TOKEN" in said
    assert "Traceback" not in said
    assert other.read_text() == BLOCK
    code, said = pin(spec, HF_TOKEN=TOKEN)
    assert code == 0, said
    assert "d" * 40 in spec.read_text()


def test_faults_of_the_hub_are_told_in_words_and_change_nothing(
    pin: Pin, hub: Hub, tmp_path: Path
) -> None:
    spec = written(tmp_path / "a.yaml", BLOCK)

    def refused(**variables: str) -> str:
        code, said = pin(spec, **variables)
        assert code in (1, 2)
        assert "Traceback" not in said
        assert spec.read_text() == BLOCK
        return said

    assert "could not be asked" in refused(HF_ENDPOINT="http://127.0.0.1:9")
    assert "HF_HUB_OFFLINE" in refused(HF_HUB_OFFLINE="1")
    hub.commits = {f"models/{MODEL}": "main"}
    assert "gave no commit" in refused()
    hub.commits = {}
    assert f"there is no model {MODEL}" in refused()
    hub.status = 500
    assert "could not be asked" in refused()


def test_a_spec_that_cannot_be_read_is_a_fault_with_its_place(pin: Pin, tmp_path: Path) -> None:
    spec = written(tmp_path / "a.yaml", "row: [\n")
    code, said = pin(spec)
    assert code == 2
    assert f"{spec}:2:1" in said


def test_a_file_keeps_its_mode_and_a_link_stays_one(pin: Pin, tmp_path: Path) -> None:
    real = written(tmp_path / "real" / "a.yaml", BLOCK)
    real.chmod(0o640)
    link = tmp_path / "a.yaml"
    link.symlink_to(real)
    assert pin(link)[0] == 0
    assert link.is_symlink()
    assert "a" * 40 in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def open_row(folder: Path) -> Path:
    return write_row(folder, model={"hub": {"id": MODEL}})


def test_an_open_revision_plans_is_in_the_key_as_null_and_pinning_changes_the_key(
    tmp_path: Path,
) -> None:
    spec = open_row(tmp_path / "specs")
    plan = planner(tmp_path / "runs").plan(load_rows([spec])[0])
    train = next(s for s in plan.stages if s.stage == "train")
    assert train.document["params"]["model"]["hub"] == {"id": MODEL, "revision": None}
    spec = write_row(tmp_path / "specs", model={"hub": {"id": MODEL, "revision": "a" * 40}})
    pinned = planner(tmp_path / "runs").plan(load_rows([spec])[0])
    assert next(s for s in pinned.stages if s.stage == "train").key != train.key
    assert pinned.stages[0].key == plan.stages[0].key  # the data set does not depend on the model


def test_a_row_with_an_open_revision_is_refused_before_anything_runs(tmp_path: Path) -> None:
    from rich.console import Console

    spec = open_row(tmp_path / "specs")
    plans = planner(tmp_path / "runs")
    plans.store.prepare()
    executor = InstantExecutor()
    runner = Runner(plans.store, plans.files, executor, Console(quiet=True))
    for attempt in (runner.run, runner.downloads.fetch):
        with pytest.raises(InputError) as caught:
            attempt([plans.plan(load_rows([spec])[0])])
        assert caught.value.message == f"the revision of {MODEL} is open"
        assert caught.value.hint.endswith(f"harness pin {spec}")
    assert executor.made == []


def test_the_plan_and_the_deviations_name_what_is_open(tmp_path: Path) -> None:
    from harness.results.matrix import deviations

    spec = open_row(tmp_path / "specs")
    env = {k: v for k, v in os.environ.items() if not k.startswith("HARNESS_")} | {"COLUMNS": "200"}
    done = harness(env, "plan", "--volume", tmp_path / "runs", spec)
    assert done.returncode == 0, done.stdout
    assert f"{MODEL}: revision open: `harness pin {spec}` resolves and writes it" in done.stdout
    write_row(tmp_path / "specs", "two", model={"hub": {"id": MODEL}}, title="Other")
    both = harness(env, "plan", "--volume", tmp_path / "runs", spec.parent)
    where = f"in 2 rows: `harness pin {spec.parent}` resolves and writes it"
    assert f"{MODEL}: revision open {where}" in both.stdout
    assert both.stdout.count("revision open") == 1
    assert f"{MODEL} (hub) is not pinned" in deviations(load_rows([spec])[0].row)


@pytest.mark.parametrize(
    "written",
    [
        "  hub:\n    id: >-\n      owner/model\ntemplate: qwen\n",
        "  hub:\n    ? id\n    : owner/model\ntemplate: qwen\n",
        "  hub:\n    id: !!str owner/model\n    revision: &r null\n",
    ],
)
def test_a_file_that_is_written_in_a_rare_way_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    spec = tmp_path / "one.yaml"
    spec.write_text(f"row: one\nmodel:\n{written}")
    monkeypatch.setattr("harness.run.pin._hub", lambda: (None, ""))
    monkeypatch.setattr("harness.run.pin._resolve", lambda api, token, place: "a" * 40)
    from harness.run.pin import pin

    with pytest.raises(InputError) as told:
        pin([spec])
    assert f"revision: {'a' * 40}" in told.value.hint
    assert spec.read_text() == f"row: one\nmodel:\n{written}"


@pytest.mark.parametrize("revision", ["1" * 40, "1" * 20 + "e" + "2" * 19])
def test_a_hash_that_yaml_would_read_as_a_number_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    spec = tmp_path / "one.yaml"
    spec.write_text("row: one\nmodel:\n  hub: {id: owner/model}\n")
    monkeypatch.setattr("harness.run.pin._hub", lambda: (None, ""))
    monkeypatch.setattr("harness.run.pin._resolve", lambda api, token, place: revision)
    from harness.run.pin import pin

    pin([spec])
    assert yaml.safe_load(spec.read_text())["model"]["hub"]["revision"] == revision


def test_in_every_spec_of_the_repository_a_revision_changes_its_own_bytes_alone(
    tmp_path: Path,
) -> None:
    specs = tmp_path / "specs"
    shutil.copytree(Path(__file__).resolve().parents[2] / "specs", specs)
    pattern = re.compile(r"(?<=revision: )[0-9a-f]{40}\b")
    texts = {path: path.read_bytes().decode() for path in specs.rglob("*.yaml")}
    pinned = {path: text for path, text in texts.items() if pattern.search(text)}
    for path, text in pinned.items():
        path.write_bytes(pattern.sub("null", text).encode())
    places: dict[Path, list[RevisionPlace]] = {}
    for place in open_places([path for path in texts if not path.name.startswith("_")]):
        places.setdefault(place.mark.file, []).append(place)
    for path, text in pinned.items():
        lines = text.splitlines()
        revisions = [
            Pinned(place, match[0])
            for place in places[path]
            if (match := pattern.search(lines[place.mark.line - 1]))
        ]
        assert len(revisions) == len(pattern.findall(text))
        assert _written(path, revisions) == text
