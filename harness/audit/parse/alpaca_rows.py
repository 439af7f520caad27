"""Rows of an alpaca_eval annotations.json, and what the judge said of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from harness.audit.model import SURE
from harness.audit.parse.judged_pairs import JudgedPair, as_preference
from harness.judge.kinds.alpaca_eval.readings import READERS, shows_model_first
from harness.judge.scores import BASELINE, DRAW, MODEL

STORED_DECIMALS = 1e-6
"""annotations.json keeps ten decimals of a probability; some copies keep fewer."""
GUESSED = (
    "chatgpt", "weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4", "alpaca_eval_gpt4_turbo_fn",
    "alpaca_eval_gpt4_fn",
)  # fmt: skip
"""Annotators as which another one's replies are read, where nearly all of them can be."""
NEARLY_ALL = 0.9
HARDLY_ANY = 0.1
"""Of an annotator of whose replies no more can be read, the replies may be another's."""
FOLLOWS = 0.8
"""So large a share of the replies must fit the order that alpaca_eval draws before the rest are faults:
below, the order was drawn in another way."""
RAW = ("raw_completion", "preference_raw_completion")


@dataclass
class Annotations:
    """The rows of one model under one annotator, as they stand and as they are read."""

    model: str
    annotator: str
    baseline: str
    stored: list[dict[str, Any]] = field(default_factory=list)
    rows: list[JudgedPair] = field(default_factory=list)
    readings: list[float | None] = field(default_factory=list)
    """Of each row that has a reply: 1 to 2, the place of the better output; None: it does not parse, or
    there is no reply, or nothing is known of the annotator."""
    drawn: list[bool] = field(default_factory=list)
    """Whether alpaca_eval would show the model's output first."""
    reader: str = ""
    """The annotator of alpaca_eval as which the replies are read; "" where that is not known."""
    order_from: str = ""
    odd_for_model: int = 0
    """Preferences that do not follow from the replies in alpaca_eval's order, where all are for the
    model."""
    order_is_known: bool = True


def is_annotations(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(v, dict) for v in values)
        and any("preference" in v and "instruction" in v for v in values)
    )


def split(stored: Sequence[dict[str, Any]], folder: str = "") -> list[Annotations]:
    """By model and annotator, in the order in which they appear.

    folder: the name of the folder, which is the annotator's where the rows do not name one.
    """
    default = folder if folder in READERS else ""
    sets: dict[tuple[str, str], Annotations] = {}
    for row in stored:
        model, judge = text(row.get("generator_2")), text(row.get("annotator")) or default
        annotations = sets.setdefault(
            (model, judge), Annotations(model, judge, text(row.get("generator_1")))
        )
        annotations.stored.append(row)
    for annotations in sets.values():
        _read(annotations)
    return list(sets.values())


def text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def key_of(row: dict[str, Any]) -> str:
    """The prompt: the instruction, and the input where there is one."""
    extra_input = text(row.get("input"))
    return text(row.get("instruction")) + (f"\n{extra_input}" if extra_input else "")


def raw_of(row: dict[str, Any]) -> Any:
    return next((row[name] for name in RAW if row.get(name)), None)


def flat_reply(row: dict[str, Any]) -> str:
    """The judge's reply as text, to be compared."""
    return json.dumps(raw_of(row), sort_keys=True)


