"""Prompt sets: what a model is asked, read from the files that people really have.

A table of records is a prompt set where a column has the instruction (`instruction`, `prompt`,
`question`, `query`, else `text`; in any case of letters), or where one has conversations, whose last
user turn is then what is asked, after the turns before it, and whose turn after it is the given answer
(with `turns: first` its first, by itself).
The instruction of a conversation of several turns or with a system text, by which outputs are matched
and which judges are shown, is all of it up to there as one text. The system text in a column beside an
instruction is the model's alone, for other people's outputs are matched by the instruction as it is.
Self-Instruct's records have input and answer in `instances`. MT-Bench's have `turns`, the user's texts:
each is a prompt of its own, after the model's answers to those before (harness.answer.turns).

**The same prompt twice.** Outputs and judgements are matched by (instruction, input). Within one file
the same pair is a fault, unless the records have ids of their own that differ, as two of WizardLM's
test set; and it may stand in several of a set's `files`. Whatever its places, it is answered once,
and that answer stands in each, so that no match is ambiguous. It must have one system text.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.common.commands import harness
from harness.data.conversations import (
    ASSISTANT,
    SYSTEM,
    USER,
    WRONG_TYPE,
    as_text,
    both_sides,
    is_absent,
    read_message,
)
from harness.data.records import NEED_TEXT, shown
from harness.data.tables import Every, Table, TableRow, read_files, read_hub
from harness.errors import InputError
from harness.spec.prompts import HubPrompts, PromptColumns, PromptSet

USUAL = {
    "instruction": ("instruction", "prompt", "question", "query"),
    "messages": ("conversations", "messages", "conversation"),
    "input": ("input", "context"),
    "system": ("system", "system_prompt"),
    "dataset": ("dataset",),
    "output": ("output", "completion", "response", "answer"),
}
"""What each column is called where the spec does not say, in any case of letters."""
LAST_RESORT = "text"
"""An instruction's column where there is no other: Vicuna's. Elsewhere it is a whole example."""
INSTANCES = "instances"
TURNS = "turns"
IDS = ("id", "idx", "question_id", "instruction_id", "prompt_id")


@dataclass(frozen=True)
class Prompt:
    """`dataset`: which of several sets it is of, if any. `output`: a given answer, if any."""

    instruction: str
    input: str
    system: str = ""
    dataset: str | None = None
    output: str | None = None
    fields: dict[str, Any] = field(default_factory=dict, repr=False)
    """The whole record as it was read; judges take what a rubric asks for from it."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier (user, assistant) turns, oldest first."""
    question: str = ""
    """Of a conversation with a system text or earlier turns: what is asked after them."""
    later: tuple[str, ...] = ()
    """What the user says after the answer to this."""
    turn: int = 1
    place: str = field(default="", repr=False, compare=False)
    """The file and line that it was read from."""

    @property
    def key(self) -> tuple[str, str]:
        """What outputs and judgements are matched by."""
        return self.instruction, self.input

    @property
    def asked(self) -> str:
        """What the last user turn says, without the input."""
        return self.question or self.instruction


def read_prompts(prompt_set: PromptSet, hub_folder: str | None) -> list[Prompt]:
    """The prompts in the set's order. `hub_folder`: the snapshot of a set from the hub.

    Raises:
        InputError: a file cannot be read; no column, or more than one, can be the instruction's; an
            instruction is missing, empty or no text; a prompt is there twice (see above); or the
            sample is larger than the set.
    """
    prompts: list[tuple[Prompt, TableRow]] = []
    for table, name in _tables(prompt_set, hub_folder):
        columns = _columns(table, prompt_set.columns)
        pairs = [
            (_prompt(row, columns, name, prompt_set.turns == "first"), row)
            for row in _chosen(table, prompt_set)
        ]
        _check_twice(pairs)
        prompts += pairs
    _check_systems(prompts)
    return [prompt for prompt, _ in prompts]


def once(keys: Iterable[tuple[str, str]]) -> list[int]:
    """For each prompt's key the number of the first that is the same: the one that is asked about."""
    first: dict[tuple[str, str], int] = {}
    return [first.setdefault(key, number) for number, key in enumerate(keys)]


def system_notes(prompts: Sequence[Prompt]) -> list[str]:
    """A note on the system texts that are no part of the instruction."""
    unseen = sum(bool(prompt.system and not prompt.question) for prompt in prompts)
    if not unseen:
        return []
    return [
        f"{unseen} of {len(prompts)} prompts have a system text in a column of its own: the model was "
        "given it, and judges are not shown it, but where a rubric names `system`"
    ]


def prompt_seed(seed: int, instruction: str, input: str) -> int:
    """Of a prompt's own random numbers: the first 64 bits of a sha256 over all three."""
    words = json.dumps([seed, instruction, input])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")


