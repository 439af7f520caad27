"""A scripted server with a Batch API that can be made to fail at any of its parts."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from harness.sim.batches import Batches
from harness.sim.refusal import Refused
from harness.spec.base import Endpoint
from tests.llm.fake_server import FakeServer, Script, completion

Next = Callable[[], Awaitable[web.StreamResponse]]
Intercept = Callable[[web.Request, Next], Awaitable[web.StreamResponse | None]]
"""(request, what would answer it) -> another answer, or None for that one."""


class BatchServer(FakeServer):
    """`requests` are the bodies that batches held. A script's None leaves a request unanswered.

    calls: (method, path) of each HTTP request. intercept: may take the place of any answer. alter:
    may change a batch's state before it is told.
    """

    def __init__(self, script: Script, delay_s: float = 0.02) -> None:
        self.calls: list[tuple[str, str]] = []
        self.intercept: Intercept | None = None
        self.alter: Callable[[dict[str, Any]], dict[str, Any]] = lambda state: state
        self.batches = Batches(self._answer_batched, delay_s)
        super().__init__(script)

    def endpoint(self, **settings: Any) -> Endpoint:
        return super().endpoint(mode="batch", batch_poll_s=0.02, **settings)

    @property
    def created(self) -> int:
        """How many batches there are."""
        return len(self.batches._batches)

    def count(self, method: str, path: str) -> int:
        return sum(m == method and path in p for m, p in self.calls)

    def _add_routes(self, app: web.Application) -> None:
        made = self.batches
        for method, path, handler in (
            ("POST", "/v1/files", made.upload),
            ("GET", "/v1/files/{id}/content", made.content),
            ("POST", "/v1/batches", made.create),
            ("GET", "/v1/batches", made.list_all),
            ("GET", "/v1/batches/{id}", self._retrieve),
            ("POST", "/v1/batches/{id}/cancel", made.cancel),
        ):
            app.router.add_route(method, path, self._guarded(handler))

    async def _retrieve(self, request: web.Request) -> web.Response:
        told = await self.batches.retrieve(request)
        assert told.text is not None
        return web.json_response(self.alter(json.loads(told.text)))

    def _guarded(self, handler: Any) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.calls.append((request.method, request.path))
            self.keys.append(request.headers.get("Authorization"))

            async def go_on() -> web.StreamResponse:
                answer: web.StreamResponse = await handler(request)
                return answer

            try:
                other = await self.intercept(request, go_on) if self.intercept else None
                return other if other is not None else await go_on()
            except Refused as e:
                return e.response()

        return handle

    async def _answer_batched(self, kind: str, body: Any) -> web.Response | None:
        seen = self._seen[json.dumps(body, sort_keys=True)]
        self._seen[json.dumps(body, sort_keys=True)] += 1
        self.requests.append(body)
        answer = self._script(body, seen)
        return web.json_response(completion(answer)) if isinstance(answer, str) else answer


def once(method: str, path: str, answer: Callable[[], web.StreamResponse]) -> Intercept:
    """The first request of this method and path gets another answer."""
    done = False

    async def intercept(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        nonlocal done
        if done or (request.method, request.path) != (method, path):
            return None
        done = True
        return answer()

    return intercept
