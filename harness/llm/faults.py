"""What went wrong with an attempt: whether it is worth another, and how to tell the person."""

import asyncio
import json
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple, TypeVar

import aiohttp
import httpx2
import openai

from harness.errors import HarnessError, InputError
from harness.llm.calls import Connection
from harness.llm.reply import Body, BrokenReply, ProviderError, Response
from harness.llm.totals import reply_limit
from harness.spec.base import TOKEN_LIMITS, Endpoint

RETRIED_STATUS = {408, 409, 425, 429}
"""Beside these, every status of 500 and above."""
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0

NO_CREDIT = {"insufficient_quota", "billing_hard_limit_reached"}
CONTENT_REFUSALS = {"content_filter", "content_policy_violation", "invalid_prompt"}
"""Error codes (OpenAI's and Azure's) that speak of the prompt's content, not of the set-up: asking
again brings the same answer, and other prompts are not touched by it."""
TOO_LONG = "too_long"
"""The reason of a declined prompt that the server has no room for."""
TOO_LONG_CODES = {
    "context_length_exceeded",
    "string_above_max_length",
    "exceed_context_size_error",
    "request_too_large",
}
"""Error codes and types: OpenAI's, llama.cpp's, Anthropic's."""
_TOO_LONG = re.compile(
    r"""
      (?:maximum|max|model(?:['’]s)?|available) \W+
          (?:context|model|sequence|prompt|input|total) [\s_-]? (?:length|size|window|limit)
    | context [\s_-]? (?:length|size|window|limit) (?:\ (?:of|is|has|exceeded|overflows?) | :)
    | (?:exceed\w*|greater\ than) \ (?:the\ )? (?:\w+['’]?s?\ ){0,2} context
    | reduce \ (?:the|your) \ (?:length|prompt|input|number)
    | (?:prompt|input|request|message|text)s? \ (?:is|are|was) \ (?:too\ (?:long|large)|longer\ than)
    | (?:prompt|request|input) \ too \ (?:long|large)
    | longer \ than \ the \ (?:maximum|model)
    | too \ large \ for \ model \ with
    | too \ many \ (?:input\ |prompt\ )? tokens
    | input \ token \ count
    | `?inputs`? (?:\ tokens \ \+ | \ must \ have \ less \ than)
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""How servers say it that give it no code: vLLM, SGLang, llama.cpp, TGI, Ollama, and their hosts."""
_ROOM = re.compile(
    r"(?:context|model|sequence) (?:length|limit|window|size)\D{0,20}(\d+)|must be <= (\d+)",
    re.IGNORECASE,
)
_PARAMETERS = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "seed",
    "logprobs",
)
_UNSUPPORTED = re.compile(
    r"unsupported|not (?:be )?supported|does(?: not|n['’]t) support|unrecogni[sz]ed|unknown"
    r"|not permitted|deprecated|extra (?:fields|inputs)|not allowed",
    re.IGNORECASE,
)

T = TypeVar("T")


class Transient(Exception):
    """An attempt that may be made again, after `retry_after` seconds if the server says so."""

    def __init__(self, outcome: str, retry_after: float | None = None) -> None:
        super().__init__(outcome)
        self.retry_after = retry_after


class RequestRefused(InputError):
    """The server does not accept a request as it stands."""


