"""The records of a training's data set: which are trained on, and which are left out by which rule."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.data import layouts
from harness.data.conversations import LABEL, MARKS, is_absent, read_mark
from harness.data.dropped import Tally
from harness.data.records import Record, read_records, shown, text_field
from harness.data.tables import SEPARATORS, Every, read_files
from harness.errors import InputError
from harness.spec.hub import Columns

DATA_FILE = "data.jsonl"
EMPTY, MARKED, CUT = "empty_answer", "marked_untrained", "cut"
"""Rules by which records are left out; the last one holds once the tokens are known."""

GPT3_END = "<|endoftext|>"
_GPT3_ENDING = re.compile(r"\s*(?:Output:)?\s*\Z")
"""What ends a prompt in Self-Instruct's encodings for GPT-3 (0b26ccaa, prepare_for_finetuning.py): line
breaks, or `Output:` after a space or line breaks."""


@dataclass(frozen=True)
class Task:
    """One record as it is rendered; `answers`: the output, or the chosen and the rejected one."""

    where: str
    """FILE:LINE"""
    instruction: str
    input: str
    system: str
    history: Sequence[tuple[str, str]]
    answers: tuple[str, ...]
    untrained: Sequence[int] = ()
    """Numbers of the earlier turns whose answer is not to be learnt."""


@dataclass
class Examples:
    """The tasks, and what became of all records."""

    tasks: list[Task] = field(default_factory=list)
    tally: Tally = field(default_factory=lambda: Tally("train", "records"))
    columns: dict[str, None] = field(default_factory=dict)
    """Every field that a record has, in the order in which they are met."""
    simulated: bool = False
    """Whether a record says that a simulated teacher or judge had a hand in it."""


def file_of(path: Path) -> Path:
    """The data set's file: of an artefact's folder its data.jsonl."""
    return path / DATA_FILE if path.is_dir() else path


def read_examples(path: Path, pairs: bool) -> Examples:
    """The records to train on. `pairs`: of a chosen and a rejected answer.

    Raises:
        InputError: the file is no list of records, a record is not what the objective is trained on,
            with its file and line, or nothing is left. Where the recipe `import` reads the file, the
            hint says so.
    """
    result = Examples()
    try:
        for record in map(_from_gpt3, read_records(path)):
            result.columns |= dict.fromkeys(record.fields)
            result.simulated = result.simulated or record.fields.get("simulated") is True
            task = _task(path, record, pairs)
            if _is_marked(path, record):
                result.tally.dropped[MARKED] += 1
            elif all(answer.strip() for answer in task.answers):
                result.tasks.append(task)
                result.tally.kept += 1
            else:
                result.tally.dropped[EMPTY] += 1
    except InputError as e:
        raise InputError(e.message, _import_hint(path, pairs) or e.hint) from None
    if not result.tasks:
        raise InputError(
            f"{path}: none of the {result.tally.proposed} records can be trained on "
            f"({result.tally.in_words()})",
            "Give a data set with answers.",
        )
    return result


def _from_gpt3(record: Record) -> Record:
    """A line of a file for GPT-3's fine-tuning as a record: the prompt without its ending is the
    instruction (an input stays in it, for how the two were put together is not told), the completion
    without the space before it and the end after it the output. Any other record as it is."""
    prompt, completion = record.fields.get("prompt"), record.fields.get("completion")
    if len(record.fields) > 2 or not (isinstance(prompt, str) and isinstance(completion, str)):
        return record
    if not completion.endswith(GPT3_END):
        return record
    output = completion.removesuffix(GPT3_END).strip()
    return record._replace(fields={"instruction": _GPT3_ENDING.sub("", prompt), "output": output})


def _task(path: Path, record: Record, pairs: bool) -> Task:
    is_pair = "chosen" in record.fields and "output" not in record.fields
    if is_pair != pairs:
        raise InputError(
            f"{record.place(path)}: "
            + ("the record holds chosen and rejected answers" if is_pair
               else "the record has no chosen and rejected answers"),
            "To train on the chosen answers alone, import them as outputs; objective: orpo trains "
            "on both." if is_pair else "objective: orpo takes preference data.",
        )  # fmt: skip
    names = ("chosen", "rejected") if pairs else ("output",)
    history = _history(path, record)
    return Task(
        record.place(path),
        text_field(path, record, "instruction"),
        text_field(path, record, "input", default=""),
        text_field(path, record, "system", default=""),
        history,
        tuple(text_field(path, record, name) for name in names),
        _untrained(path, record, len(history)),
    )


def _history(path: Path, record: Record) -> Sequence[tuple[str, str]]:
    turns = record.fields.get("history")
    turns = [] if is_absent(turns) or not turns else turns
    good = isinstance(turns, list) and all(
        isinstance(t, list) and len(t) == 2 and all(isinstance(x, str) for x in t) for t in turns
    )
    if not good:
        raise InputError(
            f"{record.place(path)}: `history` must be a list of [user, assistant] pairs of texts"
        )
    return [(user, assistant) for user, assistant in turns]


def _untrained(path: Path, record: Record, turns: int) -> Sequence[int]:
    numbers = record.fields.get(layouts.UNTRAINED) or []
    if not isinstance(numbers, list) or not all(n in range(turns) for n in numbers):
        raise InputError(
            f"{record.place(path)}: `{layouts.UNTRAINED}` must be a list of numbers of turns in "
            "`history`, from 0"
        )
    return numbers


def _is_marked(path: Path, record: Record) -> bool:
    """Whether the record says that its answer is not to be trained on."""
    marks = []
    for name in MARKS:
        cell = record.fields.get(name)
        is_class = name == LABEL and read_mark(name, cell) is None
        if is_absent(cell) or is_class:
            continue
        marks.append(read_mark(name, cell, may_be_class=name == LABEL))
        if marks[-1] is None:
            raise InputError(
                f"{record.place(path)}: `{name}` is {shown(cell)}, which does not say "
                "whether the record is trained on",
                "Write true or false under the name `train`, or take the field out; gen: {recipe: "
                "import} reads the file and leaves the field aside.",
            )
    return False in marks


def _import_hint(path: Path, pairs: bool) -> str:
    """What to do where the file has another layout, which `import` reads; empty where it has not."""
    kind: layouts.Kind = "preference" if pairs else "instruction"
    kind_setting = "kind: preference, " if pairs else ""
    source = path if path.exists() else path.parent  # a folder without a data.jsonl
    step = f"gen: {{recipe: import, {kind_setting}file: {source.name}}}"
    try:
        table = read_files(source, Every())
        layout = layouts.find(table, Columns(), kind)
    except InputError as e:
        if path.suffix.lower() in SEPARATORS:
            return f"By its name it is a CSV table, which {step} reads, but not as it is: {e}"
        return ""
    except ImportError:
        return ""
    fitting = {"instruction", "chosen", "rejected"} if pairs else {"instruction", "output"}
    as_it_is = all(layout.columns.get(name) == name for name in fitting)
    if as_it_is and source is path and table.used["format"] == "json":
        return ""
    return (
        f"It is {table.used['format']} of the layout {layout.name} "
        f"({', '.join(layout.columns.values())}), which "
        f"{step} reads, in place of data."
    )