def _tables(prompt_set: PromptSet, hub_folder: str | None) -> list[tuple[Table, str | None]]:
    if prompt_set.files is not None:
        return [
            (read_files(Path(data.path), Every(), f"prompts.files.{name}"), name)
            for name, data in prompt_set.files.items()
        ]
    if prompt_set.file is not None:
        return [(read_files(Path(prompt_set.file.path), Every(), "prompts.file"), None)]
    assert prompt_set.hub is not None
    if hub_folder is None:
        raise InputError(
            f"the prompt set {prompt_set.hub.id} of the hub was not handed to the stage",
            f"Download it: {harness('fetch', 'SPEC')}",
        )
    return [(_hub_table(prompt_set.hub, Path(hub_folder)), None)]


def _hub_table(hub: HubPrompts, folder: Path) -> Table:
    if hub.file is None:
        with tempfile.TemporaryDirectory() as work:
            return read_hub(folder, hub, Path(work), Every(), "prompts.hub")
    path = folder / hub.file
    if not path.is_file():
        has = sorted(
            p.relative_to(folder).as_posix()
            for p in folder.rglob("*")
            if p.is_file() and not p.name.startswith(".")
        )
        raise InputError(
            f"{hub.id} at {hub.commit} has no file {hub.file}",
            f"Name one of its files in prompts.hub.file: {', '.join(has[:20])}.",
        )
    return read_files(path, Every(), "prompts.hub.file")


def _chosen(table: Table, prompt_set: PromptSet) -> list[TableRow]:
    sample = prompt_set.sample
    if sample is None:
        return table.rows[: prompt_set.first]
    if sample.k > len(table.rows):
        raise InputError(
            f"a sample of {sample.k} prompts is asked for, and {table.name} has {len(table.rows)}",
            "Lower it, or leave it out: prompts.sample; of a bridging model reported.bridge, prompts.",
        )
    return [table.rows[number] for number in sample.draw(len(table.rows))]


def _columns(table: Table, spec: PromptColumns) -> dict[str, str]:
    """Field -> the column that holds it."""
    columns = spec.model_dump(exclude_none=True)
    for name, column in columns.items():
        if column not in table.columns:
            raise InputError(
                f"{table.name} has no column {column!r} (prompts.columns.{name}); it has: "
                f"{', '.join(table.columns) or 'none'}"
            )
    if "instruction" in columns and "messages" in columns:
        raise InputError(
            "prompts.columns names both an instruction and messages",
            "Leave one out: the last user turn of the messages is an instruction.",
        )
    candidates = {
        name: [c for usual in USUAL[name] for c in table.columns if c.lower() == usual]
        for name in USUAL
    }
    if "instruction" in columns:
        candidates["messages"] = []
    elif "messages" in columns:
        candidates["instruction"] = []
    main = candidates["instruction"] + candidates["messages"]
    if not main and "instruction" not in columns and "messages" not in columns:
        candidates[TURNS] = [c for c in table.columns if c.lower() == TURNS]
        main = candidates[TURNS]
        if not main:
            candidates["instruction"] = [c for c in table.columns if c.lower() == LAST_RESORT]
            main = candidates["instruction"]
        if not main:
            raise InputError(
                f"{table.name}: no `instruction` in its records, which have: "
                f"{', '.join(table.columns) or 'nothing'}",
                "Name the column in prompts.columns.instruction, or of conversations in "
                "prompts.columns.messages.",
            )
    if len(main) > 1 and "instruction" not in columns and "messages" not in columns:
        raise InputError(
            f"{table.name}: {' and '.join(main)} could each hold the instruction",
            f"Name one: prompts: {{columns: {{instruction: {main[0]}}}}}.",
        )
    return {name: matches[0] for name, matches in candidates.items() if matches} | columns


def _prompt(row: TableRow, columns: dict[str, str], name: str | None, is_first: bool) -> Prompt:
    def text(which: str) -> str:
        return _text(row, columns[which]) if which in columns else ""

    system, input_text, output = text("system"), text("input"), None
    history: tuple[tuple[str, str], ...] = ()
    question = ""
    later: tuple[str, ...] = ()
    if TURNS in columns:
        instruction, *rest = _user_turns(row, columns[TURNS])
        later = tuple(rest)
        if system:
            question, instruction = instruction, as_conversation(system, (), instruction)
    elif "messages" in columns:
        system_text, history, instruction, output = _exchange(row, columns["messages"], is_first)
        system = system_text or system
        if history or system:
            question, instruction = instruction, as_conversation(system, history, instruction)
    else:
        instruction = _text(row, columns["instruction"], needed=True)
    if INSTANCES in row.fields and "input" not in columns:
        input_text, output = _first_instance(row)
    if "output" in columns and not is_absent(row.fields.get(columns["output"])):
        output = text("output")
    if not (question or instruction).strip():
        raise InputError(f"{row.place}: an empty instruction", NEED_TEXT)
    if name is None and "dataset" in columns:
        value = row.fields.get(columns["dataset"])
        name = None if value is None else str(value)
    return Prompt(
        instruction, input_text, system, name, output, row.fields, history, question, later,
        place=row.place,
    )  # fmt: skip


