"""What `harness settle` may buy next, and what of it is expected to narrow the interval most for its
price."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from harness.common.numbers import dollars
from harness.common.progress import counted
from harness.results.verdict.forecast import COSTS, MOST_ADDED
from harness.results.verdict.outlook import Outlook, numbers_of_prompts
from harness.results.verdict.sides import KIND_WORDS, KINDS
from harness.results.verdict.verdict import Weighed

BRIDGE = "bridge"
Counts = tuple[int, int, int, int]
"""Trainings, samplings of each, judgings of each of these; prompts of each bridging model (0: there is
none, or all of them are judged)."""
WORDS = {**KIND_WORDS, BRIDGE: ("prompt of each bridging model", "prompts of each bridging model")}
PROMPT_COST = 0.005
"""What a prompt of a bridging model costs beside a replicate's COSTS, roughly."""


@dataclass(frozen=True)
class Purchase:
    """So many more of a kind."""

    kind: str
    count: int
    usd: float
    half: float
    """Half of the interval of the difference that it is expected to leave."""
    counts: Counts
    """With it."""
    stages: int
    """To be run for it."""
    made_for: tuple[str, ...] = ()
    """The rows that the others of its stages, which are there already, were made for."""

    def __str__(self) -> str:
        what = f"{self.count} more {WORDS[self.kind][self.count > 1]}"
        there = f"there already{', made for ' * bool(self.made_for)}{', '.join(self.made_for)}"
        if not self.stages:
            return f"{what}: {there}"
        notes = [f"{counted(self.stages, 'stage')} to run"] * (self.stages != self.count)
        notes += [f"the others are {there}"] * bool(self.made_for)
        in_brackets = f" ({'; '.join(notes)})" * bool(notes)
        return f"{what}{in_brackets}, about {dollars(self.usd)}"

    @property
    def weight(self) -> float:
        """What it costs; of what costs no dollars, as its kind usually does beside others."""
        each = PROMPT_COST if self.kind == BRIDGE else COSTS[self.kind]
        return self.usd or each * self.count * 1e-6


def more_of(counts: Counts, kind: str, count: int) -> Counts:
    a, b, c, prompts = (
        n + count * (kind == other) for n, other in zip(counts, (*KINDS, BRIDGE), strict=True)
    )
    return a, b, c, prompts


def half_of(outlook: Outlook, counts: Counts) -> float:
    return outlook.half(counts[:3], counts[3])


def steps(outlook: Outlook, counts: Counts, kind: str) -> Sequence[int]:
    """How many more of a kind may be bought at once; a larger sample of bridging prompts is judged anew
    as a whole."""
    if kind != BRIDGE:
        return range(1, MOST_ADDED + 1)
    if outlook.bridge is None or not counts[3]:
        return ()
    return [n - counts[3] for n in numbers_of_prompts(outlook.bridge) if n > counts[3]]


def enough(
    outlook: Outlook,
    counts: Counts,
    kind: str,
    difference: float,
    may_cost: Callable[[int], bool],
) -> int | None:
    """As many more of a kind as would decide it, were the difference to stay; else as may be paid, at
    least the fewest that can be bought at once; None where none can."""
    found = None
    for count in steps(outlook, counts, kind):
        if found is not None and not may_cost(count):
            break
        found = count
        half = half_of(outlook, more_of(counts, kind, count))
        if half <= abs(abs(difference) - outlook.margin):
            break
    return found


def best(
    outlook: Outlook, counts: Counts, options: Sequence[Purchase], first: Collection[str]
) -> Purchase | None:
    """The one of a kind in `first`, else that which narrows the interval most for its price. Of one
    training, or none, it is not known what more would do."""
    for option in options:
        if option.kind in first:
            return option
    now = half_of(outlook, counts)
    better = [option for option in options if option.half < now or counts[0] == 1]
    return max(better, key=lambda o: (now - o.half) / o.weight, default=None)


def first_asked(weighed: Weighed) -> dict[str, int]:
    """Kind -> how many of it the verdict asks for before what more would do can be told; of one kind at
    most."""
    foretold = weighed.bridge_foretold or weighed.foretold
    return dict(foretold.more) if foretold is not None and foretold.is_first else {}


def price_of(kind: str, counts: Counts, first: int, usd: float) -> Callable[[int], float]:
    """Count -> dollars, where `first` of the kind cost `usd`."""
    before = counts[3] if kind == BRIDGE else 0
    each = usd / (before + first)
    return lambda count: math.fsum((each * before, each * count))
