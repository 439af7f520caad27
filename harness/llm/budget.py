"""Keeps a stage within its budget of calls and tokens."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from harness.errors import HarnessError
from harness.llm.transcript import Transcript

BYTES_PER_TOKEN = 2
"""For the most that a prompt may take before it is sent: real text has 3 to 5 bytes a token."""

UNLIMITED_REPLY = 1024
"""Tokens set aside for a reply whose request names no limit."""


class Budget:
    """Limits on what a transcript may come to hold, what earlier tries left in it included.

    A call is let through only when everything already used, what the calls in flight may still use
    and what this one may use stay within the limits; a call's tokens are the most its prompt and
    `max_tokens` can come to. While that fails only because of calls in flight, the call waits.
    """

    def __init__(self, limits: Mapping[str, int | None] | None, transcript: Transcript) -> None:
        limits = limits or {}
        self._calls = limits.get("calls")
        self._tokens = limits.get("tokens")
        self._transcript = transcript
        self._in_flight = 0
        self._reserved = 0
        self._unusable = 0
        self._changed = asyncio.Condition()

    async def reserve(self, body: Mapping[str, Any]) -> int:
        """Set aside one call; returns the tokens set aside for it.

        Raises:
            HarnessError: the call would pass a limit.
        """
        tokens = 0 if self._tokens is None else _most_tokens(body)
        async with self._changed:
            while passed := self._passed(tokens):
                if self._in_flight == 0:
                    raise self._exhausted(passed, tokens)
                await self._changed.wait()
            self._in_flight += 1
            self._reserved += tokens
        return tokens

    async def release(self, tokens: int) -> None:
        """The call is over; what it really used is in the transcript by now."""
        async with self._changed:
            self._in_flight -= 1
            self._reserved -= tokens
            self._changed.notify_all()

    def note_unusable(self) -> None:
        """An attempt of a call in flight was served, and its reply could not be used.

        Raises:
            HarnessError: another attempt would pass the limit of calls.
        """
        self._unusable += 1
        served = self._transcript.calls + self._unusable
        if self._calls is not None and served + self._in_flight > self._calls:
            raise self._exhausted("calls", 0)

    def note_recorded(self, unusable: int) -> None:
        """So many of them are in the transcript from now on, which counts them."""
        self._unusable -= unusable

    def _passed(self, tokens: int) -> str | None:
        used = self._transcript
        calls = used.calls + self._unusable + self._in_flight
        if self._calls is not None and calls + 1 > self._calls:
            return "calls"
        spent = used.prompt_tokens + used.completion_tokens + self._reserved
        if self._tokens is not None and spent + tokens > self._tokens:
            return "tokens"
        return None

    def _exhausted(self, passed: str, tokens: int) -> HarnessError:
        used = self._transcript
        spent = used.prompt_tokens + used.completion_tokens
        if passed == "calls":
            message = f"the budget of {self._calls} calls is used up"
        else:
            message = (
                f"the next call may take {tokens} tokens, which would pass the budget of "
                f"{self._tokens} tokens"
            )
        return HarnessError(
            f"{message}: {used.calls + self._unusable} calls and {spent} tokens so far",
            hint=f"nothing is lost: raise budget.{passed} in the spec, and the same command goes "
            "on from here",
        )


def _most_tokens(body: Mapping[str, Any]) -> int:
    size = len(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return -(-size // BYTES_PER_TOKEN) + (limit if isinstance(limit, int) else UNLIMITED_REPLY)
