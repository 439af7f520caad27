"""Downloading a model from the hub to the volume, against a small hub on loopback."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.call import CALL_FILE, RESULT_FILE, StageCall

MODEL, REVISION = "some/model", "a" * 40
FILES = {
    "config.json": b'{"model_type": "qwen2"}',
    "model.safetensors": bytes(range(256)) * 64,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"a pickle",
    "modeling_own.py": b"raise SystemExit('code from the hub was run')",
    "LICENSE": b"terms",
}


class Hub:
    """One model at one revision, as the hub's HTTP interface shows it."""

    def __init__(self) -> None:
        self.refusal: tuple[int, str] | None = None
        """Status and X-Error-Code of every answer."""
        self.tokens: dict[str, str | None] = {}
        """Path -> what came with it as authorisation."""
        self.fetched: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        if MODEL in path:  # the client asks for lists of its own, too
            self.tokens[f"{request.command} {path}"] = request.headers.get("Authorization")
        resolve = f"/{MODEL}/resolve/{REVISION}/"
        if self.refusal:
            return self._send(request, self.refusal[0], b"", {"X-Error-Code": self.refusal[1]})
        if path == f"/api/models/{MODEL}/tree/{REVISION}":
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": _blob_id(data)}
                for name, data in FILES.items()
            ]
            return self._send(request, 200, json.dumps(entries).encode(), {})
        if path.startswith(f"/api/models/{MODEL}/"):
            return self._send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith(resolve) and path.removeprefix(resolve) in FILES:
            name = path.removeprefix(resolve)
            if request.command == "GET":
                self.fetched.append(name)
            headers = {"X-Repo-Commit": REVISION, "ETag": f'"{_blob_id(FILES[name])}"'}
            return self._send(request, 200, FILES[name], headers)
        return self._send(request, 401, b"", {"X-Error-Code": "RepoNotFound"})

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def fetch(
    work: Path, endpoint: str, revision: str = REVISION, model: str = MODEL, **variables: str
) -> tuple[int, dict[str, Any], str]:
    """The stage's exit code, its error event (or its result) and its log."""
    work.mkdir(exist_ok=True)
    path = work / CALL_FILE
    hub = {"id": model, "revision": revision}
    StageCall("fetch", "k", {"hub": hub}, {}, str(work)).write(path)
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
