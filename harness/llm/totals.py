"""What calls took: how many they were, their tokens, and the dollars that these cost at a price."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.llm.prices import Price
from harness.llm.record import Attempt, CallRecord
from harness.llm.reply import MOST_TOKENS, Body, Response, tokens_used, usage_is_known

UNUSABLE = ", but "
"""In an attempt's outcome: served, and most likely paid for, yet not a model's answer."""

BYTES_PER_TOKEN = 2
"""For the most that a prompt may take before it is sent: real text has 3 to 5 bytes a token."""

TIMEOUT, INTERRUPTED = "timeout", "interrupted"
"""Outcomes of attempts that nobody waited for to their ends: the server may serve them all the same."""

UNLIMITED_REPLY, UNLIMITED_TIMES = 1024, 4
"""Tokens set aside for a reply whose request names no limit: so many, or so many times the longest
reply seen, where that is more."""


class TokenCounts(NamedTuple):
    """Prompt and completion tokens."""

    prompt: int = 0
    completion: int = 0

    def plus(self, other: "TokenCounts", times: int = 1) -> "TokenCounts":
        return TokenCounts(*(a + times * b for a, b in zip(self, other, strict=True)))


NO_TOKENS = {False: TokenCounts(), True: TokenCounts()}


@dataclass
class Totals:
    """Sums over a transcript's calls.

    calls: the answered ones and every served attempt that brought no reply of use. answered: the
    answered ones. without_usage: those of them whose reply does not report its tokens. reported:
    tokens that replies report, by whether a batch was asked. unknown: the most that all others can
    have taken. longest_reply: in tokens, reported or at most.
    """

    calls: int = 0
    attempts: int = 0
    answered: int = 0
    without_usage: int = 0
    reported: dict[bool, TokenCounts] = field(default_factory=lambda: dict(NO_TOKENS))
    unknown: dict[bool, TokenCounts] = field(default_factory=lambda: dict(NO_TOKENS))
    longest_reply: int = 0

    def add(self, record: CallRecord) -> None:
        """Count one call's record."""
        by_batch = record.get("batch") is not None
        body = record.get("request", {}).get("body", {})
        unusable = unusable_attempts(record["attempts"])
        self.attempts += len(record["attempts"])
        self.calls += unusable
        if unusable:
            most = most_tokens(body, self.longest_reply)
            self.unknown[by_batch] = self.unknown[by_batch].plus(most, unusable)
        if not record["ok"]:
            return
        self.calls += 1
        self.answered += 1
        used = TokenCounts(*tokens_used(record["usage"]))
        self.reported[by_batch] = self.reported[by_batch].plus(used)
        if record["response"].get("choices") and not usage_is_known(record["usage"]):
            self.without_usage += 1
            most = TokenCounts(*map(max, _most_of_reply(body, record["response"]), used))
            self.unknown[by_batch] = self.unknown[by_batch].plus(most).plus(used, -1)
            used = most
        self.longest_reply = max(self.longest_reply, used.completion)

    @property
    def tokens(self) -> TokenCounts:
        """What the replies report."""
        return self.reported[False].plus(self.reported[True])

    @property
    def most_tokens(self) -> int:
        """`tokens`, and the most that all else can have taken."""
        return sum(self.tokens.plus(self.unknown[False]).plus(self.unknown[True]))

    def usd(self, price: Price) -> float:
        """What `tokens` cost."""
        return _usd(self.reported, price)

    def most_usd(self, price: Price) -> float:
        """What `most_tokens` cost."""
        return self.usd(price) + _usd(self.unknown, price)


def _usd(tokens: dict[bool, TokenCounts], price: Price) -> float:
    return sum(price.usd(*counts, batch=by_batch) for by_batch, counts in tokens.items())


def unusable_attempts(attempts: Iterable[Attempt]) -> int:
    """How many of a call's attempts were served, or may have been, without being of use."""
    outcomes = [attempt["outcome"] for attempt in attempts]
    return sum(UNUSABLE in outcome or outcome in (TIMEOUT, INTERRUPTED) for outcome in outcomes)


def reply_limit(body: Body) -> int | None:
    """Tokens of one choice that the request allows; None where it names no limit."""
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.get(name)
        if isinstance(limit, int) and limit > 0:
            return min(limit, MOST_TOKENS)
    return None


def most_tokens(body: Body, longest_reply: int = 0) -> TokenCounts:
    """The most that a request may take.

    Without a limit on the reply no such figure exists: see UNLIMITED_REPLY.
    """
    limit = reply_limit(body)
    reply = limit or max(UNLIMITED_REPLY, UNLIMITED_TIMES * longest_reply)
    choices = [body.get(name) for name in ("n", "best_of")]
    most = max((n for n in choices if isinstance(n, int) and n > 0), default=1)
    return TokenCounts(_tokens_in(body), reply * min(most, MOST_TOKENS))


def _most_of_reply(body: Body, response: Response) -> TokenCounts:
    """The most that an answered call took whose reply does not say it."""
    most = most_tokens(body)
    if reply_limit(body) is not None:
        return most
    return TokenCounts(most.prompt, _tokens_in(response["choices"]))


def _tokens_in(value: Any) -> int:
    """The most tokens that a JSON value's text comes to."""
    size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return -(-size // BYTES_PER_TOKEN)
