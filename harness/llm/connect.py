"""The connection to an endpoint: an OpenAI SDK client that only the spec has a say in.

Live calls go through the SDK's HTTP client and not through the SDK, whose share of a call's time is
larger than all the rest, and whose retries, checks and types they have no use for.
"""

import contextlib
import os
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx2
import openai

from harness.errors import InputError

NO_KEY = "none"
"""Sent to servers that want no key; the SDK insists on one."""


def connect(url: str, key: str, timeout_s: float) -> tuple[openai.AsyncOpenAI, httpx2.AsyncClient]:
    """An SDK client for the server at `url`, without retries of its own, and its HTTP client, which
    it closes.

    Raises:
        InputError: `url` is not one, or holds a password.
    """
    _check(url)
    # A proxy from the environment has no business between a process and itself.
    transport = openai.DefaultAioHttpClient(trust_env=not _is_loopback(url))
    with _without_openai_variables():
        sdk = openai.AsyncOpenAI(
            api_key=key or NO_KEY,
            base_url=url,
            http_client=transport,
            max_retries=0,
            timeout=timeout_s,
        )
    return sdk, transport


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.username or parts.password:
        # Not shown, as it would end up in logs and in the transcript.
        raise InputError(
            "the endpoint's base_url holds a user name or a password",
            hint="leave it out and give the key through api_key_env",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"the endpoint's base_url {url!r} is not a URL of a server",
            hint="write it like https://host/v1 or http://127.0.0.1:8000/v1",
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _without_openai_variables() -> Iterator[None]:
    """Hide OPENAI_* while the SDK looks for defaults: the spec alone says what is called."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENAI_")}
    try:
        yield
    finally:
        os.environ.update(hidden)
