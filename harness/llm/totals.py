"""What calls took: how many they were, their tokens, and the dollars that these cost at a price."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.llm.reply import tokens_used
from harness.prices import Price

UNUSABLE = ", but "
"""In an attempt's outcome: served, and most likely paid for, yet not a model's answer."""

BYTES_PER_TOKEN = 2
"""For the most that a prompt may take before it is sent: real text has 3 to 5 bytes a token."""

UNLIMITED_REPLY = 1024
"""Tokens set aside for a reply whose request names no limit, unless a longer one has been seen."""


class Tokens(NamedTuple):
    """Prompt and completion tokens."""

    prompt: int = 0
    completion: int = 0

    def plus(self, other: "Tokens", times: int = 1) -> "Tokens":
        return Tokens(
            self.prompt + times * other.prompt, self.completion + times * other.completion
        )


NO_TOKENS = Tokens()


@dataclass
class Totals:
    """Sums over a transcript's calls.

    calls: the answered ones and every served attempt whose reply could not be used. live, batch:
    tokens that replies report, by how they were asked for. unknown_live, unknown_batch: the most
    that unusable replies, which report none, can have taken.
    """

    calls: int = 0
    attempts: int = 0
    live: Tokens = NO_TOKENS
    batch: Tokens = NO_TOKENS
    unknown_live: Tokens = NO_TOKENS
    unknown_batch: Tokens = NO_TOKENS
    longest_reply: int = 0

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one call's record."""
        by_batch = record.get("batch") is not None
        unusable = unusable_attempts(record["attempts"])
        self.attempts += len(record["attempts"])
        self.calls += unusable
        if unusable:
            most = most_tokens(record.get("request", {}).get("body", {}), self.longest_reply)
            if by_batch:
                self.unknown_batch = self.unknown_batch.plus(most, unusable)
            else:
                self.unknown_live = self.unknown_live.plus(most, unusable)
        if not record["ok"]:
            return
        self.calls += 1
        used = Tokens(*tokens_used(record["usage"]))
        self.longest_reply = max(self.longest_reply, used.completion)
        if by_batch:
            self.batch = self.batch.plus(used)
        else:
            self.live = self.live.plus(used)

    @property
    def tokens(self) -> Tokens:
        """What the replies report."""
        return self.live.plus(self.batch)

    @property
    def most_tokens(self) -> int:
        """`tokens`, and the most that unusable replies can have taken."""
        return sum(self.tokens.plus(self.unknown_live).plus(self.unknown_batch))

    def usd(self, price: Price) -> float:
        """What `tokens` cost."""
        return price.usd(*self.live) + price.usd(*self.batch, batch=True)

    def most_usd(self, price: Price) -> float:
        """What `most_tokens` cost."""
        unknown = price.usd(*self.unknown_live) + price.usd(*self.unknown_batch, batch=True)
        return self.usd(price) + unknown


def unusable_attempts(attempts: list[dict[str, Any]]) -> int:
    """How many of a call's attempts were served without being of use."""
    return sum(UNUSABLE in attempt["outcome"] for attempt in attempts)


def most_tokens(body: Mapping[str, Any], longest_reply: int = 0) -> Tokens:
    """The most that a request may take.

    Without `max_tokens` no such figure exists: UNLIMITED_REPLY, or the longest reply seen so far.
    """
    size = len(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    reply = limit if isinstance(limit, int) else max(UNLIMITED_REPLY, longest_reply)
    choices = [body.get(name) for name in ("n", "best_of")]
    most = max((n for n in choices if isinstance(n, int)), default=1)
    return Tokens(-(-size // BYTES_PER_TOKEN), reply * most)
