"""How other people's data sets are laid out, and what one of their rows says as an example.

Whatever the layout, a row is first read as a conversation: texts of the user and the assistant in
turn, after at most one system text.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from harness.data.conversations import (
    ASSISTANT,
    LABEL,
    MARKS,
    SYSTEM,
    USER,
    WRONG_TYPE,
    as_text,
    is_absent,
    is_trained,
    read_mark,
    read_message,
)
from harness.data.dataset import DatasetExample
from harness.data.tables import Table
from harness.errors import InputError
from harness.spec.hub import Columns

Kind = Literal["instruction", "preference"]
Turns = Literal["first", "last", "history", "drop"]
Cell = Callable[[str], Any]
"""What a row holds of a field."""

USUAL = {
    "instruction": ("instruction", "prompt", "question", "query"),
    "output": ("output", "completion", "response", "answer"),
    "messages": ("conversations", "messages", "conversation"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "id": ("id",),
    "name": ("name",),
    "input": ("input", "context"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "rating": ("rating",),
    "is_classification": ("is_classification",),
}
"""What each field's column is called where the spec does not say."""
ABOUT = ("id", "name", "rating", "is_classification")
"""Fields beside the texts. A column of the usual name that holds something else is left aside."""
FIELDS = {
    "pair": ("instruction", "output", "input", "system", "history", *ABOUT),
    "conversation": ("messages", "system", *ABOUT),
    "preference": ("chosen", "rejected", "instruction", "input", "system", "history", *ABOUT),
}
"""Layout -> the fields that it reads; those that it needs come first."""
NEEDED = {"pair": 2, "conversation": 1, "preference": 2}

OWN = "harness"
"""The layout of a data.jsonl that the harness wrote."""
OWN_FIELDS = {
    "instruction": set(DatasetExample("", "").row()),
    "preference": set(DatasetExample("", "", chosen="", rejected="").row()),
}
UNTRAINED = "untrained_turns"
"""A column of the harness's own data that is there only where a row needs it."""
_OWN_ROW = TypeAdapter(DatasetExample)


