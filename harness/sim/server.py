"""An OpenAI-compatible server on loopback that plays the teacher and the judge.

`start` runs it in a background thread; `serve` runs it in the foreground.
"""

import asyncio
import errno
import hashlib
import ipaddress
import json
import re
import signal
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from aiohttp import web

from harness.errors import HarnessError, InputError
from harness.sim.batches import DELAY_S, KINDS, Batches
from harness.sim.grammar import fraction
from harness.sim.refusal import Refused, error
from harness.sim.replies import (
    expand,
    grade,
    judge,
    naive,
    rate,
    rubric,
    self_instruct,
    single_grade,
    tasks,
    teacher,
    weigh,
)
from harness.sim.reply import AnswerPlace, Query, SimulatedReply
from harness.spec.base import Simulated

REPLIES: tuple[SimulatedReply, ...] = (
    judge,
    naive,
    expand,
    rate,
    rubric,
    grade,
    single_grade,
    self_instruct,
    tasks,
    teacher,
)
"""The first that matches a prompt replies to it; the last one matches any."""
RETRY_AFTER_S = 0.05
SLOW_S = 1.0
MAX_BODY_BYTES = 256 * 2**20
"""A batch's file may have 200 MB."""
START_TIMEOUT_S = 10.0
NOT_ASKED = ("model", "max_tokens", "max_completion_tokens", "stop")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_TOKEN = re.compile(r"\s*(?:\w{1,8}|[^\w\s])")


@dataclass(frozen=True)
class _Request:
    """What a request's body asks for."""

    kind: str
    """`chat` or `text`."""
    model: str
    prompts: list[str]
    """One for a chat."""
    sent: str
    """The whole text, for counting tokens."""
    digest: str
    """Identifies what is asked. Neither the model's name nor where to cut changes the reply."""
    stops: list[str]
    most_tokens: int | None
    sampled: int | None
    """The request's own seed, where it asks for a sampled reply."""
    alternatives: int | None
    """How many tokens it asks the log-probabilities of; None: of none."""

    def limit(self, text: str) -> tuple[str, str, int]:
        """The text as `stop` and `max_tokens` leave it, the finish reason, and its tokens' number."""
        for mark in self.stops:
            text = text.partition(mark)[0]
        tokens = _TOKEN.findall(text)
        if self.most_tokens is not None and len(tokens) > self.most_tokens:
            return "".join(tokens[: self.most_tokens]), "length", self.most_tokens
        return text, "stop", len(tokens)


def _read_request(kind: str, body: Any) -> _Request:
    """Raises Refused: nothing that the server can answer."""
    if not isinstance(body, dict):
        raise Refused(400, "the request's body must be a JSON object")
    if not isinstance(body.get("model"), str):
        raise Refused(400, "model must name a model")
    for option in ("stream", "tools", "functions"):
        if body.get(option):
            raise Refused(400, f"the simulated server does not support {option}")
    if body.get("n") not in (None, 1):
        raise Refused(400, "the simulated server gives one choice per request: leave n at 1")
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    if most is not None and (not isinstance(most, int) or most < 1):
        raise Refused(400, "max_tokens must be a positive whole number")
    stop = body.get("stop") or []
    stops = stop if isinstance(stop, list) else [stop]
    if not all(isinstance(mark, str) and mark for mark in stops):
        raise Refused(400, "stop must be a text or a list of texts, none of them empty")
    if kind == "chat":
        prompts, sent = _chat_prompt(body.get("messages"))
    else:
        prompts, sent = _text_prompts(body.get("prompt"))
    asked_for = [kind, {name: value for name, value in body.items() if name not in NOT_ASKED}]
    seed, temperature = body.get("seed"), body.get("temperature")
    is_sampled = isinstance(temperature, int | float) and temperature > 0
    return _Request(
        kind,
        body["model"],
        prompts,
        sent,
        hashlib.sha256(json.dumps(asked_for, sort_keys=True).encode()).hexdigest(),
        stops,
        most,
        seed if is_sampled and isinstance(seed, int) else None,
        body.get("top_logprobs", 0) if body.get("logprobs") else None,
    )