def _user_turns(row: TableRow, column: str) -> list[str]:
    value = row.fields.get(column)
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise InputError(
            f"{row.place}: `{column}` must be a list of the user's texts, not {str(value)[:60]}"
        )
    if empty := [number for number, text in enumerate(value, 1) if not text.strip()]:
        raise InputError(f"{row.place}: turn {empty[0]} of `{column}` is empty")
    return value


def _text(row: TableRow, column: str, needed: bool = False) -> str:
    value = row.fields.get(column)
    if not is_absent(value) or not needed:
        with contextlib.suppress(ValueError):
            return as_text(value)
    if column not in row.fields:
        has = ", ".join(row.fields) or "none"
        raise InputError(f"{row.place}: no `{column}`; the fields here are: {has}", NEED_TEXT)
    raise InputError(f"{row.place}: `{column}` must be a text, not {shown(value)}", NEED_TEXT)


def as_conversation(system: str, history: Sequence[tuple[str, str]], question: str) -> str:
    """As outputs are matched by it and judges are shown it."""
    turns = [f"System: {system}"] if system else []
    turns += [f"User: {user}\n\nAssistant: {answer}" for user, answer in history]
    return "\n\n".join([*turns, f"User: {question}"])


def _exchange(
    row: TableRow, column: str, is_first: bool
) -> tuple[str, tuple[tuple[str, str], ...], str, str | None]:
    """(system text, earlier turns, last user turn, the answer to it); or of the first user turn."""
    value = row.fields.get(column)
    if not isinstance(value, list):
        raise InputError(f"{row.place}: `{column}` must be a list of messages")
    turns = []
    for number, message in enumerate(both_sides(value)):
        try:
            turns.append(read_message(message))
        except ValueError as e:
            wrong = (
                "is no object with a role (or from) and a text as content (or value)"
                if str(e) == WRONG_TYPE
                else "has a role that is neither user, assistant nor system"
            )
            raise InputError(f"{row.place}: message {number} of `{column}` {wrong}") from None
    system = turns.pop(0)[1] if turns and turns[0][0] == SYSTEM else ""
    if not turns or turns[0][0] != USER:
        raise InputError(f"{row.place}: `{column}` does not begin with a user's turn")
    if is_first:  # what comes after its answer may be as irregular as it likes
        answer = turns[1] if len(turns) > 1 else (USER, "")
        return "", (), turns[0][1], answer[1] if answer[0] == ASSISTANT else None
    roles = [role for role, _ in turns]
    for number, role in enumerate(roles):
        if role != (USER, ASSISTANT)[number % 2]:
            raise InputError(
                f"{row.place}: in `{column}` a turn of the {role} follows one of the "
                f"{roles[number - 1]}",
                "Turns of user and assistant alternate, after a system text at the beginning: mend the "
                "conversation or leave it out.",
            )
    texts = [text for _, text in turns]
    last = (len(texts) - 1) // 2 * 2
    history = tuple(zip(texts[:last:2], texts[1:last:2], strict=True))
    return system, history, texts[last], texts[last + 1] if len(texts) > last + 1 else None


def _first_instance(row: TableRow) -> tuple[str, str | None]:
    """(input, answer) of a Self-Instruct record; its test set has one instance each."""
    instances = row.fields[INSTANCES]
    first = instances[0] if isinstance(instances, list) and instances else None
    input_text = first.get("input", "") if isinstance(first, dict) else None
    answer = first.get("output") if isinstance(first, dict) else None
    if not isinstance(input_text, str) or not isinstance(answer, str | None):
        raise InputError(
            f"{row.place}: `{INSTANCES}` must be a list of objects with input and output",
            "If it is something else, name the input's column in prompts.columns.input.",
        )
    return input_text, answer


def _check_twice(prompts: list[tuple[Prompt, TableRow]]) -> None:
    prompts_by_key: dict[tuple[str, str], list[tuple[int, TableRow]]] = {}
    for number, (prompt, row) in enumerate(prompts):
        for before, other in prompts_by_key.setdefault(prompt.key, []):
            if _own_id(row) is None or _own_id(row) == _own_id(other):
                raise InputError(
                    f"{row.place}: prompt {number} is the same as prompt {before} ({other.place}): "
                    f"{prompt.instruction[:60]!r}",
                    "Outputs are matched with judgements by instruction and input: give each only "
                    "once, or give the records ids of their own.",
                )
        prompts_by_key[prompt.key].append((number, row))


def _own_id(row: TableRow) -> str | None:
    values = (row.fields[name] for name in IDS if row.fields.get(name) is not None)
    return next((str(value) for value in values), None)


def _check_systems(prompts: list[tuple[Prompt, TableRow]]) -> None:
    first_by_key: dict[tuple[str, str], tuple[Prompt, TableRow]] = {}
    for prompt, row in prompts:
        first, at = first_by_key.setdefault(prompt.key, (prompt, row))
        if first.system != prompt.system:
            raise InputError(
                f"{row.place}: the same prompt as {at.place}, with another system text",
                "Outputs are matched by instruction and input alone: leave one of the two out.",
            )
