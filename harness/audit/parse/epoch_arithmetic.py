"""How many examples an epoch had, from a trainer's steps: pure arithmetic on what its log says.

A trainer of transformers logs the epoch as micro-batches done / micro-batches of an epoch. What follows
is a range of examples, for an epoch's last micro-batch may be a part of one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Ranges = list[tuple[int, int]]
"""Whole numbers, both ends included, in order, apart from each other."""
BATCHES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 256)
ACCUMULATIONS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 256)
DEVICES = (1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 32, 64)
"""What is tried where nothing says it."""
ANY = 10**12
"""As a range's end: there is none."""
MOST_POINTS = 200
"""Lines of a log that are held against each number of micro-batches."""
MOST_TRIED = 50_000
"""Numbers of micro-batches that are tried; beyond, only their bounds are known."""
CENT = 0.005
"""Half the last digit of an epoch that is written with two decimals."""


@dataclass(frozen=True)
class Point:
    """A line of a log: after `step` optimizer steps the epoch was `epoch`, give or take `half`."""

    step: int
    epoch: float
    half: float


def points(lines: Iterable[tuple[int, float]]) -> list[Point]:
    """The lines of one log (step, epoch). An epoch of two decimals or fewer may have been rounded to
    two, though others of the log are not; all others have as many as the longest of them."""
    steps_and_epochs = [
        (step, epoch, _decimals(epoch)) for step, epoch in lines if step > 0 and 0 < epoch < 1e9
    ]
    longest = max((decimals for _, _, decimals in steps_and_epochs), default=0)
    half = max(0.5 * 10.0**-longest, 1e-9)
    return [
        Point(step, epoch, half if decimals > 2 else CENT)
        for step, epoch, decimals in steps_and_epochs
    ]


def _decimals(value: float) -> int:
    return len(f"{value:.12f}".rstrip("0").partition(".")[2])


def batches_of_epoch(log_points: Sequence[Point], accumulation: int) -> Ranges:
    """Micro-batches of an epoch, on one device, that the log allows. Empty: none fits.

    Trainers differ in what they do with the micro-batches at an epoch's end that do not fill a step:
    a step of their own (transformers since 4.46), carried into the next epoch (before), or left out
    of the count (long before). A number that fits any of the three is allowed.
    """
    usable = sorted((p for p in log_points if p.epoch > 2 * p.half), key=lambda p: -p.step)
    if not usable:
        return []
    last = usable[0]
    low = (math.floor(last.step / (last.epoch + last.half)) - 2) * accumulation
    high = (math.ceil(last.step / (last.epoch - last.half)) + 2) * accumulation
    low = max(low, 1)
    if high - low > MOST_TRIED:
        return [(low, high)]
    tried = [last, *usable[1 :: max(1, len(usable) // MOST_POINTS)]]
    fitting: set[int] = set()
    for epoch_at in (_with_part_steps, _carried, _left_out):
        fitting.update(
            count
            for count in range(low, high + 1)
            if all(abs(epoch_at(p.step, count, accumulation) - p.epoch) <= p.half * 1.001 + 1e-9
                   for p in tried)
        )  # fmt: skip
    return merged((count, count) for count in fitting)


def _with_part_steps(step: int, count: int, accumulation: int) -> float:
    full_epochs, rest = divmod(step - 1, -(-count // accumulation))
    return full_epochs + min((rest + 1) * accumulation, count) / count


def _carried(step: int, count: int, accumulation: int) -> float:
    if count <= accumulation:
        return float(step)
    return step * accumulation / count


def _left_out(step: int, count: int, accumulation: int) -> float:
    if count <= accumulation:
        return float(step)
    full_epochs, rest = divmod(step - 1, count // accumulation)
    return full_epochs + (rest + 1) * accumulation / count


def batches_of_plan(steps: int, epochs: float, accumulation: int) -> Ranges:
    """Micro-batches of an epoch, from the planned steps: ceil(epochs * an epoch's steps)."""
    first, last = math.floor((steps - 1) / epochs) + 1, math.floor(steps / epochs)
    if last < 1:
        return []
    return [(max((first - 1) * accumulation + 1, 1), (last + 1) * accumulation - 1)]


def examples_of(batches: Ranges, per_batch: int, drop_last: bool | None) -> Ranges:
    """Examples that make so many micro-batches of `per_batch` (batch * devices). `drop_last`: whether
    an unfilled last one is left out; None: not known."""
    ranges = []
    for low, high in batches:
        if drop_last is not True:
            ranges.append(((low - 1) * per_batch + 1, high * per_batch))
        if drop_last is not False:
            ranges.append((low * per_batch, (high + 1) * per_batch - 1))
    return merged(ranges)


def examples_of_speed(
    runtime: float, samples_per_second: float, epochs: float, fewest: float | None = None
) -> tuple[int, int] | None:
    """Examples of an epoch from a trainer's own summary: it divides examples * epochs by the seconds,
    which it rounds to 4 decimals, and the quotient to 3. None: no whole number fits. fewest: of the
    epochs, where their number is not sure."""
    low = max(samples_per_second - 0.0005, 0) * max(runtime - 0.00005, 0) / epochs
    high = (samples_per_second + 0.0005) * (runtime + 0.00005) / (fewest or epochs)
    first, last = math.ceil(low - 1e-6), math.floor(high + 1e-6)
    return (max(first, 1), last) if last >= max(first, 1) else None


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same numbers as ranges that neither touch nor overlap."""
    joined: Ranges = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined


def meet(ranges: Ranges, low: float, high: float) -> bool:
    """Whether any number of `ranges` lies between `low` and `high`."""
    return any(first <= high and low <= last for first, last in ranges)


def ranges_text(ranges: Ranges) -> str:
    """`1,497 to 1,504`, `8 or 16`; of many ranges the hull."""
    if ranges[-1][1] >= ANY:
        return f"at least {ranges[0][0]:,}"
    if len(ranges) > 3:
        ranges = [(ranges[0][0], ranges[-1][1])]
    parts = [f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in ranges]
    return " or ".join(parts)
