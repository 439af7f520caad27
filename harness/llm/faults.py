"""What went wrong with an attempt: whether it is worth another, and how to tell the person."""

import asyncio
import json
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
import httpx2
import openai

from harness.errors import HarnessError, InputError
from harness.llm.reply import PROMPT_REFUSALS
from harness.spec.base import Endpoint

RETRIED_STATUS = {408, 409, 425, 429}
"""Beside these, every status of 500 and above."""
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0

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

    def __init__(self, response: dict[str, Any]) -> None:
        super().__init__()
        self.response = response


CONNECTION_FAULTS = (
    TimeoutError,
    openai.APIConnectionError,
    aiohttp.ClientError,
    httpx2.HTTPError,
)


def fault_of_status(
    status: int, headers: Mapping[str, str], body: str, endpoint: Endpoint, url: str
) -> Exception:
    """What an error status means for the call: again, never, or not for this prompt.

    `body` is the response's text, free of secrets.
    """
    code, message = _error_in(body)
    said = f"{status}: {message}" if message else str(status)
    if status in (401, 403):
        return _unauthorised(said, endpoint, url)
    if status == 404:
        return InputError(
            f"{url} does not know the model {endpoint.model!r} ({said})",
            hint="correct the endpoint's model, or its base_url, in the spec",
        )
    if status == 429 and code == "insufficient_quota":
        return HarnessError(
            f"the account at {url} has no credit left ({said})",
            hint="top it up and run the same command again: no answered call is lost",
        )
    if status in RETRIED_STATUS or status >= 500:
        return Transient(said, _retry_after(headers))
    if code in PROMPT_REFUSALS:
        return PromptRefused({"error": {"code": code, "message": message, "status": status}})
    return RequestRefused(
        f"{url} does not accept the request for {endpoint.model} ({said})",
        hint="correct the sampling parameters or the model in the spec",
    )


def fault_of_connection(error: BaseException) -> Transient:
    """An attempt that timed out or found no server."""
    cause = error
    while not isinstance(cause, TimeoutError) and cause.__cause__ is not None:
        cause = cause.__cause__
    timed_out = isinstance(cause, TimeoutError)
    return Transient("timeout" if timed_out else f"no connection ({type(cause).__name__})")


def gave_up(last: Transient, attempts: int, endpoint: Endpoint, url: str) -> HarnessError:
    """The failure of a call whose attempts are used up."""
    return HarnessError(
        f"{endpoint.model} at {url} gave no answer in {attempts} attempts; the last: {last}",
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


def _unauthorised(said: str, endpoint: Endpoint, url: str) -> InputError:
    name = endpoint.api_key_env
    if name is None:
        return InputError(
            f"{url} wants a key, and the spec names none ({said})",
            hint="give the endpoint an api_key_env: the name of the variable that holds the key",
        )
    return InputError(
        f"{url} does not accept the key in {name} ({said})",
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


def _error_in(body: str) -> tuple[str | None, str]:
    """(code, message) of an OpenAI-style error body; of another one, its start as the message."""
    try:
        error = json.loads(body)["error"]
        code, message = error.get("code"), str(error.get("message") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, " ".join(body[:200].split())
    return (code if isinstance(code, str) else None), message
