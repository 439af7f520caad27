"""What the interval of a difference would be with more replicates, and with more prompts of bridging
models; and which of them would decide a verdict that a bridge leaves open."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from harness.results.verdict.evidence import Evidence
from harness.results.verdict.forecast import (
    COSTS,
    DECIDED,
    MOST_ADDED,
    More,
    decide,
    first_of_a_kind,
    half_with,
    kinds_of,
    with_more,
)
from harness.results.verdict.sides import KINDS, Reproduced
from harness.stats.bridge import Bridged, Predicted, Shift, bridged, predict
from harness.stats.bridge import difference as bridged_difference
from harness.stats.intervals import LEVEL, ScoreSpan, t_quantile

Decides = Callable[[Sequence[float]], bool]
PERCENT = 100
NOTHING = ScoreSpan(0.0, 0.0, 0.0, 0.0)
STEPS = 12
"""Numbers of bridging prompts that are tried, in equal ratios up to all of them."""


@lru_cache(maxsize=4 * STEPS)
def _predicted(shifts: tuple[Shift, ...], level: float) -> Predicted:
    """The same for every number of replicates."""
    return predict(shifts, level)


@dataclass(frozen=True)
class Bridge:
    """What brings ours into the published judge's terms, and what it is then compared with."""

    shifts: tuple[Shift, ...]
    most: int
    """The row's prompts that the published judge has judged of each bridging model."""
    reported: float
    """The published number, with its standard error and half of what its unjudged prompts leave open;
    points, as all that follows."""
    error: float
    open: float

    @property
    def prompts(self) -> int:
        """Of the bridging model with the fewest."""
        return min(shift.prompts for shift in self.shifts)

    def with_prompts(self, prompts: int) -> "Bridge":
        """As it would be with so many of each model: the same shifts, better known."""
        shifts = tuple(
            replace(s, error=s.error * math.sqrt(s.prompts / prompts), prompts=prompts)
            if prompts > s.prompts else s
            for s in self.shifts
        )  # fmt: skip
        return replace(self, shifts=shifts)

    def weigh(
        self, value: float, low: float, high: float, level: float = LEVEL
    ) -> tuple[Predicted, Bridged, tuple[float, float]]:
        """Our number with its interval under today's judge -> ours in the published judge's terms, and
        the interval of its difference from the published number."""
        predicted = _predicted(self.shifts, level)
        ours = bridged(value / PERCENT, low / PERCENT, high / PERCENT, predicted)
        half = (t_quantile(math.inf, level) * self.error + self.open) / PERCENT
        low, high = bridged_difference(ours, self.reported / PERCENT, half)
        return predicted, ours, (PERCENT * low, PERCENT * high)


@dataclass(frozen=True)
class Outlook:
    """What a verdict's interval is made of."""

    evidence: Evidence
    reproduced: Reproduced
    """Ours; against the study's own answers, ours less theirs."""
    reported_span: ScoreSpan
    margin: float
    bridge: Bridge | None = None

    def ends(
        self, counts: Sequence[float], prompts: int = 0, with_prompts: bool = True
    ) -> tuple[float, float]:
        """The interval of the difference with these numbers of replicates (as `half_with`), and so many
        prompts of each bridging model, where these are more."""
        span = self.reproduced.span
        half = half_with(
            self.evidence, self.reproduced, self.reported_span, counts, self.margin, with_prompts
        )
        if self.bridge is None:
            low, high = span.low - self.reported_span.high, span.high - self.reported_span.low
            return low - half, high + half
        bridge = self.bridge.with_prompts(prompts)
        return bridge.weigh(self.reproduced.value, span.low - half, span.high + half)[2]

    def half(self, counts: Sequence[float], prompts: int = 0) -> float:
        low, high = self.ends(counts, prompts)
        return (high - low) / 2


@dataclass(frozen=True)
class BridgeForetold:
    """What more replicates, or more prompts of the bridging models, would do for an open verdict."""

    more: More
    """How many replicates of a kind alone would decide it; empty where none would."""
    prompts: int | None
    """How many prompts of each bridging model alone would; None where all would not."""
    most: int
    """Prompts of each that the published judge has judged."""
    together: bool
    """Whether endless replicates and all prompts would, where neither alone does."""
    limit: float
    """Half of the interval that these would leave, at least."""
    is_first: bool = False
    """Whether `more` are the first of their kind, which would only show what others could do."""


def foretell_bridged(outlook: Outlook) -> BridgeForetold:
    """As if the difference stayed where it is. What a kind of which there is one alone could take off
    is not known, see `foretell`."""
    bridge, evidence = outlook.bridge, outlook.evidence
    assert bridge is not None

    def decides(counts: Sequence[float], prompts: int = 0) -> bool:
        several = counts[0] > 1 or not evidence.trains
        low, high = outlook.ends(counts, prompts)
        return decide(low, high, outlook.margin, several) in DECIDED

    found = [
        (COSTS[kind] * added, kind, added)
        for kind in kinds_of(evidence)
        if (added := _fewest(evidence, kind, decides)) is not None
    ]
    more: More = ()
    if found:
        _, kind, added = min(found)
        more = ((kind, added),)
    numbers = [n for n in numbers_of_prompts(bridge) if decides(evidence.counts, n)]
    endless, unknown = [math.inf] * len(KINDS), first_of_a_kind(evidence)
    together = decide(*outlook.ends(endless, bridge.most), outlook.margin) in DECIDED
    low, high = outlook.ends(endless, bridge.most, with_prompts=not unknown)
    could = decide(low, high, outlook.margin) in DECIDED
    is_first = bool(unknown) and could and not (more or numbers or together)
    prompts = numbers[0] if numbers else None
    more = unknown if is_first else more
    return BridgeForetold(more, prompts, bridge.most, together, (high - low) / 2, is_first)


def _fewest(evidence: Evidence, kind: str, decides: Decides) -> int | None:
    added = range(1, MOST_ADDED + 1)
    return next((n for n in added if decides(with_more(evidence.counts, kind, n))), None)


def numbers_of_prompts(bridge: Bridge) -> list[int]:
    """Of prompts above the present one, up to all."""
    if bridge.most <= bridge.prompts:
        return []
    ratio = bridge.most / bridge.prompts
    steps = (round(bridge.prompts * ratio ** (step / STEPS)) for step in range(1, STEPS + 1))
    return [n for n, _ in itertools.groupby(steps)]
