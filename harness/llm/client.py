"""The client for teacher and judge: every call retried, limited, counted and in the transcript."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import httpx2
import openai
import tenacity

from harness.errors import HarnessError, InputError
from harness.llm.budget import Budget
from harness.llm.connect import connect
from harness.llm.faults import (
    PromptRefused,
    Transient,
    fault_of_connection,
    fault_of_status,
    gave_up,
    seconds_to_wait,
)
from harness.llm.reply import BrokenReply, Kind, Reply, parse_response, reply_from
from harness.llm.secrets import read_key, redact
from harness.llm.transcript import UNUSABLE, Place, Transcript, digest_of, unusable_attempts
from harness.spec.models import Endpoint

OPENAI_URL = "https://api.openai.com/v1"
PATHS: dict[Kind, str] = {"chat": "/chat/completions", "completion": "/completions"}

OnDone = Callable[[int, Reply], None]


@dataclass(frozen=True)
class _Asked:
    """A call whose place in the transcript is settled, whether or not it has been made."""

    kind: Kind
    body: Mapping[str, Any]
    place: Place


class Client:
    """An endpoint's calls, as an async context manager.

    A call that the transcript already holds is not made again. When the block ends without an
    error, the transcript is put in the order of asking and made durable.

    Raises, on entering:
        InputError: no key where the endpoint names one, or a base URL that is none.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transcript: Path,
        budget: Mapping[str, int | None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.transcript = Transcript(transcript)
        self._budget = Budget(budget, self.transcript)
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._close = contextlib.AsyncExitStack()
        self._key = ""
        self._url = ""

    async def __aenter__(self) -> Self:
        try:
            self._url = self._start_server() or self.endpoint.base_url or OPENAI_URL
            self._key = self._find_key()
            sdk = connect(self._url, self._key, self.endpoint.timeout_s)
            self._sdk = await self._close.enter_async_context(sdk)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._leave()
        if error is None:
            self.transcript.finish()

    async def chat(self, body: Mapping[str, Any]) -> Reply:
        """One chat completion. `body` is the request's JSON without `model`.

        Raises:
            InputError: the endpoint, its key or the request is not accepted.
            HarnessError: no answer after the endpoint's `max_attempts`, or the budget is used up.
        """
        return await self._answer(self._ask("chat", body))

    async def complete(self, body: Mapping[str, Any]) -> Reply:
        """One text completion; otherwise as `chat`."""
        return await self._answer(self._ask("completion", body))

    async def gather(
        self,
        bodies: Sequence[Mapping[str, Any]],
        on_done: OnDone | None = None,
        kind: Kind = "chat",
    ) -> list[Reply]:
        """The replies to `bodies`, in their order; `on_done(index, reply)` is told of each.

        When a call fails, no further one is begun, those in flight are awaited and recorded, and
        the failure is raised as `chat` would.
        """
        asked = [self._ask(kind, body) for body in bodies]
        replies: dict[int, Reply] = {}
        failures: list[HarnessError] = []
        pending = iter(range(len(asked)))

        async def work() -> None:
            for index in pending:
                if failures:
                    return
                try:
                    reply = await self._answer(asked[index])
                except HarnessError as e:
                    failures.append(e)
                    return
                replies[index] = reply
                if on_done is not None:
                    on_done(index, reply)

        await _run_all([work() for _ in range(min(self.endpoint.concurrency, len(asked)))])
        if failures:
            # A fault in the set-up explains the others that came with it.
            raise next((e for e in failures if isinstance(e, InputError)), failures[0])
        return [replies[index] for index in range(len(asked))]

    @property
    def simulated(self) -> bool:
        """Whether any reply came, or would come, from a simulated model."""
        return self.endpoint.simulated is not None or self.transcript.simulated

    @property
    def served_models(self) -> list[str]:
        """The models that the replies say they came from, sorted."""
        return sorted(self.transcript.served_models)

    def cost(self) -> dict[str, float]:
        """What the transcript's calls took, earlier tries of the stage included.

        calls: the answered ones and every served attempt whose reply could not be used.
        """
        held = self.transcript
        return {
            "calls": held.calls,
            "attempts": held.attempts,
            "prompt_tokens": held.prompt_tokens,
            "completion_tokens": held.completion_tokens,
        }

    def _start_server(self) -> str | None:
        if self.endpoint.simulated is None:
            return None
        from harness.sim import server

        simulated = server.start(self.endpoint.simulated)
        self._close.callback(simulated.close)
        return str(simulated.base_url)

    def _find_key(self) -> str:
        if self.endpoint.api_key_env is None or self.endpoint.simulated is not None:
            return ""
        return read_key(self.endpoint.api_key_env, f"{self.endpoint.model} at {self._url}")

    async def _leave(self) -> None:
        try:
            await self._close.aclose()
        finally:
            self.transcript.close()

    def _ask(self, kind: Kind, body: Mapping[str, Any]) -> _Asked:
        return _Asked(kind, body, self.transcript.ask(digest_of(self._request(kind, body))))

    def _request(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
        server = self.endpoint.base_url or OPENAI_URL
        if self.endpoint.simulated is not None:
            # Its port is another one each time.
            server = "simulated:" + digest_of(self.endpoint.simulated.model_dump(mode="json"))
        return {"kind": kind, "model": self.endpoint.model, "body": dict(body), "endpoint": server}

    async def _answer(self, asked: _Asked) -> Reply:
        found = self.transcript.find(asked.place)
        if found is not None:
            return reply_from(found["response"], reused=True)
        async with self._slots:
            reserved = await self._budget.reserve(asked.body)
            try:
                response = await self._call(asked)
            finally:
                await self._budget.release(reserved)
        return reply_from(response, reused=False)

    async def _call(self, asked: _Asked) -> dict[str, Any]:
        """Make the call, with retries, and record how it went."""
        attempts: list[dict[str, Any]] = []
        started, clock = datetime.now(UTC), time.monotonic()
        response: dict[str, Any] = {}
        failure: HarnessError | None = None
        try:
            response = await self._try(asked, attempts)
        except PromptRefused as refusal:
            response = refusal.response
        except Transient as e:
            failure = gave_up(e, len(attempts), self.endpoint, self._url)
        except HarnessError as e:
            failure = e
        reply = reply_from(response, reused=False)
        record = {
            "digest": asked.place[0],
            "occurrence": asked.place[1],
            "request": self._request(asked.kind, asked.body),
            "response": response,
            "served_model": reply.served_model,
            "usage": reply.usage,
            "attempts": attempts,
            "started": started.isoformat(timespec="milliseconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "ok": failure is None,
        }
        self._budget.note_recorded(unusable_attempts(attempts))
        if failure is not None:
            self.transcript.append(record | {"error": failure.message})
            raise failure
        self.transcript.append(record)
        return response

    async def _try(self, asked: _Asked, attempts: list[dict[str, Any]]) -> dict[str, Any]:
        def note_wait(state: tenacity.RetryCallState) -> None:
            attempts[-1]["waited"] = round(state.upcoming_sleep, 3)

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.endpoint.max_attempts),
            wait=seconds_to_wait,
            retry=tenacity.retry_if_exception_type(Transient),
            before_sleep=note_wait,
            reraise=True,
        )
        result: dict[str, Any] = await retrying(self._attempt, asked, attempts)
        return result

    async def _attempt(self, asked: _Asked, attempts: list[dict[str, Any]]) -> dict[str, Any]:
        clock = time.monotonic()
        note: dict[str, Any] = {"outcome": "interrupted"}
        attempts.append(note)
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                http = await self._sdk.post(
                    PATHS[asked.kind],
                    cast_to=httpx2.Response,
                    body={"model": self.endpoint.model, **asked.body},
                )
            note["outcome"] = str(http.status_code)
            return parse_response(redact(http.text, self._key), asked.kind)
        except BrokenReply as e:
            note["outcome"] = f"{note['outcome']}{UNUSABLE}{e}"
            self._budget.note_unusable()
            raise Transient(note["outcome"]) from None
        except openai.APIStatusError as e:
            note["outcome"] = str(e.status_code)
            body = redact(e.response.text, self._key)
            raise fault_of_status(e, body, self.endpoint, self._url) from None
        # The SDK lets a few of its transport's own exceptions through.
        except (
            TimeoutError,
            openai.APIConnectionError,
            aiohttp.ClientError,
            httpx2.HTTPError,
        ) as e:
            fault = fault_of_connection(e)
            note["outcome"] = str(fault)
            raise fault from None
        finally:
            note["seconds"] = round(time.monotonic() - clock, 3)


async def _run_all(workers: list[Coroutine[Any, Any, None]]) -> None:
    """Run the workers to their ends; on an interrupt stop them all before it goes on."""
    tasks = [asyncio.create_task(worker) for worker in workers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
