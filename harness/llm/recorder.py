"""A server on loopback through which another package's calls pass into the harness's client.

The package is given the recorder's address and a key that means nothing. Its calls thereby get the
client's retries, transcript, budget and resumption, and the real key stays with the client.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from harness.errors import HarnessError, InputError
from harness.llm.client import Client
from harness.llm.reply import REFUSED, Kind, Reply
from harness.spec.base import Endpoint

DUMMY_KEY = "recorder"
LARGEST_REQUEST = 64 * 2**20

SKIP = "Please try again with a different prompt."
"""In an error's text this tells alpaca-eval to go on without this prompt's judgement."""


class Recorder:
    """Runs a client and its server in a background thread, as a context manager.

    base_url: where the package finds it. error: the first failure of a call; from then on every
    request is refused at once, and whoever runs the package raises it when the package has ended.
    on_call is told of each answered call, in the background thread.

    Raises:
        InputError: the endpoint's mode is batch; and, on entering, what Client raises.
    """

    base_url: str
    client: Client

    def __init__(
        self,
        endpoint: Endpoint,
        transcript: Path,
        budget: Mapping[str, float | None] | None = None,
        on_call: Callable[[Reply], None] | None = None,
        price: Mapping[str, Any] | None = None,
    ) -> None:
        if endpoint.mode == "batch":
            raise InputError(
                f"mode: batch does not go with {endpoint.model} here: a package makes these calls "
                "one after the other, and each would wait for a batch of its own",
                hint="set mode: live for this endpoint in the spec",
            )
        self.error: HarnessError | None = None
        self._settings = (endpoint, transcript, budget, price)
        self._on_call = on_call
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._fault is not None:
            self._thread.join()
            raise self._fault
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if error is None and self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as e:
            self._fault = e
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with Client(*self._settings) as self.client:
            app = web.Application(client_max_size=LARGEST_REQUEST)
            app.router.add_post("/v1/chat/completions", self._chat)
            app.router.add_post("/v1/completions", self._complete)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
                self._ready.set()
                await self._stop.wait()
            finally:
                await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.Response:
        return await self._pass_on(request, "chat")

    async def _complete(self, request: web.Request) -> web.Response:
        return await self._pass_on(request, "completion")

    async def _pass_on(self, request: web.Request, kind: Kind) -> web.Response:
        try:
            body = self._read(await request.read())
            if self.error is not None:
                return _refuse()
            ask = self.client.chat if kind == "chat" else self.client.complete
            reply = await ask(body)
        except HarnessError as e:
            self.error = self.error or e
            return _refuse()
        if self._on_call is not None:
            self._on_call(reply)
        if reply.finish_reason == REFUSED:
            return _error(f"The prompt was declined. {SKIP}", "declined")
        # The package takes a usage block for granted, which not every server sends.
        return web.json_response({"usage": _NO_USAGE, **reply.raw})

    def _read(self, data: bytes) -> dict[str, Any]:
        try:
            body = json.loads(data)
            model = body.pop("model")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise HarnessError("the package sent a request that is not an OpenAI one") from None
        wanted = self.client.endpoint.model
        if model != wanted:
            raise HarnessError(f"the package asked for the model {model!r} in place of {wanted!r}")
        if body.get("stream"):
            raise HarnessError("the package asked for a streamed reply, which is not recorded")
        result: dict[str, Any] = body
        return result


_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def _refuse() -> web.Response:
    # The cause's own words stay out of it: packages look for phrases in an error's text that make
    # them ask again.
    return _error("The harness ended this run; its own message says why.", "ended")


def _error(message: str, code: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=400)
