"""Small hubs on loopback: one that gives models and data sets, and one that takes uploads
(repositories, branches, commits, large files)."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

GOOD_TOKEN = "hf_goodgoodgoodgood"
LARGE = 1000
"""Bytes; from here on a file goes through the large-file interface."""
CHUNK = 5000
"""Bytes; larger ones go in parts of this size."""


REVISION = "a" * 40


class Hub:
    """Models and data sets, each at one revision, as the hub's HTTP interface shows them.

    `models` and `data_sets`: id -> its files, each its bytes or where it stands.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.models: dict[str, dict[str, bytes | Path]] = {}
        self.data_sets: dict[str, dict[str, bytes | Path]] = {}
        self.revisions: dict[str, str] = {}
        """Id -> its revision, where that is not REVISION."""
        self.gated: set[str] = set()
        """Ids whose files are given with GOOD_TOKEN alone."""
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

        self._server = ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://{address}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        token = request.headers.get("Authorization")
        if any(name in path for name in (*self.models, *self.data_sets)):
            # The client asks for lists of its own, too.
            self.tokens[f"{request.command} {path}"] = token
        if self.refusal:
            return _send(request, self.refusal[0], b"", {"X-Error-Code": self.refusal[1]})
        kinds = (("models", "", self.models), ("datasets", "/datasets", self.data_sets))
        for kind, start, repos in kinds:
            for repo, files in repos.items():
                api, page = f"/api/{kind}/{repo}/", f"{start}/{repo}/resolve/"
                revision = self.revisions.get(repo, REVISION)
                if path == f"{api}tree/{revision}":
                    return _send(request, 200, json.dumps(_entries(files)).encode(), {})
                if path.startswith(api):
                    return _send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
                name = path.removeprefix(f"{page}{revision}/")
                if name == path or name not in files:
                    continue
                if repo in self.gated and token != f"Bearer {GOOD_TOKEN}":
                    status = 401 if token is None else 403
                    return _send(request, status, b"", {"X-Error-Code": "GatedRepo"})
                if request.command == "GET":
                    self.fetched.append(name)
                headers = {"X-Repo-Commit": revision, "ETag": f'"{_blob(_bytes(files[name]))}"'}
                return _send(request, 200, _bytes(files[name]), headers)
        return _send(request, 401, b"", {"X-Error-Code": "RepoNotFound"})


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


def _bytes(file: bytes | Path) -> bytes:
    return file.read_bytes() if isinstance(file, Path) else file


def _entries(files: dict[str, bytes | Path]) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": name, "size": len(_bytes(data)), "oid": _blob(_bytes(data))}
        for name, data in files.items()
    ]


@dataclass
class Branch:
    files: dict[str, bytes]
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    messages: list[str] = field(default_factory=list)


@dataclass
class Repo:
    private: bool
    branches: dict[str, Branch]


