"""A server of files on this machine that can be told to misbehave."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer(ThreadingHTTPServer):
    """`files`: path -> content. `requests`: (path, Range) of each request, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.statuses: dict[str, list[int]] = {}
        """Path -> what its next requests are answered with, in place of the file."""
        self.redirects: dict[str, str] = {}
        self.breaks: dict[str, list[int]] = {}
        """Path -> after how many bytes of the body its next answers end."""
        self.pauses: dict[str, float] = {}
        """Path -> seconds between two bytes."""
        self.knows_ranges = True
        self.etag = '"one"'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is none of a test's errors."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, path, asked = self.server, self.path, self.headers.get("Range")
        server.requests.append((path, asked))
        if server.statuses.get(path):
            self.send_error(server.statuses[path].pop(0))
        elif path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[path])
            self.end_headers()
        elif path not in server.files:
            self.send_error(404)
        else:
            self._send(server.files[path], asked)

    def _send(self, content: bytes, asked: str | None) -> None:
        server, start = self.server, 0
        fits = self.headers.get("If-Range") in (None, server.etag)
        if asked and server.knows_ranges and fits:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if server.breaks.get(self.path):
            body = body[: server.breaks[self.path].pop(0)]
        pause = server.pauses.get(self.path, 0)
        for piece in [bytes([b]) for b in body] if pause else [body]:
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(pause)
        self.close_connection = True


@contextmanager
def serving() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
