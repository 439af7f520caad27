"""The client for teacher and judge: every call retried, limited, counted and in the transcript."""

import asyncio
import contextlib
import math
import shutil
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.artefact import events
from harness.artefact.call import TRANSCRIPT, StageCall
from harness.errors import HarnessError, InputError
from harness.llm.batch import BatchCalls
from harness.llm.budget import BudgetGuard
from harness.llm.calls import OPENAI_URL, Connection, PlacedCall, request_of, server_of
from harness.llm.connect import connect
from harness.llm.interrupts import Interrupts
from harness.llm.ledger import Ledger, request_id
from harness.llm.live import LiveCalls
from harness.llm.prices import FREE, Price
from harness.llm.replay import miss
from harness.llm.reply import Body, Kind, Reply, Response, reply_from
from harness.llm.secrets import read_key
from harness.llm.totals import Totals
from harness.llm.transcript import Asked, Transcript, digest_of
from harness.spec.base import Data, Endpoint

OnDone = Callable[[int, Reply], None]


class Client:
    """An endpoint's calls, as an async context manager.

    A call that the transcript already holds is not made again. When the block ends without an
    error, the transcript is put in the order of asking and made durable. An interrupt
    while calls are in flight lets these be answered first: see harness.llm.interrupts.

    budget: limits on calls, tokens and usd, None for no limit. price: what the model costs, a dump
    of harness.llm.prices.Price; None where that is not known. replay: every reply comes from the
    transcript, which may be read-only and stays as it is; nothing is connected to, no key is needed.
    at: (base URL, model's name) where the calls really go, for a server that stands elsewhere each
    time: the transcript then knows them by what `endpoint` says. `beside`: the client of another model
    whose calls stand in the same transcript and budget.

    Raises, on entering:
        InputError: no key where the endpoint names one, a base URL that is none, or a budget in
            dollars without a price.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transcript: Path | Transcript,
        budget: Mapping[str, float | None] | None = None,
        price: Mapping[str, Any] | None = None,
        replay: bool = False,
        at: tuple[str, str] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._at = at
        self.replay = replay
        usd = {name: value for name, value in (price or {}).items() if name in Price.model_fields}
        self.price = None if price is None else Price(**usd)
        if isinstance(transcript, Path):
            transcript = Transcript(transcript, read_only=replay)
        self.transcript = transcript
        self._server = server_of(endpoint)
        self._asked: Asked = (endpoint.model, self._server)
        self._beside: list[Client] = []
        self._first = self
        self._limits = budget or {}
        self._replayed = 0
        self._interrupts: Interrupts | None = None
        self._budget: BudgetGuard
        self._close = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self.replay:
            return self
        try:
            for client in self._all:
                client._check_price()
            for client in self._all:
                await client._connect()
            self.transcript.reserve(sum(client.endpoint.concurrency for client in self._all))
            self._interrupts = Interrupts([client._live for client in self._all])
            self._close.callback(self._interrupts.close)
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
        stopped = self._interrupts is not None and self._interrupts.came
        if stopped and (error is None or isinstance(error, asyncio.CancelledError)):
            raise KeyboardInterrupt
        if error is None:
            self.transcript.finish()

    def beside(self, endpoint: Endpoint, price: Mapping[str, Any] | None = None) -> "Client":
        """The client of another model, which is opened and closed with this one; this one itself for
        its own endpoint. To be called before this one is opened."""
        for client in self._all:
            if client.endpoint == endpoint:
                return client
        client = Client(endpoint, self.transcript, self._limits, price, self.replay)
        client._first = self
        self._beside.append(client)
        return client

    async def gather(
        self, bodies: Sequence[Body], on_done: OnDone | None = None, kind: Kind = "chat"
    ) -> list[Reply]:
        """The replies to `bodies`, in their order; `on_done(index, reply)` is told of each.

        So that many replies fit in memory, their `raw` is {}; `on_done` is told it. When a call
        fails, or `on_done` raises a HarnessError, no further one is begun, those in flight are
        awaited and recorded, and the failure is raised. A batch that is in flight when a call fails is
        left to the next try.

        Raises:
            InputError: the endpoint, its key or a request is not accepted.
            ReplayMiss: in a replay, the transcript lacks one.
            HarnessError: no answer after the endpoint's `max_attempts`, or the budget is used up.
        """
        calls = [self._ask(kind, body) for body in bodies]
        replies: list[Reply | None] = [None] * len(calls)

        def take(index: int, reply: Reply) -> None:
            replies[index] = replace(reply, raw={})
            if on_done is not None:
                on_done(index, reply)

        if self.replay:
            for index, call in enumerate(calls):
                take(index, self._replay(call))
        elif self.endpoint.mode == "batch":
            await self._gather_in_batches(calls, take)
        else:
            await self._gather_live(calls, take)
        return [reply for reply in replies if reply is not None]

    @property
    def simulated(self) -> bool:
        """Whether any reply came, or would come, from a simulated model."""
        return self.transcript.simulated or any(c.endpoint.simulated for c in self._all)

    @property
    def served_models(self) -> list[str]:
        """The models that the replies say they came from, sorted."""
        return sorted(self.transcript.served_models)

    def cost(self) -> dict[str, float]:
        """What the transcript's calls took, earlier tries of the stage included.

        calls: the answered ones and every attempt that was served, or may have been, without a
        reply of use. usd: what the tokens that the replies report cost, where the price is known
        and every reply reports them; calls_without_usage: how many do not. A replay took nothing;
        replayed_calls says how many replies it took from the transcript.
        """
        if self.replay:
            nothing = ("calls", "attempts", "prompt_tokens", "completion_tokens", "usd")
            replayed = sum(client._replayed for client in self._all)
            return {**dict.fromkeys(nothing, 0), "replayed_calls": replayed}
        parts = [client._cost() for client in self._all]
        cost = {
            name: sum(part.get(name, 0) for part in parts) for name in parts[0] if name != "usd"
        }
        unreported = self.transcript.totals.without_usage
        if unreported:
            cost["calls_without_usage"] = unreported
        elif all("usd" in part for part in parts):
            # Sums of floats end in digits that mean nothing.
            cost["usd"] = round(math.fsum(part["usd"] for part in parts), 9)
        return cost

    def cost_of_each(self) -> list[tuple[str, dict[str, float]]]:
        """Each model that was to be asked, with what its recorded calls took, as in `cost`."""
        return [(client.endpoint.model, client._cost()) for client in self._all]

    @property
    def _all(self) -> "list[Client]":
        return [self, *self._beside]

    @property
    def _totals(self) -> Totals:
        """Of its own calls; where it is alone, of all that the transcript holds."""
        has_others = bool(self._first._beside)
        return self.transcript.totals_of(self._asked) if has_others else self.transcript.totals

    def _cost(self) -> dict[str, float]:
        totals = self._totals
        cost: dict[str, float] = {
            "calls": totals.calls,
            "attempts": totals.attempts,
            "prompt_tokens": totals.tokens.prompt,
            "completion_tokens": totals.tokens.completion,
        }
        if totals.without_usage:
            cost["calls_without_usage"] = totals.without_usage
        elif self.price is not None:
            cost["usd"] = round(totals.usd(self.price), 9)
        return cost

    def _check_price(self) -> None:
        if self._limits.get("usd") is not None and self.price is None:
            raise InputError(
                f"there is a budget in dollars, and the price of {self.endpoint.model} is not known",
                hint="add the model to specs/prices.yaml, or to the file that HARNESS_PRICES names",
            )

    async def _connect(self) -> None:
        first = self._first
        endpoint = self.endpoint
        url = self._start_server() or endpoint.base_url or OPENAI_URL
        url, model = self._at or (url, endpoint.model)
        key = ""
        if endpoint.api_key_env is not None and endpoint.simulated is None:
            key = read_key(endpoint.api_key_env, f"{endpoint.model} at {url}")
        sdk, http = connect(url, key, endpoint.timeout_s)
        await first._close.enter_async_context(sdk)
        by_batch = endpoint.mode == "batch"
        if first is self:
            self._budget = BudgetGuard(self._limits, self._totals, self.price, by_batch)
        else:
            self._budget = first._budget.beside(self._totals, self.price, by_batch)
        self._line = Connection(
            endpoint, url, self._server, key, sdk, http, self.transcript, self._budget, model
        )
        server = "" if first is self else digest_of({"asked": self._asked})[:12]
        self._ledger = Ledger(self.transcript.path, server)
        self._live = LiveCalls(self._line)
        if not by_batch:
            self._warn_of_batches()

    def _start_server(self) -> str | None:
        if self.endpoint.simulated is None:
            return None
        from harness.sim import server

        simulated = server.start(self.endpoint.simulated)
        self._first._close.callback(simulated.close)
        return str(simulated.base_url)

    async def _leave(self) -> None:
        try:
            await self._close.aclose()
        finally:
            self.transcript.close()

    def _ask(self, kind: Kind, body: Body) -> PlacedCall:
        request = request_of(self.endpoint, self._server, kind, body)
        return PlacedCall(kind, body, self.transcript.ask(digest_of(request)))

    def _find(self, call: PlacedCall) -> Reply | None:
        record = self.transcript.find(call.place)
        if record is None:
            return None
        return reply_from(record["response"], True, self.transcript.number(call.place))

    def _replay(self, call: PlacedCall) -> Reply:
        reply = self._find(call)
        if reply is None:
            request = request_of(self.endpoint, self._server, call.kind, call.body)
            raise miss(self.transcript, call, request)
        self._replayed += 1
        return reply

    def _new(self, call: PlacedCall, response: Response) -> Reply:
        return reply_from(response, False, self.transcript.number(call.place))

    async def _gather_in_batches(self, calls: list[PlacedCall], take: OnDone) -> None:
        missing: list[tuple[int, PlacedCall]] = []
        failures: list[HarnessError] = []
        for index, call in enumerate(calls):
            reply = self._find(call)
            if reply is None:
                missing.append((index, call))
            else:
                take(index, reply)

        def note(index: int, answer: Response) -> None:
            # The rest of a batch is paid for, whatever is made of one of its replies.
            try:
                take(index, self._new(calls[index], answer))
            except HarnessError as e:
                failures.append(e)

        if missing:
            await BatchCalls(self._line, self._ledger, note).answer(missing)
        if failures:
            raise failures[0]

    async def _gather_live(self, calls: list[PlacedCall], take: OnDone) -> None:
        failures: list[HarnessError] = []
        pending = iter(range(len(calls)))

        async def work() -> None:
            for index in pending:
                if failures:
                    return
                try:
                    call = calls[index]
                    reply = self._find(call) or self._new(call, await self._live.answer(call))
                    take(index, reply)
                except HarnessError as e:
                    failures.append(e)
                    return

        await _run_all([work() for _ in range(min(self.endpoint.concurrency, len(calls)))])
        if failures:
            # A fault in the set-up explains the others that came with it.
            raise next((e for e in failures if isinstance(e, InputError)), failures[0])

    def _warn_of_batches(self) -> None:
        answered = {request_id(place) for place in self.transcript.answered()}
        waiting = {b for name, b in self._ledger.in_flight.items() if name not in answered}
        if waiting:
            events.note(
                f"an earlier try sent {', '.join(sorted(waiting))}, which may still be answered: its "
                "requests are now asked, and paid for, again; mode: batch waits for it"
            )


async def _run_all(workers: list[Coroutine[Any, Any, None]]) -> None:
    """Run the workers to their ends; on an interrupt stop them all before it goes on."""
    tasks = [asyncio.create_task(worker) for worker in workers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def price_in(call: StageCall, endpoint: Endpoint) -> Mapping[str, Any] | None:
    """What the stage was told that a call of the endpoint costs, for a `Client`."""
    if endpoint.simulated is not None:
        return FREE.model_dump()
    return call.prices.get(endpoint.model)


def open_client(call: StageCall, endpoint: Endpoint, recording: Data | None) -> Client:
    """The client for a stage's calls, an async context manager; its transcript is the artefact's.

    `recording`: recorded calls that the spec names in place of the model. A request that they lack then
    fails, and nothing is asked. So it is where the whole stage is replayed.

    Raises:
        InputError: the recorded file cannot be read, or is not a transcript.
    """
    path = call.folder / TRANSCRIPT
    price = price_in(call, endpoint)
    if recording is None or call.replay:
        return Client(endpoint, path, call.budget, price, replay=call.replay)
    # It is read where the spec says that it is, which errors then name; the copy is the artefact's.
    client = Client(endpoint, Path(recording.path), call.budget, price, replay=True)
    part = path.with_name(path.name + ".part")
    shutil.copyfile(client.transcript.path, part)
    part.replace(path)
    return client