def _read(annotations: Annotations) -> None:
    annotations.reader = (
        annotations.annotator if annotations.annotator in READERS else _guess(annotations.stored)
    )
    if annotations.reader and annotations.reader == annotations.annotator:
        replies_read = [
            _reading(annotations.reader, raw)
            for row in annotations.stored
            if (raw := raw_of(row)) is not None
        ]
        if replies_read.count(None) > (1 - HARDLY_ANY) * len(replies_read):
            annotations.reader = _guess(annotations.stored) or annotations.reader
    fits, odd, shares = [], [], []
    for row in annotations.stored:
        preference, _ = as_preference(row.get("preference"))
        raw = raw_of(row)
        reading = (
            _reading(annotations.reader, raw) if annotations.reader and raw is not None else None
        )
        annotations.readings.append(reading)
        drawn = _drawn(annotations.annotator, row)
        annotations.drawn.append(drawn)
        if reading is not None and preference is not None and reading != DRAW:
            fits.append(abs(in_order(reading, drawn) - preference) <= STORED_DECIMALS)
            shares.append(preference - 1)
            if not fits[-1]:
                odd.append(preference > in_order(reading, drawn))
    # Without a reply the draw is right or, for another package's annotator, a division by chance, in
    # which no bias can show.
    # Of another order, what differs is for the model as often as the model wins.
    is_one_sided = bool(odd) and all(odd) and fmean(shares) ** len(odd) < SURE
    annotations.order_is_known = not fits or fmean(fits) >= FOLLOWS or is_one_sided
    annotations.odd_for_model = len(odd) if odd and all(odd) else 0
    annotations.order_from = "alpaca_eval's draw" if annotations.order_is_known else "the replies"
    for row, reading, drawn in zip(
        annotations.stored, annotations.readings, annotations.drawn, strict=True
    ):
        preference, number = as_preference(row.get("preference"))
        output, baseline = (_or_none(row.get(name)) for name in ("output_2", "output_1"))
        first: bool | None = None
        if output is not None and output == baseline:
            first = None
        elif isinstance(row.get("is_switched"), bool):
            first = row["is_switched"]
        elif annotations.order_is_known:
            first = drawn
        elif reading is not None and preference is not None and reading != DRAW:
            first = _order(reading, preference)
        annotations.rows.append(
            JudgedPair(key_of(row), output, baseline, preference, first, number)
        )


def _guess(stored: Sequence[dict[str, Any]]) -> str:
    """The first annotator as which nearly all replies can be read, and say what is stored."""
    replies = [
        (raw, preference)
        for row in stored
        if (raw := raw_of(row)) is not None
        and (preference := as_preference(row.get("preference"))[0]) is not None
    ]
    for name in GUESSED:
        right = sum(
            (reading := _reading(name, raw)) is not None and _order(reading, preference) is not None
            for raw, preference in replies
        )
        if replies and right >= NEARLY_ALL * len(replies):
            return name
    return ""


def _drawn(annotator: str, row: dict[str, Any]) -> bool:
    """Whether alpaca_eval would show the model's output first."""
    try:
        return shows_model_first(annotator, text(row.get("instruction")))
    except UnicodeEncodeError:
        return False  # Half a character, of which no seed can be made.


def _reading(annotator: str, raw: Any) -> float | None:
    """The place of the better output, 1 or 2 or between, whatever the order was."""
    for form in _forms(raw):
        try:
            reading = READERS[annotator](form)
        except (TypeError, ValueError, AttributeError, OverflowError, MemoryError):
            continue
        if reading is not None:
            return reading
    return None


def _forms(raw: Any) -> Iterator[Any]:
    """A reply as it is stored; of an object what it holds of a choice, a message or a call, and its
    text as JSON, which is what a judge with a function wrote."""
    yield raw
    if not isinstance(raw, dict):
        return
    message = raw["message"] if isinstance(raw.get("message"), dict) else raw
    calls = message.get("tool_calls")
    called = calls[0] if isinstance(calls, list) and calls else message
    called = called if isinstance(called, dict) else {}
    for name in ("function", "function_call"):
        function = called.get(name, message.get(name))
        if isinstance(function, dict):
            yield function.get("arguments")
    yield from (value for name in ("content", "text") if (value := message.get(name)) is not None)
    yield json.dumps(raw)


def in_order(reading: float, model_first: bool) -> float:
    return BASELINE + MODEL - reading if model_first else reading


def _order(reading: float, preference: float) -> bool | None:
    """Whether the model was shown first, from a reply and what was stored of it."""
    if abs(reading - preference) <= STORED_DECIMALS:
        return False
    return True if abs(BASELINE + MODEL - reading - preference) <= STORED_DECIMALS else None


def _or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