def _content(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        content = "".join(p.get("text", "") for p in content if isinstance(p, dict))
    if not isinstance(content, str):
        raise Refused(400, "each message needs a text as its content")
    return content


def _chat_prompt(messages: Any) -> tuple[list[str], str]:
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages must be a list with at least one message")
    texts = [_content(m) for m in messages]
    users = [t for t, m in zip(texts, messages, strict=True) if m.get("role") == "user"]
    if not users:
        raise Refused(400, "messages must hold one of the role user")
    return [users[-1].strip()], "\n".join(texts)


def _text_prompts(prompt: Any) -> tuple[list[str], str]:
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not all(isinstance(p, str) for p in prompts) or not prompts:
        raise Refused(400, "prompt must be a text or a list of texts")
    return [p.strip() for p in prompts], "\n".join(prompts)


class _App:
    """The server's state: what it has been asked so far."""

    def __init__(self, settings: Simulated, require_key: str | None, batch_delay_s: float) -> None:
        self.settings, self.require_key = settings, require_key
        self.requests = 0
        self._attempts: Counter[str] = Counter()
        self._batches = Batches(self._answer_batched, batch_delay_s)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/v1/models", self._admitted(self.models))
        for path, kind in KINDS.items():
            complete = partial(self._complete, kind=kind)
            app.router.add_post(path, self._admitted(complete, is_call=True))
        batches = self._batches
        for method, path, handler in (
            ("POST", "/v1/files", batches.upload),
            ("GET", "/v1/files/{id}", batches.describe_file),
            ("GET", "/v1/files/{id}/content", batches.content),
            ("POST", "/v1/batches", batches.create),
            ("GET", "/v1/batches", batches.list_all),
            ("GET", "/v1/batches/{id}", batches.retrieve),
            ("POST", "/v1/batches/{id}/cancel", batches.cancel),
        ):
            app.router.add_route(method, path, self._admitted(handler))
        return app

    def _admit(self, request: web.Request) -> None:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.require_key is not None and key != self.require_key:
            raise Refused(401, "the API key is not the right one", "authentication_error")

    def _admitted(self, handler: _Handler, is_call: bool = False) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests += is_call
            try:
                self._admit(request)
                return await handler(request)
            except Refused as e:
                return e.response()

        return handle

    async def models(self, request: web.Request) -> web.StreamResponse:
        model = {"id": "simulated", "object": "model", "created": 0, "owned_by": "harness"}
        return web.json_response({"object": "list", "data": [model], "simulated": True})

    async def _complete(self, request: web.Request, kind: str) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            raise Refused(400, "the request's body is not JSON") from None
        response = await self._respond(kind, body)
        if response is None:
            await asyncio.Event().wait()
            raise AssertionError
        return response

    async def _answer_batched(self, kind: str, body: Any) -> web.Response | None:
        self.requests += 1
        try:
            return await self._respond(kind, body)
        except Refused as e:
            return e.response()

    async def _respond(self, kind: str, body: Any) -> web.Response | None:
        """The answer to a request; None for a request that is to hang."""
        request = _read_request(kind, body)
        fault = self._fault(request.digest)
        if fault == "429":
            retry = {"Retry-After": str(RETRY_AFTER_S)}
            return error(429, "simulated: too many requests", "rate_limit_error", **retry)
        if fault == "500":
            return error(500, "simulated: something broke", "server_error")
        if fault == "html":
            page = "<!doctype html><title>Gateway</title><p>simulated: sign in to go on</p>"
            return web.Response(text=page, content_type="text/html")
        if fault == "hang":
            return None
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        texts = [self._reply(prompt, request, fault) for prompt in request.prompts]
        data = json.dumps(self._envelope(request, texts), ensure_ascii=False).encode()
        if fault == "cut":
            data = data[: len(data) // 2]
        return web.Response(body=data, content_type="application/json")

    def _fault(self, digest: str) -> str | None:
        """How this attempt at the request goes wrong. The faults' shares add up."""
        attempt = self._attempts[digest]
        self._attempts[digest] += 1
        place = fraction("fault", self.settings.seed, digest, attempt)
        for fault, share in sorted(self.settings.faults.items()):
            if place < share:
                return fault
            place -= share
        return None

    def _reply(self, prompt: str, request: _Request, fault: str | None) -> str:
        if fault == "refuse":
            return teacher.REFUSAL
        seed, digest = self.settings.seed, request.digest
        turned = fraction("error", seed, digest, prompt) < self.settings.error_rate
        query = Query(
            prompt, seed, digest, turned, fault == "format", request.sampled, self._favoured(digest)
        )
        return next(kind.reply(query) for kind in REPLIES if kind.matches(prompt))

    def _favoured(self, digest: str) -> AnswerPlace | None:
        """The place that a grading favours, as often as the settings say."""
        bias = self.settings.position_bias
        if fraction("place", self.settings.seed, digest) >= abs(bias):
            return None
        return "first" if bias > 0 else "second"

    def _envelope(self, request: _Request, texts: list[str]) -> dict[str, object]:
        choices, completion_tokens = [], 0
        is_chat, seed, digest = request.kind == "chat", self.settings.seed, request.digest
        for index, text in enumerate(texts):
            text, reason, tokens = request.limit(text)
            completion_tokens += tokens
            message = {"message": {"role": "assistant", "content": text, "refusal": None}}
            part = message if is_chat else {"text": text}
            most = request.alternatives
            weights = weigh.log_probs(text, most, seed, digest) if is_chat else None
            choices.append({"index": index, "finish_reason": reason, "logprobs": weights, **part})
        prompt_tokens = len(_TOKEN.findall(request.sent))
        return {
            "id": f"sim-{digest[:24]}",
            "object": "chat.completion" if is_chat else "text_completion",
            # No clock: the same request gets the same bytes.
            "created": 0,
            "model": f"simulated:{request.model}",
            "choices": choices,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
            "system_fingerprint": f"simulated-{self.settings.seed}",
            "simulated": True,
        }


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server:
    """A running server. Ends with `close()` or at the end of its `with` block."""

    base_url: str
    """Where a client finds it; ends in /v1."""

    def __init__(
        self,
        settings: Simulated,
        host: str,
        port: int,
        require_key: str | None = None,
        batch_delay_s: float = DELAY_S,
    ) -> None:
        self._app = _App(settings, require_key, batch_delay_s)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._fault: OSError | None = None
        self._thread = threading.Thread(
            target=self._run, args=(host, port), name="simulated-server", daemon=True
        )
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S):
            raise HarnessError(f"the simulated server did not start in {START_TIMEOUT_S:.0f} s")
        if self._fault is not None:
            raise _cannot_listen(host, port, self._fault)

    def _run(self, host: str, port: int) -> None:
        try:
            self._loop.run_until_complete(self._listen(host, port))
        finally:
            self._loop.close()

    async def _listen(self, host: str, port: int) -> None:
        # A client that gives up on a hanging request frees its handler; closing waits for none.
        runner = web.AppRunner(
            self._app.application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0.05,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as e:
            self._fault = e
        else:
            address = f"[{host}]" if ":" in host else host
            self.base_url = f"http://{address}:{runner.addresses[0][1]}/v1"
            self._ready.set()
            await self._stop.wait()
        await runner.cleanup()
        self._ready.set()

    @property
    def requests(self) -> int:
        """Calls received so far, faulty and refused ones included."""
        return self._app.requests

    def close(self) -> None:
        """Stop listening and end the thread; open requests are cut off."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _cannot_listen(host: str, port: int, fault: OSError) -> InputError:
    if fault.errno == errno.EADDRINUSE:
        return InputError(
            f"port {port} on {host} is in use by another program",
            "choose another with --port, or --port 0 for any free one",
        )
    reason = fault.strerror or str(fault)
    return InputError(
        f"the simulated server cannot listen on {host}, port {port}: {reason}",
        "choose another with --host and --port; ports below 1024 are often reserved",
    )


def start(
    settings: Simulated,
    host: str = "127.0.0.1",
    port: int = 0,
    require_key: str | None = None,
    allow_remote: bool = False,
    batch_delay_s: float = DELAY_S,
) -> Server:
    """Run the server in a background thread; port 0 takes a free one.

    With `require_key`, every other key is answered 401. A batch takes `batch_delay_s` beside the
    time of its answers. Raises InputError when the address cannot be had, or is not on loopback
    and `allow_remote` is not given.
    """
    if not allow_remote and not _is_loopback(host):
        raise InputError(
            f"{host} is not a loopback address: other machines could reach the simulated server",
            "use 127.0.0.1, or say with --allow-remote that they may",
        )
    return Server(settings, host, port, require_key, batch_delay_s)


def serve(
    settings: Simulated,
    host: str = "127.0.0.1",
    port: int = 0,
    allow_remote: bool = False,
    announce: Callable[[str], None] = print,
) -> None:
    """Run the server in the foreground until SIGINT or SIGTERM; `announce` is given its base URL.

    Raises InputError as `start` does.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with start(settings, host, port, allow_remote=allow_remote) as server:
        announce(server.base_url)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return