class UploadHub:
    """`repos` is what it holds, `requests` what was asked of it (METHOD PATH)."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.received: list[str] = []
        """Digests of the large files that were sent."""
        self.refusal: dict[str, int] = {}
        """Part of a path -> status of every answer there."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _take(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else self._chunks()
                status, answer, headers = hub.answer(self, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def _chunks(self) -> bytes:
                found = b""
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return found
                while size := int(self.rfile.readline(), 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return found

            do_GET = do_HEAD = do_POST = do_PUT = _take

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._lock = threading.Lock()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, private: bool = True, **files: bytes) -> Repo:
        self.repos[name] = Repo(private, {"main": Branch({".gitattributes": b"", **files})})
        return self.repos[name]

    def answer(
        self, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        path, _, query = request.path.partition("?")
        with self._lock:
            self.requests.append(f"{request.command} {path}")
            for part, status in self.refusal.items():
                if part in path:
                    return status, {"error": "refused"}, {}
            sent = request.headers.get("Authorization")
            if not path.startswith("/large/") and sent != f"Bearer {GOOD_TOKEN}":
                said = "Invalid credentials in Authorization header"
                return 401, {"error": said}, {"X-Error-Message": said}
            return self._route(request.command, path, query, body)

    def _route(
        self, method: str, path: str, query: str, body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}, {}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.startswith("/large/"):
            return self._large(method, path, body)
        name = (
            "/".join(path.split("/")[3:5])
            if path.startswith("/api/")
            else path[1:].split(".git")[0]
        )
        if name not in self.repos:
            return 404, {"error": "none"}, {"X-Error-Code": "RepoNotFound"}
        repo = self.repos[name]
        if path.endswith("/objects/batch"):
            return 200, {"objects": [self._ask_for(o) for o in json.loads(body)["objects"]]}, {}
        kind, _, branch = path.split(name, 1)[1].strip("/").partition("/")
        branch = unquote(branch).split("?")[0] or "main"
        if kind == "branch":
            if branch in repo.branches:
                return 409, {"error": "there already"}, {}
            main = repo.branches["main"]
            repo.branches[branch] = Branch(dict(main.files), list(main.commits))
            return 200, {}, {}
        if branch not in repo.branches:
            return 404, {"error": "none"}, {"X-Error-Code": "RevisionNotFound"}
        held = repo.branches[branch]
        if kind == "preupload":
            return 200, {"files": [_preupload(held, f) for f in json.loads(body)["files"]]}, {}
        if kind == "commit":
            return self._commit(name, held, body)
        if kind == "tree":
            return 200, [{"type": "file", "path": n, "size": len(d), "oid": _blob(d)}
                         for n, d in held.files.items()], {}  # fmt: skip
        siblings = [{"rfilename": n} for n in held.files]
        card = held.files.get("README.md", b"---\n{}\n---\n").decode().split("---\n")[1]
        return 200, {"id": name, "sha": held.commits[-1], "private": repo.private,
                     "siblings": siblings, "cardData": yaml.safe_load(card)}, {}  # fmt: skip

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.repos:
            return 409, {"error": "You already created this model repo"}, {}
        self.add(name, private=wanted.get("visibility") == "private")
        return 200, {"url": f"{self.url}/{name}"}, {}

    def _ask_for(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """How a large file is to be sent: whole, in parts, or not at all."""
        oid, size = wanted["oid"], wanted["size"]
        if oid in self.large:
            return wanted
        upload: dict[str, Any] = {"href": f"{self.url}/large/{oid}"}
        if size > CHUNK:
            parts = -(-size // CHUNK)
            header = {str(n): f"{self.url}/large/{oid}/{n}" for n in range(1, parts + 1)}
            upload["header"] = {"chunk_size": str(CHUNK), **header}
        return {**wanted, "actions": {"upload": upload}}

    def _large(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        oid, _, part = path.removeprefix("/large/").partition("/")
        if part:
            self.large[f"{oid} {part}"] = body
            return 200, {}, {"ETag": f'"{part}"'}
        if method == "POST":  # every part is there
            names = [f"{oid} {p['partNumber']}" for p in json.loads(body)["parts"]]
            body = b"".join(self.large.pop(name) for name in names)
        assert hashlib.sha256(body).hexdigest() == oid
        self.large[oid] = body
        self.received.append(oid)
        return 200, {}, {}

    def _commit(self, name: str, held: Branch, body: bytes) -> tuple[int, Any, dict[str, str]]:
        for line in body.splitlines():
            value = (item := json.loads(line))["value"]
            if item["key"] == "header":
                held.messages.append(value["summary"])
            elif item["key"] == "file":
                held.files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                held.files[value["path"]] = self.large[value["oid"]]
            else:
                del held.files[value["path"]]
        held.commits.append(hashlib.sha1(body + held.commits[-1].encode()).hexdigest())
        oid = held.commits[-1]
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid}, {}


def _preupload(held: Branch, file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["size"] >= LARGE else "regular"
    there = held.files.get(file["path"])
    digest = {"lfs": lambda d: hashlib.sha256(d).hexdigest(), "regular": _blob}[mode]
    oid = None if there is None else digest(there)
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
