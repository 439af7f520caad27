"""A call, and what live and batch calls share: the open endpoint, how a call is recorded, and how a
prompt's template is filled."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import httpx2
import openai

from harness.errors import HarnessError
from harness.llm.budget import Amount, BudgetGuard
from harness.llm.record import Attempt, CallRecord, Request
from harness.llm.reply import Body, Kind, Response, reply_from
from harness.llm.totals import unusable_attempts
from harness.llm.transcript import CallPlace, Transcript, digest_of
from harness.spec.base import Endpoint, Sampling

OPENAI_URL = "https://api.openai.com/v1"
PATHS: dict[Kind, str] = {"chat": "/chat/completions", "completion": "/completions"}


@dataclass(frozen=True, slots=True)
class PlacedCall:
    """A call whose place in the transcript is settled, whether or not it has been made."""

    kind: Kind
    body: Body
    place: CallPlace


@dataclass(frozen=True)
class Connection:
    """An endpoint that can be called, and where its calls are counted and written.

    url: where the server is. server: what a request says of it. model: what it is asked for.
    """

    endpoint: Endpoint
    url: str
    server: str
    key: str
    sdk: openai.AsyncOpenAI
    http: httpx2.AsyncClient
    transcript: Transcript
    budget: BudgetGuard
    model: str

    def sent(self, body: Body) -> Body:
        """A request as the server is sent it: with its model, and its limit under the server's name."""
        fields = {
            self.endpoint.token_limit if name == "max_tokens" else name: value
            for name, value in body.items()
        }
        return {"model": self.model, **fields}

    def record(
        self,
        call: PlacedCall,
        response: Response,
        attempts: list[Attempt],
        reserved: Amount,
        started: datetime,
        seconds: float,
        failure: HarnessError | None,
        batch: str | None = None,
    ) -> None:
        """Write a call that is over into the transcript. `failure`: why it has no answer."""
        reply = reply_from(response, reused=False)
        record: CallRecord = {
            "digest": call.place[0],
            "occurrence": call.place[1],
            "request": request_of(self.endpoint, self.server, call.kind, call.body),
            "response": response,
            "served_model": reply.served_model,
            "usage": reply.usage,
            "attempts": attempts,
            "started": started.isoformat(timespec="milliseconds"),
            "seconds": round(seconds, 3),
            "ok": failure is None,
        }
        if batch is not None:
            record["batch"] = batch
        if failure is not None:
            record["error"] = failure.message
        self.budget.note_recorded(reserved, unusable_attempts(attempts))
        self.transcript.append(record)


def request_of(endpoint: Endpoint, server: str, kind: Kind, body: Body) -> Request:
    return {"kind": kind, "model": endpoint.model, "body": dict(body), "endpoint": server}


def server_of(endpoint: Endpoint) -> str:
    """What a request says of its server."""
    if endpoint.simulated is not None:
        # Its port is another one each time.
        return "simulated:" + digest_of(endpoint.simulated.model_dump(mode="json"))
    return endpoint.base_url or OPENAI_URL


def prompt_body(prompt: str, sampling: Sampling, number: int = 0, kind: Kind = "chat") -> Body:
    """The request for a prompt's reply. A seed that the spec gives grows by `number`: a model that
    honours it would otherwise reply the same to the same prompt."""
    fields = sampling.model_dump(exclude_none=True)
    if "seed" in fields:
        fields["seed"] += number
    if kind == "completion":
        return {"prompt": prompt, **fields}
    return {"messages": [{"role": "user", "content": prompt}], **fields}


def fill(template: str, parts: Mapping[str, str]) -> str:
    """The template with each {name} of `parts` replaced, in one pass.

    Other braces, in the template and in the parts, stay as they are. A newline at the template's
    very end does not count: editors put it there.
    """
    names = "|".join(re.escape(name) for name in parts)
    text = template.removesuffix("\n")
    return re.sub(r"\{(" + names + r")\}", lambda match: parts[match[1]], text)
