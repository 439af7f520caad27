"""Rows of an alpaca_eval annotations.json, and what the judge said of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from harness.audit.model import SURE
from harness.audit.parse.files import JsonObject
from harness.audit.parse.judged_pairs import JudgedPair, StoredOutput, as_preference
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


@dataclass(frozen=True)
class ModelOutput:
    """A row of model_outputs.json; output: None for null."""

    prompt: str
    output: str | None
    generator: str
    is_cut: bool

    @property
    def text(self) -> str:
        return self.output or ""

    def unjudged(self) -> StoredOutput:
        return StoredOutput(self.prompt, self.text, cut=self.is_cut)


@dataclass(frozen=True)
class StoredJudgement:
    """A row of annotations.json. pair: what was judged, and how; the order is not in it. raw: the
    judge's reply; scores: those of a grading in both orders, None of any other; seconds: what the call
    took. switched: whether the row says that the model's output was shown first."""

    model: str
    annotator: str
    baseline_model: str
    instruction: str
    dataset: str
    pair: JudgedPair
    raw: Any
    scores: Any
    seconds: float | None
    switched: bool | None

    @property
    def reply(self) -> str:
        """As text, to be compared."""
        return json.dumps(self.raw, sort_keys=True)


@dataclass
class Annotations:
    """The rows of one model under one annotator, as they stand and as they are read."""

    model: str
    annotator: str
    baseline: str
    stored: list[StoredJudgement] = field(default_factory=list)
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


def annotations_in(values: Any) -> list[JsonObject]:
    """The rows of annotations; none, where a file's value is something else."""
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        return []
    is_any = any("preference" in v and "instruction" in v for v in values)
    return [JsonObject(v) for v in values] if is_any else []


def read_outputs(rows: Sequence[JsonObject]) -> list[ModelOutput]:
    return [
        ModelOutput(
            prompt_of(row),
            None if row.get("output") is None else text(row["output"]),
            text(row.get("generator")),
            row.get("finish_reason") == "length",
        )
        for row in rows
    ]


def split(values: Sequence[JsonObject], folder: str = "") -> list[Annotations]:
    """A file's rows by model and annotator, in the order in which they appear.

    folder: the name of the folder, which is the annotator's where the rows do not name one.
    """
    default = folder if folder in READERS else ""
    sets: dict[tuple[str, str], Annotations] = {}
    for row in map(_stored, values):
        judge = row.annotator or default
        empty = Annotations(row.model, judge, row.baseline_model)
        sets.setdefault((row.model, judge), empty).stored.append(row)
    for annotations in sets.values():
        _read(annotations)
    return list(sets.values())


def _stored(row: JsonObject) -> StoredJudgement:
    pair = prompt_of(row), row.text("output_2"), row.text("output_1")
    preference, number = as_preference(row.get("preference"))
    seconds, switched = row.get("time_per_example"), row.get("is_switched")
    return StoredJudgement(
        model=text(row.get("generator_2")),
        annotator=text(row.get("annotator")),
        baseline_model=text(row.get("generator_1")),
        instruction=text(row.get("instruction")),
        dataset=text(row.get("dataset")),
        pair=JudgedPair(*pair, preference, None, number),
        raw=next((row[name] for name in RAW if row.get(name)), None),
        scores=None if row.get("verdicts") is None else row.get("scores") or (),
        seconds=seconds if isinstance(seconds, float) else None,
        switched=switched if isinstance(switched, bool) else None,
    )


def text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def prompt_of(row: JsonObject) -> str:
    return with_input(text(row.get("instruction")), row)


def with_input(instruction: str, row: JsonObject) -> str:
    """The instruction, and the row's input where there is one."""
    extra_input = text(row.get("input"))
    return instruction + (f"\n{extra_input}" if extra_input else "")


def _read(annotations: Annotations) -> None:
    stored = annotations.stored
    is_known = annotations.annotator in READERS
    annotations.reader = annotations.annotator if is_known else _guess(stored)
    if is_known:
        replies = [_reading(annotations.reader, row.raw) for row in stored if row.raw is not None]
        if replies.count(None) > (1 - HARDLY_ANY) * len(replies):
            annotations.reader = _guess(stored) or annotations.reader
    annotations.readings = [
        _reading(annotations.reader, row.raw)
        if annotations.reader and row.raw is not None
        else None
        for row in stored
    ]
    annotations.drawn = [_drawn(annotations.annotator, row.instruction) for row in stored]
    fits, odd, shares = [], [], []
    for row, reading, drawn in zip(stored, annotations.readings, annotations.drawn, strict=True):
        preference = row.pair.preference
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
    for row, reading, drawn in zip(stored, annotations.readings, annotations.drawn, strict=True):
        pair, first = row.pair, None
        if pair.output is not None and pair.output == pair.baseline:
            first = None
        elif row.switched is not None:
            first = row.switched
        elif annotations.order_is_known:
            first = drawn
        elif reading is not None and pair.preference is not None and reading != DRAW:
            first = _order(reading, pair.preference)
        annotations.rows.append(replace(pair, first=first))


def _guess(stored: Sequence[StoredJudgement]) -> str:
    """The first annotator as which nearly all replies can be read, and say what is stored."""
    replies = [
        (row.raw, row.pair.preference)
        for row in stored
        if row.raw is not None and row.pair.preference is not None
    ]
    for name in GUESSED:
        right = sum(
            (reading := _reading(name, raw)) is not None and _order(reading, preference) is not None
            for raw, preference in replies
        )
        if replies and right >= NEARLY_ALL * len(replies):
            return name
    return ""


def _drawn(annotator: str, instruction: str) -> bool:
    """Whether alpaca_eval would show the model's output first."""
    try:
        return shows_model_first(annotator, instruction)
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