class PromptRefused(Exception):
    """The server declines this prompt for what is in it."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


CONNECTION_FAULTS = (TimeoutError, openai.APIConnectionError, aiohttp.ClientError, httpx2.HTTPError)


def fault_of_status(
    status: int,
    headers: Mapping[str, str],
    body: str,
    server: Connection,
    request: Body | None = None,
) -> Exception:
    """What an error status means for the call: again, never, or not for this prompt.

    `body` is the response's text, free of secrets; `request` the call's body.
    """
    endpoint, url = server.endpoint, server.url
    error = _error_in(body)
    description = f"{status}: {error.message}" if error.message else str(status)
    if status in (401, 403) and not error.codes & CONTENT_REFUSALS:
        return _unauthorised(description, endpoint, url)
    if status == 404:
        return InputError(
            f"{url} does not know the model {endpoint.model!r} ({description})",
            hint="correct the endpoint's model, or its base_url, in the spec",
        )
    if status == 402 or (status == 429 and error.codes & NO_CREDIT):
        return HarnessError(
            f"the account at {url} has no credit left ({description})",
            hint="top it up and run the same command again: no answered call is lost",
        )
    # A rate limit's words can be much the same.
    if status == 413 or (error.is_too_long and (status != 429 or "too large" in error.text)):
        # Where the reply alone is to be longer than the model takes, no prompt ever fits.
        room = _ROOM.search(error.text)
        limit = reply_limit(request or {})
        if room is None or limit is None or limit < int(room[1] or room[2]):
            return _declined(error, status, TOO_LONG)
    elif status in RETRIED_STATUS or status >= 500:
        return Transient(description, _retry_after(headers))
    elif error.codes & CONTENT_REFUSALS:
        return _declined(error, status, None)
    return RequestRefused(
        f"{url} does not accept the request for {endpoint.model} ({description})",
        hint=_way_out(error, endpoint),
    )


def fault_of_reply(
    broken: BrokenReply, outcome: str, server: Connection, request: Body
) -> Exception:
    """What a response of status 200 that is no answer means for the call, as `fault_of_status` says it.

    An error in it is what it would be as a response of its own; one of a choice passes, unless it is
    about the prompt. `outcome`: the attempt's, which says what is wrong.
    """
    again = Transient(outcome)
    if not isinstance(broken, ProviderError):
        return again
    code = broken.error.get("code") if isinstance(broken.error, dict) else None
    numbers = str(code) if str(code).isdecimal() else ""
    as_status = int(numbers) if len(numbers) == 3 and int(numbers) >= 400 else 500
    body = json.dumps({"error": broken.error})
    fault = fault_of_status(as_status, {}, body, server, request)
    if isinstance(fault, Transient) or (broken.of_choice and not isinstance(fault, PromptRefused)):
        return again
    return fault


def fault_of_connection(error: BaseException) -> Transient:
    """An attempt that timed out or found no server."""
    cause = error
    while not isinstance(cause, TimeoutError) and cause.__cause__ is not None:
        cause = cause.__cause__
    timed_out = isinstance(cause, TimeoutError)
    return Transient("timeout" if timed_out else f"no connection ({type(cause).__name__})")


def gave_up(last: Transient, attempts: int, server: Connection) -> HarnessError:
    """The failure of a call whose attempts are used up."""
    return HarnessError(
        f"{server.endpoint.model} at {server.url} gave no answer in {attempts} attempts; the last: "
        f"{last}",
        hint="run the same command again: no answered call is lost. If it stays so, look at the "
        "server, or give the endpoint a longer timeout_s or more max_attempts",
    )


async def with_retries(
    attempt: Callable[[], Awaitable[T]],
    most: int,
    on_wait: Callable[[float], None] = lambda seconds: None,
) -> T:
    """What `attempt` returns; after a Transient it is made again, up to `most` times in all.

    `on_wait` is told the seconds before each further attempt. The last Transient is passed on.
    """
    for number in range(1, most):
        try:
            return await attempt()
        except Transient as e:
            seconds = _seconds_to_wait(number, e)
        on_wait(seconds)
        await asyncio.sleep(seconds)
    return await attempt()


def _seconds_to_wait(attempt: int, error: Transient) -> float:
    """After attempt 1, 2, ...: what the server asked for, or else exponential with jitter."""
    if error.retry_after is not None:
        return error.retry_after
    backoff = min(FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, 30), LONGEST_BACKOFF_S)
    # Jitter over the upper half: calls that failed together do not come back together.
    return backoff * random.uniform(0.5, 1.0)


def _unauthorised(description: str, endpoint: Endpoint, url: str) -> InputError:
    name = endpoint.api_key_env
    if name is None:
        return InputError(
            f"{url} wants a key, and the spec names none ({description})",
            hint="give the endpoint an api_key_env: the name of the variable that holds the key",
        )
    return InputError(
        f"{url} does not accept the key in {name} ({description})",
        hint=f"set {name} (or {name}_FILE) to a key that may use {endpoint.model}",
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, at most LONGEST_RETRY_AFTER_S; None when the server does not say."""
    try:
        seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        seconds = _seconds_until(headers.get("retry-after", ""))
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def _seconds_until(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError):
        return math.nan


class _Error(NamedTuple):
    """What an error body says. text: its message with what a provider behind the server said."""

    codes: frozenset[str]
    message: str
    text: str
    parameter: str

    @property
    def is_too_long(self) -> bool:
        return bool(self.codes & TOO_LONG_CODES) or _TOO_LONG.search(self.text) is not None


def _error_in(body: str) -> _Error:
    """The error of a body: OpenAI's, vLLM's older one, TGI's; of another its start is the message."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        raw = None
    fields = raw if isinstance(raw, dict) else {}
    error = fields.get("error") or fields
    if isinstance(error, str):
        error = {"message": error, "type": fields.get("error_type")}
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        start = " ".join(body[:200].split())
        error = {**(error if isinstance(error, dict) else {}), "message": start}
    metadata = error["metadata"] if isinstance(error.get("metadata"), dict) else {}
    # OpenRouter's way to say that a provider behind it moderates.
    flagged = "content_filter" if "flagged_input" in metadata else None
    codes = (error.get("code"), error.get("type"), flagged)
    message = error["message"]
    return _Error(
        frozenset(code for code in codes if isinstance(code, str)),
        message,
        f"{message}\n{str(metadata.get('raw') or '')[:2000]}",
        str(error.get("param") or ""),
    )


def _declined(error: _Error, status: int, reason: str | None) -> PromptRefused:
    code = min(error.codes & (CONTENT_REFUSALS | TOO_LONG_CODES), default=None)
    declined = {"code": code, "message": error.message[:500], "status": status}
    return PromptRefused({"error": declined | ({"reason": reason} if reason else {})})


def _way_out(error: _Error, endpoint: Endpoint) -> str:
    """What to change in the spec, by the parameter that the server names."""
    words = [error.parameter, *re.findall(r"\w+", error.text)]
    names = [name for name in words if name in (*TOKEN_LIMITS, *_PARAMETERS)]
    is_unsupported = _UNSUPPORTED.search(" ".join([*error.codes, error.text])) is not None
    if not names or not is_unsupported:
        return "correct the sampling parameters or the model in the spec"
    limits = [name for name in names if name in TOKEN_LIMITS]
    if not limits:
        return (
            f"leave it out: {names[0]}: null in the spec's sampling or decoding sends none; another "
            "model, where the spec has no such field"
        )
    alternatives = [name for name in TOKEN_LIMITS if name != endpoint.token_limit]
    return (
        f"write token_limit: {alternatives[0]} into this endpoint's part of the spec; or send no "
        "limit: max_new_tokens: null in eval.answer.decoding, max_tokens: null in the sampling of a "
        "teacher or judge"
    )
