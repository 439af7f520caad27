"""Keeps a stage within its budget of calls, tokens and dollars."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from harness.common.numbers import dollars
from harness.errors import HarnessError
from harness.llm.prices import Price
from harness.llm.reply import Body
from harness.llm.totals import Totals, most_tokens, reply_limit

ROUNDING_USD = 1e-9
"""Of sums of floats; less than any call costs."""

Limit = Literal["calls", "tokens", "usd"]


class Amount(NamedTuple):
    """What calls take, or may take at most."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def plus(self, other: "Amount", times: int = 1) -> "Amount":
        return Amount(
            self.calls + times * other.calls,
            self.tokens + times * other.tokens,
            self.usd + times * other.usd,
        )


@dataclass
class _Spending:
    """What the guards of one budget have in common."""

    priced: list[tuple[Totals, Price | None]]
    """The recorded calls of each guard."""
    reserved: Amount = field(default_factory=Amount)
    unusable: Amount = field(default_factory=Amount)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


class BudgetGuard:
    """Limits on what a transcript may come to hold, what earlier tries left in it included.

    A call is let through only when everything already used, what the calls in flight may still use
    and what this one may use stay within the limits; a call's tokens are the most its prompt and
    `max_tokens` can come to. While that fails only because of calls in flight, the call waits.
    What was served without a usable reply, may have been served (a timeout, an interrupt), or came
    without a report of its tokens counts with the most it can have taken.

    So no limit is passed as long as the requests name `max_tokens` and the server keeps to it. For
    requests without it, a limit in tokens or dollars is kept only as far as replies resemble each
    other. Live, no more of them are in flight than replies have been seen (at first, one), each
    with UNLIMITED_TIMES the longest reply set aside; of batches, the first is of one request. The
    limit may be passed by what the replies in flight exceed that: by the first reply, whatever its
    length, and later by replies that are so many times as long as all before. No call is made then.

    price: needed for a limit in dollars. batch: calls are priced as the Batch API's. totals: of the
    calls that have this price. `beside`: the guard of another model's calls within the same limits.
    """

    def __init__(
        self,
        limits: Mapping[str, float | None] | None,
        totals: Totals,
        price: Price | None = None,
        batch: bool = False,
    ) -> None:
        limits = limits or {}
        self._calls = limits.get("calls")
        self._tokens = limits.get("tokens")
        self._usd = limits.get("usd")
        self._limits = limits
        self._totals, self._price, self._batch = totals, price, batch
        self._shared = _Spending([(totals, price)])

    def beside(self, totals: Totals, price: Price | None, batch: bool) -> "BudgetGuard":
        guard = BudgetGuard(self._limits, totals, price, batch)
        guard._shared = self._shared
        self._shared.priced.append((totals, price))
        return guard

    async def reserve(self, body: Body) -> Amount:
        """Set aside one call, as soon as it fits; returns what was set aside.

        Raises:
            HarnessError: the call would pass a limit.
        """
        unlimited = self._is_unlimited(body)
        async with self._shared.changed:
            longest, most = self._totals.longest_reply, self._most(body)
            while (
                passed := self._passed(most)
            ) or self._shared.reserved.calls >= self._most_at_once(unlimited):
                if self._shared.reserved.calls == 0:
                    assert passed is not None
                    raise self._exhausted(passed, most, unlimited)
                await self._shared.changed.wait()
                if unlimited and self._totals.longest_reply != longest:
                    longest, most = self._totals.longest_reply, self._most(body)
            self._shared.reserved = self._shared.reserved.plus(most)
        return most

    def reserve_now(self, body: Body) -> Amount | None:
        """As `reserve`, for one more call of a batch; None where it would have to wait or raise."""
        if self.is_first_unlimited(body) and self._shared.reserved.calls:
            return None
        most = self._most(body)
        if self._passed(most):
            return None
        self._shared.reserved = self._shared.reserved.plus(most)
        return most

    def is_first_unlimited(self, body: Body) -> bool:
        """Whether a limit depends on how long the reply to it is, of which nothing is known."""
        return self._is_unlimited(body) and self._totals.longest_reply == 0

    def hold(self, body: Body) -> Amount:
        """Set aside a call that is in flight already, whatever the limits say."""
        most = self._most(body)
        self._shared.reserved = self._shared.reserved.plus(most)
        return most

    async def release(self, reserved: Amount) -> None:
        """The calls are over; what they really used is in the transcript by now."""
        async with self._shared.changed:
            self._shared.reserved = self._shared.reserved.plus(reserved, -1)
            self._shared.changed.notify_all()

    def note_unusable(self, reserved: Amount) -> None:
        """An attempt of a call in flight was served, or may have been, without a reply of use.

        Raises:
            HarnessError: another attempt would pass a limit.
        """
        self._shared.unusable = self._shared.unusable.plus(reserved)
        if passed := self._passed(Amount()):
            in_flight = self._shared.reserved.calls - reserved.calls
            raise self._exhausted(passed, reserved, unlimited=False, in_flight=in_flight)

    def note_recorded(self, reserved: Amount, unusable: int) -> None:
        """So many of them are in the transcript from now on, which counts them."""
        self._shared.unusable = self._shared.unusable.plus(reserved, -unusable)

    def too_small(self, body: Body, fit: int, left: int) -> HarnessError:
        """What to raise where only `fit` of the `left` calls still to be made are sure to fit, and
        the next one, with `body`, is not."""
        most = self._most(body)
        passed = self._passed(most) or "calls"
        spent = self._spent()
        return HarnessError(
            f"the rest of the budget is enough for {fit} of the {left} calls that are left: "
            f"{self._usage(passed, spent)} of {self._limit(passed)} so far",
            hint=_goes_on(passed),
        )

    def _is_unlimited(self, body: Body) -> bool:
        counts_tokens = self._tokens is not None or self._usd is not None
        return counts_tokens and reply_limit(body) is None

    def _most_at_once(self, unlimited: bool) -> float:
        """Calls in flight. Each reply seen makes it likelier that the longest is known."""
        return max(1, self._totals.answered) if unlimited else math.inf

    def _most(self, body: Body) -> Amount:
        if self._tokens is None and self._usd is None:
            return Amount(1)
        most = most_tokens(body, self._totals.longest_reply)
        usd = self._price.usd(*most, batch=self._batch) if self._price else 0.0
        return Amount(1, sum(most), usd)

    def _spent(self) -> Amount:
        spent = self._shared.unusable
        for totals, price in self._shared.priced:
            usd = totals.most_usd(price) if price else 0.0
            spent = spent.plus(Amount(totals.calls, totals.most_tokens, usd))
        return spent

    def _passed(self, more: Amount) -> Limit | None:
        return self._over(self._spent().plus(self._shared.reserved).plus(more))

    def _over(self, total: Amount) -> Limit | None:
        if self._calls is not None and total.calls > self._calls:
            return "calls"
        if self._tokens is not None and total.tokens > self._tokens:
            return "tokens"
        if self._usd is not None and total.usd > self._usd + ROUNDING_USD:
            return "usd"
        return None

    def _exhausted(
        self, passed: Limit, most: Amount, unlimited: bool, in_flight: int = 0
    ) -> HarnessError:
        spent = self._spent()
        hint = _goes_on(passed)
        if passed in ("calls", self._over(spent)):
            message = f"the budget of {self._limit(passed)} is used up"
        elif passed == "tokens":
            message = (
                f"the next call may take {most.tokens} tokens, which would pass the budget of "
                f"{self._tokens} tokens"
            )
        else:
            message = (
                f"the next call may cost {dollars(most.usd)}, which would pass the budget of "
                f"${self._usd:g}"
            )
        if unlimited and passed != "calls":
            hint += (
                ". The requests do not say how long a reply may be, so that this is an estimate: "
                "give max_tokens in the spec for a budget that is used up and never passed"
            )
        usage = f"{self._usage(passed, spent)} so far"
        if in_flight:
            usage += f", and {in_flight} calls in flight"
        return HarnessError(f"{message}: {usage}", hint)

    def _usage(self, passed: Limit, spent: Amount) -> str:
        reported = sum(sum(totals.tokens) for totals, _ in self._shared.priced)
        up_to = "up to " if spent.tokens > reported else ""
        used = dollars(spent.usd) if passed == "usd" else f"{spent.tokens} tokens"
        return f"{spent.calls} calls and {up_to}{used}"

    def _limit(self, passed: Limit) -> str:
        if passed == "usd":
            return f"${self._usd:g}"
        return f"{self._calls if passed == 'calls' else self._tokens} {passed}"


def _goes_on(passed: Limit) -> str:
    settled = " (or, where `harness settle` set it, --usd)" * (passed == "usd")
    return (
        f"nothing is lost: raise budget.{passed} in the spec{settled}, and the same command goes on "
        "from here"
    )
