"""Which batches are in flight, in a file beside the transcript, so that a killed stage finds them."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from harness.errors import HarnessError, InputError
from harness.llm.transcript import CallPlace

DIGEST_CHARACTERS = 40
"""Of a request's digest, in its id within a batch: some servers take ids of up to 64 characters."""


def request_id(place: CallPlace) -> str:
    """A request's id within a batch."""
    return f"{place[0][:DIGEST_CHARACTERS]}-{place[1]}"


class BatchNote(TypedDict, total=False):
    """A line: {file, requests}, {batch, file, started} or {batch, unanswered}, requests of the batch
    that have to be sent again."""

    file: str
    requests: list[str]
    batch: str
    started: str
    unanswered: list[str]


class Ledger:
    """Files uploaded and batches made of them, in JSON lines. What a batch answers is in the
    transcript, and not noted here.

    in_flight: request id -> the batch that was asked for it. uploads: file -> the requests in it,
    while no batch is known to have been made of it. started: batch -> when (ISO, UTC). `of`: a name for
    the server's, where the calls of several stand in one transcript: each knows its own batches alone.

    Raises:
        InputError: a line before the last one is none of the ledger's.
        HarnessError: the file cannot be read or written.
    """

    def __init__(self, transcript: Path, of: str = "") -> None:
        name = f"{transcript.stem}.{of}.batches.jsonl" if of else f"{transcript.stem}.batches.jsonl"
        self.path = transcript.with_name(name)
        self.in_flight: dict[str, str] = {}
        self.uploads: dict[str, list[str]] = {}
        self.started: dict[str, str] = {}
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        except OSError as e:
            raise self._no_access(e) from None
        for number, line in enumerate(lines, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                if number < len(lines):
                    raise InputError(
                        f"{self.path}:{number}: this line is not one about a batch",
                        hint="restore the file; or delete it: what a batch in flight was asked is "
                        "then asked, and paid for, again",
                    ) from None
                # Its writer was killed.
                os.truncate(self.path, sum(map(len, lines[:-1])))

    def note_upload(self, file: str, requests: list[str]) -> None:
        self._write({"file": file, "requests": requests})

    def note_batch(self, batch: str, file: str, started: str) -> None:
        self._write({"batch": batch, "file": file, "started": started})

    def note_unanswered(self, batch: str, requests: Iterable[str]) -> None:
        self._write({"batch": batch, "unanswered": list(requests)})

    def _apply(self, line: BatchNote) -> None:
        if "unanswered" in line:
            for request in line["unanswered"]:
                if self.in_flight.get(request) == line["batch"]:
                    del self.in_flight[request]
        elif "batch" in line:
            requests = self.uploads.pop(line["file"])
            self.in_flight.update(dict.fromkeys(requests, line["batch"]))
            self.started[line["batch"]] = line["started"]
        else:
            self.uploads[line["file"]] = line["requests"]

    def _write(self, line: BatchNote) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as e:
            raise self._no_access(e) from None
        self._apply(line)

    def _no_access(self, error: OSError) -> HarnessError:
        return HarnessError(
            f"the list of batches in flight, {self.path}, cannot be used: "
            f"{error.strerror or error}",
            hint="make room or correct the permissions, then run the same command again",
        )
