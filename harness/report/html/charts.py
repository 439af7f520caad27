"""Figures as inline SVG: no script, no style of their own, colours from the page's classes.

Each has a title, a description that says the same in words, and round coordinates, so that the same
numbers give the same bytes. Sizes are in units of the drawing, about a pixel on a phone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.html.markup import Html, join, tag

WIDTH = 400
SIDE = 14
"""Left and right of what is drawn."""
POINTS = 160
"""Most points of a curve; of more steps, each point is the mean of several."""
BROADEST = 40
"""Of a histogram's bars."""
Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` over `start` to `end` of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> str:
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return coordinate(self.start + share * (self.end - self.start))


def coordinate(value: float) -> str:
    """At most one decimal, as short as it goes."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def figure(
    name: str, height: int, title: str, words: str, *parts: Any, caption: Any = None
) -> Html:
    """A drawing with its title and its words for those who do not see it; `name` is unique."""
    drawing = tag(
        "svg",
        tag("title", title, id=f"{name}-t"),
        tag("desc", words, id=f"{name}-d"),
        *parts,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
        class_="chart",
    )
    return tag("figure", drawing, tag("figcaption", tag("strong", title), ". ", caption or words))


def _text(x: str | float, y: float, words: str, anchor: str = "middle", class_: str = "") -> Html:
    return tag("text", words, x=x, y=y, text_anchor=anchor, class_=class_ or None)


def _axis(scale: Scale, y: float) -> list[Html]:
    """A horizontal axis with its numbers below it."""
    values = ticks(scale.low, scale.high)
    parts = [
        tag("path", d=f"M{coordinate(scale.start)} {y}H{coordinate(scale.end)}", class_="axis")
    ]
    for value in values:
        parts.append(_text(scale(value), y + 14, short(value)))
    return parts


def short(value: float) -> str:
    """A tick's number."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:,.6g}k"
    return f"{value:.6g}"


@dataclass(frozen=True)
class NumberLine:
    """A reported number and one of ours on one axis. None: not known."""

    reported: float | None
    reported_error: float | None
    margin: float | None
    value: float | None
    low: float | None
    high: float | None
    lower_bound: float | None = None
    upper_bound: float | None = None
    is_percent: bool = False
    rejudged: float | None = None
    """The study's own answers under our judge, where the reported number has another."""
    in_their_terms: tuple[float, float, float] | None = None
    """Ours as the published judge would have it, and the ends of its interval."""

    def values(self) -> list[float]:
        values = [
            self.reported, self.value, self.low, self.high, self.lower_bound, self.upper_bound,
            self.rejudged, *(self.in_their_terms or ()),
        ]  # fmt: skip
        if self.reported is not None and self.margin is not None:
            values += [self.reported - self.margin, self.reported + self.margin]
        if self.reported is not None and self.reported_error is not None:
            values += [self.reported - 2 * self.reported_error]
            values += [self.reported + 2 * self.reported_error]
        return [v for v in values if v is not None and math.isfinite(v)]

    def domain(self) -> tuple[float, float]:
        """What is drawn: all that is known and a little more; never less than a twentieth of a
        percentage scale, and not beyond it."""
        values = self.values()
        low, high = min(values), max(values)
        least = 5.0 if self.is_percent else max(abs(high), abs(low), 1e-6) * 0.02
        pad = max((high - low) * 0.12, (least - (high - low)) / 2)
        start, end = low - pad, high + pad
        if self.is_percent:
            start, end = max(start, min(low, 0.0)), min(end, max(high, 100.0))
        return start, end


def number_line(name: str, title: str, words: str, numbers: NumberLine, tone: str) -> Html:
    """Our number with its interval, against the reported one with the margin as a band."""
    scale = Scale(*numbers.domain(), SIDE, WIDTH - SIDE)
    parts = [] if numbers.reported is None else _reported(scale, numbers)
    y = 22 if numbers.reported is None else 58
    if numbers.value is not None:
        low, high = numbers.lower_bound, numbers.upper_bound
        if low is not None and high is not None and low < high:
            path = f"M{scale(low)} {y - 4}v8m0 -4H{scale(high)}m0 -4v8"
            parts.append(tag("path", d=path, class_="bounds"))
        if numbers.low is not None and numbers.high is not None:
            path = f"M{scale(numbers.low)} {y}H{scale(numbers.high)}"
            parts.append(tag("path", d=path, class_="interval"))
        parts.append(tag("circle", cx=scale(numbers.value), cy=y, r=5, class_="ours"))
    for drawn in _beside(scale, numbers, y):
        y += 24
        parts += drawn
    parts += _axis(scale, y + 24)
    return figure(name, y + 44, title, words, tag("g", parts, class_=tone))


def _reported(scale: Scale, numbers: NumberLine) -> list[Html]:
    """The published number: its margin as a band, its own 95 % interval, a diamond, its value."""
    value = numbers.reported
    assert value is not None
    parts, x = [], scale(value)
    if numbers.margin is not None:
        start = float(scale(max(scale.low, value - numbers.margin)))
        wide = float(scale(min(scale.high, value + numbers.margin))) - start
        parts.append(
            tag("rect", x=coordinate(start), y=20, width=coordinate(wide), height=54, rx=3,
                class_="band")
        )  # fmt: skip
    parts.append(tag("path", d=f"M{x} 20V74", class_="reported"))
    if numbers.reported_error is not None:
        low, high = (value + sign * 1.96 * numbers.reported_error for sign in (-1, 1))
        parts.append(tag("path", d=f"M{scale(low)} 32H{scale(high)}", class_="reported-spread"))
    parts.append(tag("path", d=f"M{x} 26l6 6l-6 6l-6 -6z", class_="reported-mark"))
    place = coordinate(min(max(float(x), 58), WIDTH - 58))  # a label stays in the drawing
    parts.append(_text(place, 14, f"reported {digits(value)}", class_="label"))
    return parts


def _beside(scale: Scale, numbers: NumberLine, y: int) -> Iterator[list[Html]]:
    """A line below for each way in which a number of another judge is compared with ours."""
    if numbers.rejudged is not None:
        y += 24
        x = scale(numbers.rejudged)
        yield [
            tag("path", d=f"M{x} {y - 6}l6 6l-6 6l-6 -6z", class_="rejudged"),
            _named(scale, numbers.rejudged, y, "their answers, our judge"),
        ]
    if numbers.in_their_terms is not None:
        y += 24
        value, low, high = numbers.in_their_terms
        yield [
            tag("path", d=f"M{scale(low)} {y}H{scale(high)}", class_="interval"),
            tag("circle", cx=scale(value), cy=y, r=5, class_="rejudged"),
            _named(scale, value, y, "ours, their judge"),
        ]


def _named(scale: Scale, value: float, y: int, words: str) -> Html:
    """On the side of a mark where there is more room."""
    x = float(scale(value))
    left = x > WIDTH / 2
    place, anchor = (x - 12, "end") if left else (x + 12, "start")
    return _text(coordinate(place), y - 7, f"{words} {digits(value)}", anchor, "label")


def digits(value: float) -> str:
    """At most four decimals."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def small(numbers: NumberLine, tone: str) -> Html:
    """The same in a table's cell, on the whole scale of percent; its numbers stand beside it."""
    scale = Scale(0, 100, 4, 116)
    parts = [tag("path", d="M4 18H116M4 15v6M60 16v4M116 15v6", class_="axis")]
    if numbers.reported is not None:
        if numbers.margin is not None:
            start = float(scale(max(0.0, numbers.reported - numbers.margin)))
            end = float(scale(min(100.0, numbers.reported + numbers.margin)))
            parts.append(
                tag("rect", x=coordinate(start), y=2, width=coordinate(end - start), height=13,
                    class_="band")
            )  # fmt: skip
        parts.append(tag("path", d=f"M{scale(numbers.reported)} 1V16", class_="reported"))
    if numbers.value is not None:
        if numbers.low is not None and numbers.high is not None:
            low, high = max(0.0, numbers.low), min(100.0, numbers.high)
            parts.append(tag("path", d=f"M{scale(low)} 9H{scale(high)}", class_="interval"))
        parts.append(tag("circle", cx=scale(numbers.value), cy=9, r=3.5, class_="ours"))
    return tag("svg", parts, viewBox="0 0 120 22", aria_hidden="true", class_=f"small {tone}")


def thinned(curve: Curve) -> Curve:
    """At most POINTS of them: each the mean of as many neighbours, at their mean place."""
    each = math.ceil(len(curve) / POINTS)
    if each <= 1:
        return curve
    parts = [curve[i : i + each] for i in range(0, len(curve), each)]
    return [
        (math.fsum(x for x, _ in part) / len(part), math.fsum(y for _, y in part) / len(part))
        for part in parts
    ]


def losses(name: str, words: str, train: Sequence[Curve], held: Sequence[Curve]) -> Html:
    """Loss over steps: a line for each training, dots for what was held out."""
    drawn = [thinned(curve) for curve in train]
    values = [point for curve in (*drawn, *held) for point in curve]
    top, bottom, left = 12, 168, 40
    x = Scale(0, max(step for step, _ in values), left, WIDTH - SIDE)
    lowest, highest = min(v for _, v in values), max(v for _, v in values)
    start = 0.0 if lowest >= 0 and lowest < highest * 0.6 else lowest - (highest - lowest) * 0.1
    y = Scale(start, highest + (highest - start) * 0.03 or 1.0, bottom, top)
    parts = []
    for value in ticks(y.low, y.high, 5):
        parts.append(tag("path", d=f"M{left} {y(value)}H{WIDTH - SIDE}", class_="grid"))
        parts.append(_text(left - 6, float(y(value)) + 4, short(value), "end"))
    parts += _axis(x, bottom)
    for number, curve in enumerate(drawn):
        parts.append(tag("path", d=_line(curve, x, y), class_=f"curve c{number % 4}"))
    for number, curve in enumerate(held):
        if len(curve) > 1:
            parts.append(tag("path", d=_line(curve, x, y), class_=f"held-line c{number % 4}"))
        parts += [
            tag("circle", cx=x(step), cy=y(loss), r=3.5, class_="held") for step, loss in curve
        ]
    parts.append(_text(WIDTH - SIDE, bottom + 28, "optimizer steps", "end"))
    return figure(name, 200, "Loss curve", words, *parts)


def _line(curve: Curve, x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{x(step)} {y(loss)}" for step, loss in curve)


Bins = Sequence[tuple[str, int]]


def histogram(name: str, title: str, words: str, above: Bins, below: Bins = ()) -> Html:
    """How many texts fall into each bin: the shares of one set upwards, of another downwards."""
    labels = [label for label, _ in above]
    sums = [sum(count for _, count in bins) or 1 for bins in (above, below)]
    totalled = zip((above, below), sums, strict=True)
    shares = [[count / total for _, count in bins] for bins, total in totalled]
    most = max([*shares[0], *shares[1], 1e-9])
    left, right = SIDE, WIDTH - SIDE
    each = min((right - left) / max(len(labels), 1), BROADEST)
    tall = 62 if below else 118
    middle = 10 + tall
    parts = []
    for row, (sign, class_) in enumerate(((-1, "bar"), (1, "bar other"))):
        for place, part in enumerate(shares[row]):
            if part == 0:
                continue
            height = max(part / most * tall, 1.5)
            top = middle - height - 0.5 if sign < 0 else middle + 0.5
            parts.append(
                tag("rect", x=coordinate(left + place * each + 1), y=coordinate(top),
                    width=coordinate(max(each - 2, 1)), height=coordinate(height), class_=class_)
            )  # fmt: skip
    bottom = middle + tall if below else middle
    parts.append(tag("path", d=f"M{left} {middle}H{right}", class_="axis"))
    every = max(1, math.ceil(len(labels) / 9))
    for place in range(0, len(labels), every):
        parts.append(_text(coordinate(left + (place + 0.5) * each), bottom + 15, labels[place]))
    parts.append(_text(right, bottom + 30, "words", "end"))
    return figure(name, int(bottom + 36), title, words, *parts)


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    """From 0 to 100."""
    error: float | None
    note: str


def bars(name: str, title: str, words: str, entries: Sequence[Bar], caption: str) -> Html:
    """Percentages one below the other, with their standard errors; each bar has its note beside it,
    so that the caption need not repeat them."""
    scale = Scale(0, 100, SIDE, WIDTH - SIDE)
    parts: list[Html] = []
    y = 4
    for bar in entries:
        parts.append(_text(SIDE, y + 12, bar.label, "start", "label"))
        parts.append(_text(WIDTH - SIDE, y + 12, bar.note, "end"))
        width = coordinate(max(float(scale(bar.value)) - SIDE, 1))
        full_width = WIDTH - 2 * SIDE
        for long, class_ in ((full_width, "track"), (width, "bar")):
            parts.append(tag("rect", x=SIDE, y=y + 18, width=long, height=12, rx=2, class_=class_))
        if bar.error:
            low, high = max(0.0, bar.value - bar.error), min(100.0, bar.value + bar.error)
            parts.append(
                tag("path", d=f"M{scale(low)} {y + 21}v6m0 -3H{scale(high)}m0 -3v6", class_="error")
            )
        y += 42
    parts.append(tag("path", d=f"M{scale(50)} 18V{y - 8}", class_="half"))
    return figure(name, y, title, words, join(parts), caption=caption)