class Unusable(Exception):
    """A row that is dropped; `rule` says why."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


@dataclass(frozen=True)
class TableLayout:
    name: str
    columns: dict[str, str]
    """Field -> the column that holds it."""
    is_labelled: bool = False
    """Whether the column `label` says of every row, if only by 0 or 1, whether its answer is good."""

    def cell(self, fields: Mapping[str, Any], field: str) -> Any:
        """None where there is no such column, or nothing in it."""
        return fields.get(self.columns[field]) if field in self.columns else None


class Draft(NamedTuple):
    """A row read as an example that has no id and no lineage yet."""

    example: DatasetExample
    has_several: bool = False
    """Whether the conversation had more than one exchange."""
    is_unanswered: bool = False
    """Whether a last question without an answer was left out."""


def find(table: Table, settings: Columns, kind: Kind) -> TableLayout:
    """Which columns of the table hold what.

    Raises:
        InputError: a named column is not there, or is of no use for this kind of data; no layout
            fits, or more than one.
    """
    spec_columns = settings.model_dump(exclude_none=True)
    _check_named(table, spec_columns)
    if not spec_columns:
        for own_kind, own_fields in OWN_FIELDS.items():
            if {*table.columns} - {UNTRAINED} == own_fields:
                if kind != own_kind:
                    raise _other_kind(table, own_kind)
                return TableLayout(OWN, {name: name for name in table.columns})
    if kind == "preference":
        layout = "preference"
        if not all(_candidates(table, spec_columns, f) for f in ("chosen", "rejected")):
            raise _no_preference(table, spec_columns)
    else:
        layout = _instruction_layout(table, spec_columns)
    for field in spec_columns:
        if field not in FIELDS[layout]:
            raise InputError(
                f"{table.name}: columns.{field} is of no use here: a {layout} is read from "
                f"{', '.join(f for f in FIELDS[layout] if f in Columns.model_fields)}",
                "Take it out of gen.columns"
                + (", or say kind: preference." if field in ("chosen", "rejected") else "."),
            )
    columns = {}
    for place, field in enumerate(FIELDS[layout]):
        candidates = _candidates(table, spec_columns, field)
        if place < NEEDED[layout] and len(candidates) > 1:
            raise _ambiguous(table, {field: candidates})
        if candidates:
            columns[field] = candidates[0]
    return TableLayout(layout, columns)


def _candidates(table: Table, spec_columns: dict[str, str], field: str) -> list[str]:
    if field in spec_columns:
        return [spec_columns[field]]
    return [name for name in USUAL[field] if name in table.columns]


def _instruction_layout(table: Table, spec_columns: dict[str, str]) -> str:
    pair = {f: _candidates(table, spec_columns, f) for f in ("instruction", "output")}
    talk = {"messages": _candidates(table, spec_columns, "messages")}
    is_pair, is_talk = all(pair.values()), all(talk.values())
    if is_pair and is_talk:
        if "messages" in spec_columns:
            return "conversation"
        if not spec_columns.keys().isdisjoint(pair):
            return "pair"
        raise _ambiguous(table, {**pair, **talk})
    if is_pair or is_talk:
        return "pair" if is_pair else "conversation"
    if all(_candidates(table, spec_columns, f) for f in ("chosen", "rejected")):
        raise _other_kind(table, "preference")
    raise _no_layout(table, "an instruction and its output, or a conversation")


def _check_named(table: Table, spec_columns: dict[str, str]) -> None:
    wrong = {field: column for field, column in spec_columns.items() if column not in table.columns}
    if not wrong:
        return
    faults, near = [], []
    for field, column in wrong.items():
        faults.append(f"columns.{field}: there is no column {column!r}")
        near += difflib.get_close_matches(column, table.columns, n=2)
    meant = f"Did you mean {' or '.join(map(repr, dict.fromkeys(near)))}? " if near else ""
    raise InputError(
        f"{table.name}: {'; '.join(faults)}; the columns are: {', '.join(table.columns)}",
        f"{meant}Correct gen.columns.",
    )


def _other_kind(table: Table, kind: str) -> InputError:
    return InputError(
        f"{table.name} holds {kind} data (its columns are: {', '.join(table.columns)})",
        f"Say kind: {kind}.",
    )


def _no_preference(table: Table, spec_columns: dict[str, str]) -> InputError:
    fits = all(_candidates(table, {}, f) for f in ("instruction", "output"))
    if not spec_columns and (fits or _candidates(table, {}, "messages")):
        return _other_kind(table, "instruction")
    return _no_layout(table, "a chosen and a rejected answer")


def _no_layout(table: Table, contents: str) -> InputError:
    return InputError(
        f"{table.name}: no columns of the usual names hold {contents}; the columns are: "
        f"{', '.join(table.columns)}",
        "Name them in gen.columns.",
    )


def _ambiguous(table: Table, candidates: dict[str, list[str]]) -> InputError:
    parts = (f"{field}: {', '.join(names)}" for field, names in candidates.items())
    return InputError(
        f"{table.name}: more than one reading of its columns fits ({'; '.join(parts)})",
        "Say in gen.columns which is meant.",
    )


def settle(layout: TableLayout, settings: Columns, table: Table) -> tuple[TableLayout, list[str]]:
    """The layout without columns that only by their names look as if they said something about the
    rows (an `id` that repeats, a `rating` in words), and a note on each."""
    if layout.name == OWN:
        return layout, []
    layout = dataclasses.replace(layout, is_labelled=_is_labelled(layout, table))
    columns, notes = dict(layout.columns), list(_unread_marks(layout, table))
    for field in ABOUT:
        if field not in columns or getattr(settings, field) is not None:
            continue
        why = _misfit(field, (layout.cell(row.fields, field) for row in table.rows))
        if why:
            column = columns.pop(field)
            notes.append(
                f"the column {column!r} was left aside: {why}. To take it as the {field} all the "
                f"same, say columns: {{{field}: {column}}}"
            )
    return TableLayout(layout.name, columns, layout.is_labelled), notes


def _is_labelled(layout: TableLayout, table: Table) -> bool:
    """Whether the table is one of completions that are good or bad, as TRL's KTO has them."""
    completions = {"instruction": "prompt", "output": "completion"}.items()
    cells = [row.fields.get(LABEL) for row in table.rows]
    return completions <= layout.columns.items() and all(
        is_absent(cell) or read_mark(LABEL, cell) is not None for cell in cells
    )


def _marks(layout: TableLayout, columns: Iterable[str]) -> list[str]:
    """The columns that can say whether a row is trained on."""
    return [n for n in MARKS if n in columns and n not in layout.columns.values()]


