"""The transcript: one JSON line per teacher or judge call, written as soon as it is answered."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from harness.artefact.network_files import sync
from harness.common.paths import DISK_FULL
from harness.errors import HarnessError, InputError
from harness.llm.record import CallRecord
from harness.llm.reply import MOST_NESTED, is_nested_deeper, provider_error
from harness.llm.totals import Totals

Asked = tuple[str, str]
"""The model that a request names, and what it says of its server."""

CallPlace = tuple[str, int]
"""A request's digest and, for requests repeated word for word, which of them it is (0, 1, ...)."""

CALL_ROOM = 64 * 1024
"""Bytes that are kept free for the record of a call in flight: a long prompt, its reply and more."""


def digest_of(request: Mapping[str, object]) -> str:
    """sha256 of a request's canonical JSON; the same on every machine."""
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


class Transcript:
    """A JSONL file of calls, found again by a later try of the same stage.

    Only where each record lies is held in memory. What a killed writer left half-written at the end
    is dropped on opening.

    read_only: the file is there, may be one that cannot be written, and stays as it is; its last
    line needs no line end. cut: the number, from 1, of a last line that was dropped there.

    Raises:
        InputError: a line that was not cut is not a record, or there is nothing to read.
        HarnessError: the file cannot be opened or written.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.totals = Totals()
        self._totals_of: dict[Asked, Totals] = {}
        self.served_models: list[str] = []
        self.simulated = False
        self.cut: int | None = None
        self._read_only = read_only
        self._spans: list[tuple[CallPlace, int, int]] = []
        self._answered: dict[CallPlace, tuple[int, int]] = {}
        self._lines: dict[CallPlace, int] = {}
        self._positions: dict[CallPlace, int] = {}
        self._occurrences: dict[str, int] = {}
        self._spare = path.with_name(path.name + ".spare")
        try:
            if read_only:
                self._file = path.open("rb", buffering=0)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                # Unbuffered: a record is one write, so that an interrupt leaves no half of it in a
                # buffer and what was answered is in the file before the next call is made.
                self._file = path.open("a+b", buffering=0)
            self._end = self._read_existing()
        except OSError as e:
            raise self._no_access(e) from None

    def ask(self, digest: str) -> CallPlace:
        """The place of the next request with this digest, in the order in which they are asked."""
        occurrence = self._occurrences.get(digest, 0)
        self._occurrences[digest] = occurrence + 1
        place = (digest, occurrence)
        self._positions[place] = len(self._positions)
        return place

    def number(self, place: CallPlace) -> int:
        """The line, from 0, on which this request stands once `finish` has been called."""
        return self._lines[place] if self._read_only else self._positions[place]

    def totals_of(self, asked: Asked) -> Totals:
        """Sums over the calls of one model alone; they grow with the transcript."""
        return self._totals_of.setdefault(asked, Totals())

    @property
    def totals_by(self) -> Mapping[Asked, Totals]:
        """`totals_of` every model that was asked, with its endpoint."""
        return self._totals_of

    def order(self, place: CallPlace) -> int:
        """How many requests were asked before this one."""
        return self._positions[place]

    def was_asked(self, place: CallPlace) -> bool:
        return place in self._positions

    def is_answered(self, place: CallPlace) -> bool:
        return place in self._answered

    def answered(self) -> Iterable[CallPlace]:
        """The places of the answered calls."""
        return self._answered.keys()

    def records(self) -> Iterator[tuple[int, CallRecord]]:
        """Every record with its line, from 0."""
        for line in range(len(self._spans)):
            yield line, self.record(line)

    def record(self, line: int) -> CallRecord:
        """The record on this line, from 0."""
        return self._read(*self._spans[line][1:])

    def find(self, place: CallPlace) -> CallRecord | None:
        """The answered call at this place, or None when it has yet to be made."""
        span = self._answered.get(place)
        return None if span is None else self._read(*span)

    def reserve(self, calls: int) -> None:
        """Keep room for the records of so many calls until `close`: those that are in flight when the
        disk is full are paid for.

        Raises:
            HarnessError: there is no room for them.
        """
        try:
            self._spare.write_bytes(bytes(calls * CALL_ROOM))
        except OSError as e:
            self._give_room()
            if e.errno in DISK_FULL:
                raise self._no_access(e) from None

    def append(self, record: CallRecord) -> None:
        """Write one call's record to the end of the file.

        Raises:
            HarnessError: the disk is full or the file cannot be written; the file then ends with
                the last whole record, which is this one where room was kept for it.
        """
        line = json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"
        failure: OSError | None = None
        try:
            self._write(line)
        except OSError as e:
            failure = e
            if e.errno not in DISK_FULL or not self._give_room():
                raise self._no_access(e) from None
            try:
                self._write(line)
            except OSError:
                raise self._no_access(e) from None
        self._note(record, self._end, len(line))
        self._end += len(line)
        if failure is not None:
            raise self._no_access(failure)

    def finish(self) -> None:
        """Sort the file by the order in which the calls were asked, and make it durable."""
        self._file.close()
        if self._read_only:
            return
        sorted_path = self.path.with_name(self.path.name + ".sorted")
        try:
            with self.path.open("rb") as source, sorted_path.open("wb") as target:
                # What this try did not ask for, and what failed for good before a later try had an
                # answer, comes last, in the order in which it was written.
                last = len(self._positions)
                in_order = sorted(
                    self._spans,
                    key=lambda span: (
                        self._positions.get(span[0], last)
                        if self._answered.get(span[0]) == span[1:]
                        else last
                    ),
                )
                for _, start, length in in_order:
                    source.seek(start)
                    target.write(source.read(length))
                target.flush()
                os.fsync(target.fileno())
            sorted_path.replace(self.path)
            sync(self.path.parent)
        except OSError as e:
            raise self._no_access(e) from None

    def close(self) -> None:
        """Leave the file as it is; a later try finds every answered call in it."""
        self._file.close()
        if not self._read_only:
            self._give_room()

    def _give_room(self) -> bool:
        """Whether there was any kept."""
        with contextlib.suppress(OSError):
            self._spare.unlink()
            return True
        return False

    def _read_existing(self) -> int:
        self._file.seek(0)
        start = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                is_whole = line.endswith(b"\n")
                record = _parse(line) if is_whole or self._read_only else None
                if record is None:
                    if self._read_only:
                        self._check_cut(number, is_whole, lines)
                    # Only the last line can be one that its writer did not finish.
                    elif lines.readline():
                        raise self._no_record(number)
                    else:
                        os.truncate(self.path, start)
                    break
                self._note(record, start, len(line))
                start += len(line)
        return start

    def _check_cut(self, line: int, is_whole: bool, rest: Iterable[bytes]) -> None:
        """Note a line of no record as cut; raises InputError where it, or the file, is no such."""
        if not self._spans and not any(map(_parse, rest)):
            raise InputError(
                f"{self.path} is not a transcript: no line of it is the record of a call",
                hint="a transcript is the file transcript.jsonl of an artefact; if this is one, "
                "restore it",
            )
        if is_whole:
            raise self._no_record(line)
        self.cut = line

    def _note(self, record: CallRecord, start: int, length: int) -> None:
        place = (record["digest"], record["occurrence"])
        self._spans.append((place, start, length))
        self.totals.add(record)
        request = record.get("request", {})
        self.totals_of((str(request.get("model")), str(request.get("endpoint")))).add(record)
        # An earlier version took a provider's error among the choices for an answer.
        is_error = record["response"].get("choices") and provider_error(record["response"])
        if not record["ok"] or is_error:
            return
        served = record["served_model"]
        if served and served not in self.served_models:
            self.served_models.append(served)
        self.simulated = self.simulated or record["response"].get("simulated") is True
        self._answered[place] = (start, length)
        if self._read_only:
            self._lines[place] = len(self._spans) - 1

    def _read(self, start: int, length: int) -> CallRecord:
        record: CallRecord = json.loads(os.pread(self._file.fileno(), length, start))
        return record

    def _write(self, line: bytes) -> None:
        rest = line
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            os.truncate(self.path, self._end)
            raise

    def _no_record(self, line: int) -> InputError:
        or_delete = "" if self._read_only else ", or delete the line: its call is made again"
        return InputError(
            f"{self.path}:{line}: this line is not a transcript record",
            hint=f"restore the file{or_delete}",
        )

    def _no_access(self, error: OSError) -> HarnessError:
        if self._read_only:
            return InputError(
                f"the transcript {self.path} cannot be read: {error.strerror or error}",
                hint="a replay takes every reply from it: restore it",
            )
        return HarnessError(
            f"the transcript {self.path} cannot be written: {error.strerror or error}",
            hint="make room or correct the permissions, then run the same command again: every "
            "answered call is kept",
        )


def _parse(line: bytes) -> CallRecord | None:
    """The record in a line; None when the line was cut or is something else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if _is_record(record) else None


_TYPES: dict[str, type] = {
    "digest": str,
    "occurrence": int,
    "response": dict,
    "served_model": str,
    "usage": dict,
    "attempts": list,
    "ok": bool,
}


def _is_record(record: Any) -> TypeGuard[CallRecord]:
    """Whether it has what is read of it; a transcript may come from somebody else."""
    # Beside the response's own levels there is the record's. What is deeper parses here and not
    # where it is read again, further down the stack.
    if not isinstance(record, dict) or is_nested_deeper(record, MOST_NESTED + 1):
        return False
    request = record.get("request", {})
    return (
        all(isinstance(record.get(name), kind) for name, kind in _TYPES.items())
        and isinstance(request, dict)
        and isinstance(request.get("body", {}), dict)
        and all(
            isinstance(a, dict) and isinstance(a.get("outcome"), str) for a in record["attempts"]
        )
        and _is_response(record["response"].get("choices"))
    )


def _is_response(choices: Any) -> bool:
    """Of a response that has choices: whether its first one can be read."""
    if not choices:
        return True
    first = choices[0] if isinstance(choices, list) else None
    return isinstance(first, dict) and ("text" in first or isinstance(first.get("message"), dict))
