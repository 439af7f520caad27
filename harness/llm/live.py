"""Calls that are answered at once, each with its retries."""

import asyncio
import contextlib
import json
import time
from datetime import UTC, datetime

import aiohttp
import httpx2

from harness.errors import HarnessError
from harness.llm.budget import Amount
from harness.llm.calls import PATHS, Connection, PlacedCall
from harness.llm.connect import NO_KEY
from harness.llm.faults import (
    CONNECTION_FAULTS,
    PromptRefused,
    Transient,
    fault_of_connection,
    fault_of_reply,
    fault_of_status,
    gave_up,
    with_retries,
)
from harness.llm.record import Attempt
from harness.llm.reply import BrokenReply, Response, parse_response
from harness.llm.secrets import redact
from harness.llm.totals import INTERRUPTED, TIMEOUT, UNUSABLE

DRAIN_LOOK_S = 0.02
CONNECT_SHARE = 0.9
"""Of timeout_s. A call that finds no connection for so long was not sent, and is known not to be."""


class LiveCalls:
    """Makes one client's calls, no more of them at once than the endpoint allows."""

    def __init__(self, connection: Connection) -> None:
        self._line = connection
        self.in_flight = 0
        self._stopping = False
        self._slots = asyncio.Semaphore(connection.endpoint.concurrency)
        seconds = connection.endpoint.timeout_s
        self._timeout = httpx2.Timeout(seconds, connect=CONNECT_SHARE * seconds)
        self._urls = {kind: connection.url.rstrip("/") + path for kind, path in PATHS.items()}
        self._headers = {
            "Authorization": f"Bearer {connection.key or NO_KEY}",
            "Content-Type": "application/json",
        }

    async def answer(self, call: PlacedCall) -> Response:
        """The response to a call, which is in the transcript by then.

        Raises:
            HarnessError: as Client.gather does; the failure is recorded.
        """
        budget = self._line.budget
        async with self._slots:
            reserved = await budget.reserve(call.body)
            try:
                return await self._call(call, reserved)
            finally:
                await budget.release(reserved)

    async def drain(self, seconds: float) -> None:
        """Begin no attempt any more, and wait for those in flight, but no longer than `seconds`.

        What would begin one waits to be cancelled.
        """
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.in_flight:
                    await asyncio.sleep(DRAIN_LOOK_S)

    async def _call(self, call: PlacedCall, reserved: Amount) -> Response:
        line = self._line
        attempts: list[Attempt] = []
        started, clock = datetime.now(UTC), time.monotonic()
        response: Response = {}
        failure: HarnessError | None = None

        def note_wait(seconds: float) -> None:
            attempts[-1]["waited"] = round(seconds, 3)

        try:
            response = await with_retries(
                lambda: self._attempt(call, attempts, reserved),
                line.endpoint.max_attempts,
                note_wait,
            )
        except PromptRefused as refusal:
            response = refusal.response
        except Transient as e:
            failure = gave_up(e, len(attempts), line)
        except HarnessError as e:
            failure = e
        except (asyncio.CancelledError, KeyboardInterrupt):
            if attempts:
                stopped = HarnessError("the call was stopped before its answer came")
                seconds = time.monotonic() - clock
                line.record(call, {}, attempts, reserved, started, seconds, stopped)
            raise
        seconds = time.monotonic() - clock
        line.record(call, response, attempts, reserved, started, seconds, failure)
        if failure is not None:
            raise failure
        return response

    async def _attempt(
        self, call: PlacedCall, attempts: list[Attempt], reserved: Amount
    ) -> Response:
        line = self._line
        if self._stopping:
            await asyncio.Event().wait()
        clock = time.monotonic()
        note: Attempt = {"outcome": INTERRUPTED}
        attempts.append(note)
        self.in_flight += 1
        try:
            async with asyncio.timeout(line.endpoint.timeout_s):
                http = await line.http.post(
                    self._urls[call.kind],
                    # Escaped: texts of models can hold half a surrogate pair, which UTF-8 cannot.
                    content=json.dumps(line.sent(call.body), separators=(",", ":")),
                    headers=self._headers,
                    timeout=self._timeout,
                )
            note["outcome"] = str(http.status_code)
            text = redact(http.text, line.key)
            if not http.is_success:
                raise fault_of_status(http.status_code, http.headers, text, line, call.body)
            return parse_response(text, call.kind)
        except BrokenReply as e:
            note["outcome"] += f"{UNUSABLE}{e}"
            line.budget.note_unusable(reserved)
            raise fault_of_reply(e, note["outcome"], line, call.body) from None
        except CONNECTION_FAULTS as e:
            fault = fault_of_connection(e)
            if isinstance(e.__cause__, aiohttp.ConnectionTimeoutError):
                fault = Transient("no connection (timeout)")
            note["outcome"] = str(fault)
            if note["outcome"] == TIMEOUT:
                line.budget.note_unusable(reserved)
            raise fault from None
        except (asyncio.CancelledError, KeyboardInterrupt):
            with contextlib.suppress(HarnessError):
                line.budget.note_unusable(reserved)
            raise
        finally:
            self.in_flight -= 1
            note["seconds"] = round(time.monotonic() - clock, 3)
