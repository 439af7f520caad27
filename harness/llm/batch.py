"""Calls through OpenAI's Batch API: slower, cheaper, and into the same transcript as live ones.

A batch's id is written down before it is waited for: a stage that was stopped finds the batch again
and waits on, and nothing is paid for twice. Requests that a batch left without an answer go into
another one.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, TypedDict

from harness.artefact import events
from harness.artefact.events import Progress
from harness.errors import HarnessError, InputError
from harness.llm.batch_api import Absent, BatchApi, BatchState, Unlisted
from harness.llm.budget import Amount
from harness.llm.calls import PATHS, Connection, PlacedCall
from harness.llm.faults import (
    NO_CREDIT,
    PromptRefused,
    Transient,
    fault_of_reply,
    fault_of_status,
    gave_up,
    with_retries,
)
from harness.llm.ledger import Ledger, request_id
from harness.llm.record import Attempt
from harness.llm.reply import BrokenReply, Response, check_response
from harness.llm.secrets import redact
from harness.llm.totals import UNUSABLE, unusable_attempts

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
"""Of one batch (OpenAI's limits)."""
SMALLEST_ROUND = 0.1
"""Share of the calls left. A budget that covers no more of them is not worth another day's batch."""
SIMULATED_POLL_S = 0.2
"""At most; a simulated server has no queue."""
ENDED = ("completed", "failed", "expired", "cancelled")
TOO_MUCH_AT_ONCE = "token_limit_exceeded"
"""Error code of a batch that would pass what an account may have in flight."""

OnAnswer = Callable[[int, Response], None]
"""Told of each response: (which of the calls, response)."""


class BatchResult(TypedDict, total=False):
    """A line of a result file, as far as it is read; nothing in it is sure."""

    custom_id: Any
    response: Any
    error: Any


@dataclass
class _Pending:
    """A call that has no answer yet. reserved: of the budget, once it is sent. held: reserved without
    a look at the limits, as an earlier try had sent it."""

    index: int
    call: PlacedCall
    reserved: Amount | None = None
    held: bool = False
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def id(self) -> str:
        return request_id(self.call.place)


class BatchCalls:
    """Gets one round of calls, all of one kind, answered by batches."""

    def __init__(self, connection: Connection, ledger: Ledger, on_answer: OnAnswer) -> None:
        self._line, self._ledger, self._on_answer = connection, ledger, on_answer
        self._api = BatchApi(connection)
        self._todo: deque[_Pending] = deque()
        self._flights: dict[str, dict[str, _Pending]] = {}
        self._most_requests = MOST_REQUESTS
        self._full = False
        self._sent = self._answered = 0

    async def answer(self, numbered_calls: Iterable[tuple[int, PlacedCall]]) -> None:
        """Have every one of these calls answered and recorded.

        Raises:
            InputError: the server has no Batch API, or does not accept a request or the key.
            HarnessError: a call had no answer in the endpoint's `max_attempts` batches, the budget
                is used up, or the batch was cancelled. What was answered is recorded.
        """
        calls = [_Pending(index, call) for index, call in numbered_calls]
        self._todo.extend(calls)
        self._progress = Progress("batch", len(calls), "requests")
        try:
            await self._find_again()
            while self._todo or self._flights:
                await self._send_what_fits()
                if not await self._look():
                    await asyncio.sleep(self._pause_s())
        except Unlisted as e:
            raise self._unlisted(e.file) from None
        finally:
            for pending in calls:
                self._record_stopped(pending)
            for pending in calls:
                await self._release(pending)

    def _pause_s(self) -> float:
        endpoint = self._line.endpoint
        if endpoint.simulated is None:
            return endpoint.batch_poll_s
        return min(endpoint.batch_poll_s, SIMULATED_POLL_S)

    async def _find_again(self) -> None:
        """Take up the batches in flight from an earlier try."""
        unanswered = {pending.id: pending for pending in self._todo}
        for file, requests in list(self._ledger.uploads.items()):
            if unanswered.keys().isdisjoint(requests):
                continue
            # The try was stopped somewhere between these two.
            batch = await self._api.find(file)
            if batch is not None:
                self._ledger.note_batch(batch, file, _now())
            else:
                self._ledger.note_upload(file, [])
        for name, pending in unanswered.items():
            if batch := self._ledger.in_flight.get(name):
                pending.reserved = self._line.budget.hold(pending.call.body)
                pending.held = True
                self._flights.setdefault(batch, {})[name] = pending
        self._todo = deque(p for p in self._todo if p.reserved is None)
        if self._line.endpoint.simulated is None:
            for batch in self._flights:
                events.note(f"batch {batch}, which an earlier try sent, is awaited")

    async def _send_what_fits(self) -> None:
        while self._todo and not self._full:
            chunk, lines = await self._next_chunk()
            if not chunk:
                return
            file = await self._api.upload(b"".join(lines))
            self._ledger.note_upload(file, [pending.id for pending in chunk])
            try:
                batch = await self._api.create(file, chunk[0].call.kind)
            except InputError:
                self._ledger.note_upload(file, [])  # refused, so that no batch is under way
                raise
            self._ledger.note_batch(batch, file, _now())
            self._flights[batch] = {pending.id: pending for pending in chunk}
            self._sent += len(chunk)
            events.note(
                f"batch {batch} with {len(chunk)} requests is awaited; it is safe to stop: the "
                "same command goes on waiting for it"
            )

    async def _next_chunk(self) -> tuple[list[_Pending], list[bytes]]:
        """The next batch: as many as the API and the budget allow, none while it has to wait."""
        chunk: list[_Pending] = []
        lines: list[bytes] = []
        size = 0
        while self._todo and len(chunk) < self._most_requests:
            pending = self._todo[0]
            line = self._request_line(pending)
            if chunk and size + len(line) > MOST_BYTES:
                break
            if not await self._reserve(pending, first=not chunk):
                left = len(chunk) + len(self._todo)
                if self._line.budget.is_first_unlimited(pending.call.body):
                    self._note_first(left)
                elif self._sent and not self._flights and len(chunk) < SMALLEST_ROUND * left:
                    raise self._line.budget.too_small(pending.call.body, len(chunk), left)
                break
            self._todo.popleft()
            chunk.append(pending)
            lines.append(line)
            size += len(line)
        return chunk, lines

    def _note_first(self, left: int) -> None:
        if not self._flights:
            events.note(
                f"one of {left} requests goes first, in a batch of its own: they name no max_tokens, "
                "and the budget has to know how long a reply may be"
            )

    async def _reserve(self, pending: _Pending, first: bool) -> bool:
        budget, body = self._line.budget, pending.call.body
        if pending.reserved is None:
            pending.reserved = budget.reserve_now(body)
        if pending.reserved is None and first and not self._flights:
            pending.reserved = await budget.reserve(body)
        return pending.reserved is not None

    def _request_line(self, pending: _Pending) -> bytes:
        request = {
            "custom_id": pending.id,
            "method": "POST",
            "url": f"/v1{PATHS[pending.call.kind]}",
            "body": self._line.sent(pending.call.body),
        }
        return json.dumps(request, separators=(",", ":")).encode("ascii") + b"\n"

    async def _look(self) -> bool:
        """See how the batches stand and take in those that have ended; whether any had."""
        before, done = len(self._flights), self._answered
        for batch in list(self._flights):
            try:
                state = await self._api.retrieve(batch)
            except Absent:
                await self._lost(batch)
                continue
            if state.get("status") in ENDED:
                await self._take_in(batch, state)
                done = self._answered
            else:
                done += _count_done(state)
        if self._flights:
            self._progress.show(min(done, self._progress.total - 1), batches=len(self._flights))
        return len(self._flights) < before

    async def _lost(self, batch: str) -> None:
        """The server knows a batch no more. A simulated one that was started anew never does."""
        if self._line.endpoint.simulated is None:
            raise InputError(
                f"{self._line.url} does not know the batch {batch}, which an earlier try sent",
                hint="use a key of the same account and project; or delete "
                f"{self._ledger.path}: its requests are then asked, and paid for, again",
            )
        events.note(
            f"batch {batch}, which an earlier try sent, is lost: its simulated server ended with "
            "that try. Its requests are sent again"
        )
        await self._send_again(batch, list(self._flights.pop(batch).values()))

    def _unlisted(self, file: str) -> HarnessError:
        return HarnessError(
            f"a batch of the uploaded file {file} may be under way at {self._line.url}: the request "
            "for it had no answer, or was made by a try that was stopped, and the server does not "
            "list its batches",
            hint="see there whether one is. To send its requests, and pay for them, in any case, "
            f"delete the line that names {file} from {self._ledger.path}",
        )

    async def _take_in(self, batch: str, state: BatchState) -> None:
        """Record what an ended batch answered, and see to the rest."""
        status = state["status"]
        self._full = False
        if status == "failed":
            await self._see_to_failed(batch, state)
            return
        flight = self._flights[batch]
        again: list[_Pending] = []
        failures: list[HarnessError] = []
        files = [state.get(name) for name in ("output_file_id", "error_file_id")]
        if status == "completed" and files == [None, None]:
            raise self._unreadable(batch, "no file of them is named")
        for file in files:
            if isinstance(file, str):
                with await self._results(batch, file) as results:
                    for result in _read_results(results, self._line.key):
                        pending = flight.pop(str(result.get("custom_id")), None)
                        if pending is not None:
                            await self._settle(pending, batch, result, again, failures)
        # What a completed batch was asked was served, though its result got lost.
        lost = f"completed{UNUSABLE}there is no result"
        code = lost if status == "completed" else f"no result: batch {status}"
        for pending in list(flight.values()):
            await self._settle(pending, batch, {"error": {"code": code}}, again, failures)
        del self._flights[batch]
        await self._send_again(batch, again)
        if failures:
            # A fault in the set-up explains the others that came with it.
            raise next((e for e in failures if isinstance(e, InputError)), failures[0])
        if status == "cancelled":
            raise HarnessError(
                f"batch {batch} was cancelled at {self._line.url}, with {len(again)} of its requests "
                "unanswered",
                hint="nothing that was answered is lost: the same command sends the rest again",
            )

    async def _results(self, batch: str, file: str) -> IO[bytes]:
        """A result file, with at least one result in it.

        Raises:
            HarnessError: it cannot be read. The batch stays in the ledger.
        """

        async def once() -> IO[bytes]:
            try:
                data = await self._api.download(file)
            except Absent:
                raise Transient(f"there is no file {file}") from None
            results = _read_results(data, self._line.key)
            if not any(isinstance(result.get("custom_id"), str) for result in results):
                data.close()
                raise Transient(f"no result is in the file {file}")
            return data

        try:
            return await with_retries(once, self._line.endpoint.max_attempts)
        except Transient as e:
            raise self._unreadable(batch, str(e)) from None

    def _unreadable(self, batch: str, why: str) -> HarnessError:
        return HarnessError(
            f"the results of batch {batch} cannot be read from {self._line.url}: {why}",
            hint="its requests were served, and most likely paid for: run the same command again, "
            "which tries to read them again. If they are lost, delete "
            f"{self._ledger.path}: they are then asked, and paid for, again",
        )

    async def _settle(
        self,
        pending: _Pending,
        batch: str,
        result: BatchResult,
        again: list[_Pending],
        failures: list[HarnessError],
    ) -> None:
        """Record one request's result, or put it among those to be sent again."""
        line = self._line
        started = _time(self._ledger.started[batch])
        seconds = max((datetime.now(UTC) - started).total_seconds(), 0.0)
        note: Attempt = {"outcome": "", "batch": batch, "seconds": round(seconds, 3)}
        pending.attempts.append(note)
        response: Response = {}
        failure: HarnessError | None = None
        try:
            response = self._response_in(result, pending, note)
        except PromptRefused as refusal:
            response = refusal.response
        except Transient as e:
            if len(pending.attempts) < line.endpoint.max_attempts:
                again.append(pending)
                return
            failure = gave_up(e, len(pending.attempts), line)
        except HarnessError as e:
            failure = e
        assert pending.reserved is not None
        line.record(
            pending.call,
            response,
            pending.attempts,
            pending.reserved,
            started,
            seconds,
            failure,
            batch,
        )
        pending.attempts = []
        await self._release(pending)
        if failure is not None:
            failures.append(failure)
            self._ledger.note_unanswered(batch, [pending.id])
            return
        self._answered += 1
        self._on_answer(pending.index, response)

    def _record_stopped(self, pending: _Pending) -> None:
        """Have what a call that is not to be answered by this try took counted by the next one."""
        if not unusable_attempts(pending.attempts):
            return
        batch = pending.attempts[-1]["batch"]
        started = _time(self._ledger.started[batch])
        stopped = HarnessError("the call was stopped before it had an answer")
        reserved = pending.reserved or Amount()
        seconds = pending.attempts[-1]["seconds"]
        self._line.record(
            pending.call, {}, pending.attempts, reserved, started, seconds, stopped, batch
        )
        pending.attempts = []

    def _response_in(self, result: BatchResult, pending: _Pending, note: Attempt) -> Response:
        """The response in a line of a result file; raises as an attempt at a live call does."""
        http = result.get("response")
        if not isinstance(http, dict) or type(http.get("status_code")) is not int:
            error = result.get("error")
            code = error.get("code") if isinstance(error, dict) else None
            note["outcome"] = str(code or "no response")
            if unusable_attempts([note]):
                self._note_unusable(pending)
            raise Transient(note["outcome"])
        status, body = http["status_code"], http.get("body")
        note["outcome"] = str(status)
        text = body if isinstance(body, str) else json.dumps(body)
        if status != 200:
            raise fault_of_status(status, {}, text, self._line, pending.call.body)
        try:
            return check_response(body, pending.call.kind, text)
        except BrokenReply as e:
            note["outcome"] += f"{UNUSABLE}{e}"
            self._note_unusable(pending)
            raise fault_of_reply(e, note["outcome"], self._line, pending.call.body) from None

    def _note_unusable(self, pending: _Pending) -> None:
        assert pending.reserved is not None
        self._line.budget.note_unusable(pending.reserved)

    async def _see_to_failed(self, batch: str, state: BatchState) -> None:
        """A batch that the server did not begin: nothing of it was answered or paid for."""
        flight = list(self._flights.pop(batch).values())
        errors = _errors_of(state)
        codes = {str(error.get("code")) for error in errors}
        await self._send_again(batch, flight)
        if TOO_MUCH_AT_ONCE in codes and (self._flights or len(flight) > 1):
            if self._flights:
                self._full = True
            else:
                self._most_requests = len(flight) // 2
            events.note(
                f"batch {batch} was too much for the account at once: "
                + ("it waits for another one" if self._full else "smaller ones are sent")
            )
            return
        first = errors[0] if errors else {}
        message = str(first.get("message") or first.get("code") or "no reason given")
        if isinstance(first.get("line"), int):
            message += f", line {first['line']}"
        if codes & {*NO_CREDIT, TOO_MUCH_AT_ONCE}:
            raise HarnessError(
                f"the account at {self._line.url} cannot take batch {batch} ({message})",
                hint="see to its credit and limits and run the same command again: no answered "
                "call is lost",
            )
        raise InputError(
            f"{self._line.url} does not accept batch {batch} for {self._line.endpoint.model} "
            f"({message})",
            hint="correct the model or the sampling parameters in the spec, or set mode: live",
        )

    async def _send_again(self, batch: str, calls: list[_Pending]) -> None:
        if not calls:
            return
        self._ledger.note_unanswered(batch, [pending.id for pending in calls])
        for pending in reversed(calls):
            if pending.held:
                await self._release(pending)
                pending.held = False
                self._todo.append(pending)
            else:
                # What has its part of the budget already goes first.
                self._todo.appendleft(pending)

    async def _release(self, pending: _Pending) -> None:
        if pending.reserved is not None:
            reserved, pending.reserved = pending.reserved, None
            await self._line.budget.release(reserved)


def _read_results(file: IO[bytes], key: str) -> Iterator[BatchResult]:
    """The objects in a result file, without secrets; a line that is none is passed over."""
    file.seek(0)
    for line in file:
        try:
            result: BatchResult = json.loads(redact(line.decode("utf-8", "replace"), key))
        except (ValueError, RecursionError):
            continue
        if isinstance(result, dict):
            yield result


def _errors_of(state: BatchState) -> list[dict[str, Any]]:
    errors = state.get("errors")
    data = errors.get("data") if isinstance(errors, dict) else None
    return [e for e in data if isinstance(e, dict)] if isinstance(data, list) else []


def _count_done(state: BatchState) -> int:
    counts = state.get("request_counts")
    if not isinstance(counts, dict):
        return 0
    figures = [counts.get(name) for name in ("completed", "failed")]
    return sum(n for n in figures if type(n) is int)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _time(written: str) -> datetime:
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        return datetime.now(UTC)
