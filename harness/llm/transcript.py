"""The transcript: one JSON line per teacher or judge call, written as soon as it is answered."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, InputError
from harness.llm.reply import tokens_used

UNUSABLE = ", but "
"""In an attempt's outcome: served, and most likely paid for, yet not a model's answer."""

Place = tuple[str, int]
"""A request's digest and, for requests repeated word for word, which of them it is (0, 1, ...)."""


def digest_of(request: dict[str, Any]) -> str:
    """sha256 of a request's canonical JSON; the same on every machine."""
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def unusable_attempts(attempts: list[dict[str, Any]]) -> int:
    """How many of a call's attempts were served without being of use."""
    return sum(UNUSABLE in attempt["outcome"] for attempt in attempts)


class Transcript:
    """A JSONL file of calls, found again by a later try of the same stage.

    A record: digest, occurrence, request, response, served_model, usage, attempts, started (ISO,
    UTC), seconds, ok, and for a call that failed for good its error. Only where each record lies
    is held in memory. What a killed writer left half-written at the end is dropped on opening.

    Raises:
        InputError: a line before the last one is not a record.
        HarnessError: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls = 0
        self.attempts = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.served_models: list[str] = []
        self.simulated = False
        self._spans: list[tuple[Place, int, int]] = []
        self._answered: dict[Place, tuple[int, int]] = {}
        self._asked: dict[Place, int] = {}
        self._occurrences: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a record is one write, so that an interrupt leaves no half of it in a
            # buffer and what was answered is in the file before the next call is made.
            self._file = path.open("a+b", buffering=0)
            self._end = self._read_existing()
        except OSError as e:
            raise self._no_access(e) from None

    def ask(self, digest: str) -> Place:
        """The place of the next request with this digest, in the order in which they are asked."""
        occurrence = self._occurrences.get(digest, 0)
        self._occurrences[digest] = occurrence + 1
        place = (digest, occurrence)
        self._asked[place] = len(self._asked)
        return place

    def find(self, place: Place) -> dict[str, Any] | None:
        """The answered call at this place, or None when it has yet to be made."""
        span = self._answered.get(place)
        return None if span is None else self._read(*span)

    def append(self, record: dict[str, Any]) -> None:
        """Write one call's record to the end of the file.

        Raises:
            HarnessError: the disk is full or the file cannot be written; the file then ends with
                the last whole record.
        """
        line = json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            self._write(line)
        except OSError as e:
            raise self._no_access(e) from None
        self._note(record, self._end, len(line))
        self._end += len(line)

    def finish(self) -> None:
        """Sort the file by the order in which the calls were asked, and make it durable."""
        self._file.close()
        sorted_path = self.path.with_name(self.path.name + ".sorted")
        try:
            with self.path.open("rb") as source, sorted_path.open("wb") as target:
                # What this try did not ask for comes last, in the order in which it was written.
                last = len(self._asked)
                in_order = sorted(self._spans, key=lambda span: self._asked.get(span[0], last))
                for _, start, length in in_order:
                    source.seek(start)
                    target.write(source.read(length))
                target.flush()
                os.fsync(target.fileno())
            sorted_path.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as e:
            raise self._no_access(e) from None

    def close(self) -> None:
        """Leave the file as it is; a later try finds every answered call in it."""
        self._file.close()

    def _read_existing(self) -> int:
        self._file.seek(0)
        start = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                record = _parse(line)
                if record is None:
                    # Only the last line can be one that its writer did not finish.
                    if lines.readline():
                        raise InputError(
                            f"{self.path}:{number}: this line is not a transcript record",
                            hint="restore the file, or delete the line: its call is made again",
                        )
                    os.truncate(self.path, start)
                    break
                self._note(record, start, len(line))
                start += len(line)
        return start

    def _note(self, record: dict[str, Any], start: int, length: int) -> None:
        place = (record["digest"], record["occurrence"])
        self._spans.append((place, start, length))
        self.attempts += len(record["attempts"])
        self.calls += unusable_attempts(record["attempts"])
        if not record["ok"]:
            return
        self.calls += 1
        prompt, completion = tokens_used(record["usage"])
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        served = record["served_model"]
        if served and served not in self.served_models:
            self.served_models.append(served)
        self.simulated = self.simulated or record["response"].get("simulated") is True
        self._answered[place] = (start, length)

    def _read(self, start: int, length: int) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(os.pread(self._file.fileno(), length, start))
        return record

    def _write(self, line: bytes) -> None:
        rest = line
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            os.truncate(self.path, self._end)
            raise

    def _no_access(self, error: OSError) -> HarnessError:
        return HarnessError(
            f"the transcript {self.path} cannot be written: {error.strerror or error}",
            hint="make room or correct the permissions, then run the same command again: every "
            "answered call is kept",
        )


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record in a whole line; None when the line was cut or is something else."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not record.keys() >= _FIELDS:
        return None
    if not isinstance(record["response"], dict) or not isinstance(record["usage"], dict):
        return None
    return record


_FIELDS = {"digest", "occurrence", "response", "served_model", "usage", "attempts", "ok"}