def _mark(layout: TableLayout, name: str, cell: Any) -> bool | None:
    return read_mark(name, cell, may_be_class=name == LABEL and not layout.is_labelled)


def _unread_marks(layout: TableLayout, table: Table) -> Iterator[str]:
    for name in _marks(layout, table.columns):
        cells = (row.fields.get(name) for row in table.rows)
        unread = [c for c in cells if not is_absent(c) and _mark(layout, name, c) is None]
        if unread:
            yield (
                f"the column {name!r} was left aside in {len(unread)} of {len(table.rows)} rows: it "
                f"holds {_abridged(unread[0])}, which does not say whether a row is trained on"
            )


def _abridged(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else text[:37] + "..."


def _misfit(field: str, cells: Iterable[Any]) -> str:
    """Why the cells are not what the field holds; empty where they are."""
    check = CHECKS[field]
    values = set()
    for cell in cells:
        try:
            value = check(cell)
        except Unusable:
            return f"it holds {_abridged(cell)}"
        if field == "id" and value in values:
            return f"it holds {value!r} twice"
        values.add(value)
    return ""


def read_row(layout: TableLayout, fields: Mapping[str, Any], turns: Turns) -> Draft:
    """The example that a row holds.

    Raises:
        Unusable: it holds none; the rule is one of wrong_type, unknown_role, no_user_turn,
            no_answer, not_alternating, several_turns, two_systems, empty_turn, empty_instruction,
            empty_output, marked_untrained (the row or its answer is marked as not to be trained on),
            marked_question (a question is marked as trained on, which is not done), unreadable_mark,
            and for preference data empty_chosen, empty_rejected, different_prompts,
            identical_answers, same_first_answer.
    """
    if any(_mark(layout, n, fields[n]) is False for n in _marks(layout, fields)):
        raise Unusable("marked_untrained")
    cell = partial(layout.cell, fields)
    if layout.name == OWN:
        draft = Draft(_own_example(fields))
    elif layout.name == "preference":
        draft = _preference(cell, turns)
    elif layout.name == "conversation":
        draft = _instruction(cell, _turns(cell("messages")), turns)
    else:
        draft = _instruction(cell, _prompt(cell) + _answer(cell("output")), turns)
    _check_texts(draft)
    return draft


def _own_example(fields: Mapping[str, Any]) -> DatasetExample:
    try:
        example = _OWN_ROW.validate_python(fields)
    except ValidationError:
        raise Unusable(WRONG_TYPE) from None
    if example.row() != fields:  # something was turned into what it should have been
        raise Unusable(WRONG_TYPE)
    return example


def _instruction(cell: Cell, conversation: Sequence["Turn"], turns: Turns) -> Draft:
    exchange = _exchange(conversation, turns)
    return _draft(cell, exchange, turns, output=exchange.answer)


def _preference(cell: Cell, turns: Turns) -> Draft:
    """Chosen and rejected are answers to the prompt, or whole conversations up to the answer."""
    sides = []
    for field in ("chosen", "rejected"):
        conversation = _answer(cell(field))
        if not any(turn.role == USER for turn in conversation):
            conversation = _prompt(cell) + conversation
        sides.append(_exchange(conversation, turns))
    chosen, rejected = sides
    if chosen[:3] != rejected[:3]:  # all before the answer
        raise Unusable("different_prompts")
    return _draft(cell, chosen, turns, chosen=chosen.answer, rejected=rejected.answer)


class Turn(NamedTuple):
    role: str
    text: str
    is_trained: bool = True
    """Whether nothing marks the text as not to be trained on."""


class Exchange(NamedTuple):
    """One question and its answer out of a conversation."""

    system: str
    before: tuple[tuple[str, str], ...]
    user: str
    answer: str
    is_last: bool
    has_several: bool
    is_unanswered: bool
    untrained: tuple[int, ...]
    """Numbers of the exchanges before whose answers are not to be trained on."""


def _exchange(conversation: Sequence[Turn], turns: Turns) -> Exchange:
    """The exchange that `turns` asks for. What comes after it may be as irregular as it likes."""
    question_count = sum(turn.role == USER for turn in conversation)
    if not question_count:
        raise Unusable("no_user_turn")
    system = conversation[0].text if conversation[0].role == SYSTEM else ""
    rest = conversation[1:] if conversation[0].role == SYSTEM else conversation
    if turns == "drop" and question_count > 1:
        raise Unusable("several_turns")
    used = rest[:2] if turns == "first" else rest
    if any(turn.role != (USER, ASSISTANT)[i % 2] for i, turn in enumerate(used)):
        raise Unusable("not_alternating")
    pairs = [(used[i], used[i + 1]) for i in range(0, len(used) - 1, 2)]
    if not pairs:
        raise Unusable("no_answer")
    *before, (user, answer) = pairs
    if not answer.is_trained:
        raise Unusable("marked_untrained")
    return Exchange(
        system,
        tuple((asking.text, answering.text) for asking, answering in before),
        user.text,
        answer.text,
        is_last=len(pairs) == question_count,
        has_several=question_count > 1,
        is_unanswered=len(used) % 2 == 1,
        untrained=tuple(n for n, (_, earlier) in enumerate(before) if not earlier.is_trained),
    )


def _draft(cell: Cell, exchange: Exchange, turns: Turns, **answer: Any) -> Draft:
    beside = _text(cell("system"))
    if exchange.system and beside and exchange.system != beside:
        raise Unusable("two_systems")
    example = DatasetExample(
        id="",
        instruction=exchange.user,
        input=_text(cell("input")) if exchange.is_last else "",
        **answer,
        system=exchange.system or beside,
        history=exchange.before if turns == "history" else (),
        untrained_turns=exchange.untrained if turns == "history" else (),
        name=_text(cell("name")),
        rating=as_rating(cell("rating")),
        is_classification=as_flag(cell("is_classification")),
        origin="imported",
    )
    return Draft(example, exchange.has_several, exchange.is_unanswered)


def _check_texts(draft: Draft) -> None:
    example = draft.example
    if not example.instruction.strip():
        raise Unusable("empty_instruction")
    if not all(text.strip() for turn in example.history for text in turn):
        raise Unusable("empty_turn")
    if example.chosen is None or example.rejected is None:
        if not example.output.strip():
            raise Unusable("empty_output")
        return
    if not example.chosen.strip():
        raise Unusable("empty_chosen")
    if not example.rejected.strip():
        raise Unusable("empty_rejected")
    if example.chosen.strip() == example.rejected.strip():
        raise Unusable("same_first_answer" if draft.has_several else "identical_answers")


def _prompt(cell: Cell) -> list[Turn]:
    """What was said before the answer: a text, after the turns in `history`, or messages."""
    value = cell("instruction")
    if isinstance(value, list):
        return _turns(value)
    earlier: list[Turn] = []
    history = cell("history")
    for turn in [] if is_absent(history) else _list(history):
        if not isinstance(turn, list) or len(turn) != 2:
            raise Unusable(WRONG_TYPE)
        earlier += [Turn(USER, _text(turn[0])), Turn(ASSISTANT, _text(turn[1]))]
    return [*earlier, Turn(USER, _text(value))]


def _answer(value: Any) -> list[Turn]:
    return _turns(value) if isinstance(value, list) else [Turn(ASSISTANT, _text(value))]


def _turns(value: Any) -> list[Turn]:
    """Each message: from and value (ShareGPT), or role and content, and its marks."""
    turns = []
    for message in [] if is_absent(value) else _list(value):
        try:
            role, text = read_message(message)
            mark = is_trained(message)
        except ValueError as e:
            raise Unusable(str(e)) from None
        if role != ASSISTANT and mark and is_absent(message.get("weight")):
            raise Unusable("marked_question")
        turns.append(Turn(role, text, mark is not False))
    return turns


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unusable(WRONG_TYPE)
    return value


def _text(value: Any) -> str:
    try:
        return as_text(value)
    except ValueError as e:
        raise Unusable(str(e)) from None


def as_rating(value: Any) -> float | None:
    """Not rated where there is nothing."""
    if is_absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable(WRONG_TYPE)
    try:
        rating = float(value)
    except OverflowError:
        rating = math.inf
    if math.isinf(rating):
        raise Unusable(WRONG_TYPE)
    return rating


def as_flag(value: Any) -> bool | None:
    if is_absent(value):
        return None
    if not isinstance(value, bool):
        raise Unusable(WRONG_TYPE)
    return value


def as_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise Unusable(WRONG_TYPE)
    return str(value)


CHECKS: dict[str, Callable[[Any], Any]] = {
    "id": as_id,
    "name": _text,
    "rating": as_rating,
    "is_classification": as_flag,
}
