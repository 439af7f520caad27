"""Keeps a stage within its budget of calls, tokens and dollars."""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from harness.errors import HarnessError
from harness.llm.totals import Totals, most_tokens
from harness.prices import Price

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


class Budget:
    """Limits on what a transcript may come to hold, what earlier tries left in it included.

    A call is let through only when everything already used, what the calls in flight may still use
    and what this one may use stay within the limits; a call's tokens are the most its prompt and
    `max_tokens` can come to. While that fails only because of calls in flight, the call waits.
    A reply that could not be used counts with the most it can have taken.

    price: needed for a limit in dollars. batch: calls are priced as the Batch API's.
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
        self._totals, self._price, self._batch = totals, price, batch
        self._reserved = Amount()
        self._unusable = Amount()
        self._changed = asyncio.Condition()

    async def reserve(self, body: Mapping[str, Any]) -> Amount:
        """Set aside one call, as soon as it fits; returns what was set aside.

        Raises:
            HarnessError: the call would pass a limit.
        """
        most = self._most(body)
        async with self._changed:
            while passed := self._passed(most):
                if self._reserved.calls == 0:
                    raise self._exhausted(passed, most)
                await self._changed.wait()
            self._reserved = self._reserved.plus(most)
        return most

    def reserve_now(self, body: Mapping[str, Any]) -> Amount | None:
        """As `reserve`; None where it would have to wait or raise."""
        most = self._most(body)
        if self._passed(most):
            return None
        self._reserved = self._reserved.plus(most)
        return most

    def hold(self, body: Mapping[str, Any]) -> Amount:
        """Set aside a call that is in flight already, whatever the limits say."""
        most = self._most(body)
        self._reserved = self._reserved.plus(most)
        return most

    async def release(self, reserved: Amount) -> None:
        """The calls are over; what they really used is in the transcript by now."""
        async with self._changed:
            self._reserved = self._reserved.plus(reserved, -1)
            self._changed.notify_all()

    def note_unusable(self, reserved: Amount) -> None:
        """An attempt of a call in flight was served, and its reply could not be used.

        Raises:
            HarnessError: another attempt would pass a limit.
        """
        self._unusable = self._unusable.plus(reserved)
        if passed := self._passed(Amount()):
            raise self._exhausted(passed, reserved)

    def note_recorded(self, reserved: Amount, unusable: int) -> None:
        """So many of them are in the transcript from now on, which counts them."""
        self._unusable = self._unusable.plus(reserved, -unusable)

    def too_small(self, body: Mapping[str, Any], fit: int, left: int) -> HarnessError:
        """What to raise where only `fit` of the `left` calls still to be made are sure to fit, and
        the next one, with `body`, is not."""
        most = self._most(body)
        passed = self._passed(most) or "calls"
        spent = self._spent()
        return HarnessError(
            f"the rest of the budget is enough for {fit} of the {left} calls that are left: "
            f"{self._told(passed, spent)} of {self._limit(passed)} so far",
            hint=_goes_on(passed),
        )

    def _most(self, body: Mapping[str, Any]) -> Amount:
        if self._tokens is None and self._usd is None:
            return Amount(1)
        most = most_tokens(body, self._totals.longest_reply)
        usd = self._price.usd(*most, batch=self._batch) if self._price else 0.0
        return Amount(1, sum(most), usd)

    def _spent(self) -> Amount:
        totals = self._totals
        usd = totals.most_usd(self._price) if self._price else 0.0
        return Amount(totals.calls, totals.most_tokens, usd).plus(self._unusable)

    def _passed(self, more: Amount) -> Limit | None:
        if self._calls is None and self._tokens is None and self._usd is None:
            return None
        total = self._spent().plus(self._reserved).plus(more)
        if self._calls is not None and total.calls > self._calls:
            return "calls"
        if self._tokens is not None and total.tokens > self._tokens:
            return "tokens"
        if self._usd is not None and total.usd > self._usd + ROUNDING_USD:
            return "usd"
        return None

    def _exhausted(self, passed: Limit, most: Amount) -> HarnessError:
        spent = self._spent()
        if passed == "calls":
            message = f"the budget of {self._calls} calls is used up"
        elif passed == "tokens":
            message = (
                f"the next call may take {most.tokens} tokens, which would pass the budget of "
                f"{self._tokens} tokens"
            )
        else:
            message = (
                f"the next call may cost ${most.usd:.4f}, which would pass the budget of "
                f"${self._usd:g}"
            )
        return HarnessError(f"{message}: {self._told(passed, spent)} so far", _goes_on(passed))

    def _told(self, passed: Limit, spent: Amount) -> str:
        up_to = "up to " if spent.tokens > sum(self._totals.tokens) else ""
        used = f"${spent.usd:.4f}" if passed == "usd" else f"{spent.tokens} tokens"
        return f"{spent.calls} calls and {up_to}{used}"

    def _limit(self, passed: Limit) -> str:
        if passed == "usd":
            return f"${self._usd:g}"
        return f"{self._calls if passed == 'calls' else self._tokens} {passed}"


def _goes_on(passed: Limit) -> str:
    return f"nothing is lost: raise budget.{passed} in the spec, and the same command goes on from here"
