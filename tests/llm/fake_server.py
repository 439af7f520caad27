"""A scripted OpenAI-compatible server in a background thread, and an endpoint that points at it."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from harness.llm.client import Client
from harness.llm.reply import Reply
from harness.spec.base import Endpoint

Answer = web.Response | str | None
"""A response; a text to answer with; or None to drop the connection."""
Script = Callable[[dict[str, Any], int], Answer]
"""(request body, how often the same body came before) -> answer."""


def completion(text: str, **extra: Any) -> dict[str, Any]:
    """A chat completion's JSON with `text`, 10 prompt tokens and 5 completion tokens."""
    choice = {
        "index": 0,
        "finish_reason": extra.pop("finish_reason", "stop"),
        "message": {"role": "assistant", "content": text},
        "text": text,
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "served-1"} | {
        "choices": [choice],
        "usage": usage,
        **extra,
    }


def failure(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    body = {"error": {"message": message, "type": "t", "param": None, "code": code}}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response(body, status=status, headers=names)


def last_message(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def echo(body: dict[str, Any], seen: int) -> Answer:
    return "re: " + last_message(body)


def call(
    endpoint: Endpoint, transcript: Path, bodies: list[dict[str, Any]], *rest: Any, **settings: Any
) -> tuple[Client, list[Reply]]:
    """A client that has made these calls, and their replies; `rest`, `settings` as Client's."""

    async def run() -> tuple[Client, list[Reply]]:
        async with Client(endpoint, transcript, *rest, **settings) as client:
            return client, await client.gather(bodies)

    return asyncio.run(run())


def reply(text: str, finish_reason: str | None = "stop") -> Reply:
    """One that was read without a call."""
    return Reply(text, finish_reason, "m", {}, {}, False, False)


class FakeServer:
    """requests: bodies in the order of arrival. keys: the Authorization header of each."""

    def __init__(self, script: Script, delay_s: float = 0.0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.in_flight = self.most_in_flight = 0
        self._script, self._delay = script, delay_s
        self._seen: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def endpoint(self, **settings: Any) -> Endpoint:
        return Endpoint(**{"model": "m", "base_url": self.base_url, **settings})

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> "FakeServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        self._add_routes(app)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.05, handler_cancellation=True
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def _add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/{path:.*}", self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        seen = json.dumps(body, sort_keys=True)
        self.requests.append(body)
        self.keys.append(request.headers.get("Authorization"))
        count = self._seen[seen]
        self._seen[seen] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._delay)
            answer = self._script(body, count)
        finally:
            self.in_flight -= 1
        if answer is None:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if isinstance(answer, str):
            return web.json_response(completion(answer))
        return answer


def hang(seconds: float = 30.0) -> web.StreamResponse:
    """A response that comes after `seconds`."""

    class Late(web.Response):
        async def prepare(self, request: web.BaseRequest) -> Any:
            await asyncio.sleep(seconds)
            return await super().prepare(request)

    return Late(text="late")
