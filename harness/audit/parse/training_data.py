"""Data sets that a model is trained on: which files are one, and how many rows they have to use."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.audit.parse.files import (
    LARGEST,
    JsonObject,
    Unreadable,
    read_object,
    read_rows,
    read_table,
)
from harness.errors import InputError

PAIRS = (
    ("instruction", "output"), ("instruction", "response"), ("prompt", "completion"),
    ("prompt", "response"), ("question", "answer"), ("query", "response"), ("input", "output"),
    ("chosen", "rejected"),
)  # fmt: skip
"""Columns of a question and of its answer, as data sets have them."""
_NAMES_A_ROW = re.compile(
    r"(?:^|_)(?:id|idx|index|uuid|guid|hash|timestamp|time|date)$|^$|^unnamed", re.I
)
"""Columns that number their rows: no part of an example."""
CHATS = ("messages", "conversations", "conversation")
NOT_TRAINED_ON = frozenset(
    {"generator", "generator_1", "generator_2", "annotator", "score1", "review_id", "raw_completion",
     "log_likelihoods", "doc_hash", "dropped", "why"}
)  # fmt: skip
"""Columns of outputs, of judgements, and of lists of what was dropped."""
NOT_DATA = re.compile(
    r"output|annotation|prediction|result|leaderboard|eval|test|valid|judg|dropped", re.I
)
"""Of a file's name: what a model is not trained on, whatever its columns."""
SUFFIXES = (".json", ".jsonl", ".csv")
INFO = "dataset_info.json"
"""LLaMA-Factory's list of its data sets' files."""
Columns = tuple[str, str] | tuple[str]
"""Of a question and of its answer, or of a conversation."""


@dataclass(frozen=True)
class TrainingData:
    """path: the file; rows: of it; empty: rows without a question or without an answer, which
    trainers leave out; different: rows that differ from each other."""

    path: Path
    rows: int
    empty: int
    different: int


def read_training_data(path: Path, listed_columns: Columns | None = None) -> TrainingData:
    """listed_columns: those of a question and of its answer, or of a conversation, where a list of data
    sets says them.

    Raises Unreadable: no list of objects, or not with columns that one trains on.
    """
    is_table = path.suffix.lower() == ".csv"
    rows = [JsonObject(line) for line in read_table(path)] if is_table else read_rows(path)
    if not rows:
        raise Unreadable("it has no rows")
    is_listed = listed_columns and all(name in rows[0] for name in listed_columns)
    columns = listed_columns if is_listed else _columns(rows[0])
    if columns is None:
        raise Unreadable(
            "its rows are no training examples: no columns such as instruction and output"
        )
    empty = sum(_is_empty(row, columns) for row in rows)
    different = {_content(row, columns) for row in rows}
    return TrainingData(path, len(rows), empty, len(different))


def _content(row: JsonObject, columns: Sequence[str]) -> str:
    """What tells a row from others: its columns, and texts and lists in whatever other column."""
    content = {
        name: value
        for name, value in row.items()
        if name in columns
        or (isinstance(value, str | list | dict) and not _NAMES_A_ROW.search(name))
    }
    return json.dumps(content, sort_keys=True)


def data_of_option(path: Path) -> TrainingData:
    """The data set that the option --data names: a file, or a folder with one.

    Raises InputError: there is none, or it is damaged.
    """
    files = [path]
    if path.is_dir():
        try:
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        except OSError as e:
            raise InputError(f"{path} cannot be opened: {e.strerror}") from None
    data_sets, faults = [], []
    for file in files:
        try:
            data_sets.append(read_training_data(file))
        except Unreadable as e:
            faults.append(f"{file}: {e}")
    if len(data_sets) == 1:
        return data_sets[0]
    if data_sets:
        names = ", ".join(data.path.name for data in data_sets)
        raise InputError(f"{path} holds several data sets: {names}", "Name the one that was used.")
    raise InputError("; ".join(faults[:3]) or f"{path} holds no data set", "See the option --data.")


def data_beside(
    folder: Path, names: Sequence[str], candidates: Sequence[Path]
) -> list[TrainingData]:
    """The data sets among `candidates`, files in the training's folder or the one above.

    names: of data sets, as its configuration has them; where given, only these files, and none
    unless all are there.
    """
    set_names = [name for part in names for name in part.split(",") if name.strip()]
    listed = _listed(candidates)
    if not set_names and len(listed) == 1:
        set_names = list(listed)
    columns_by_file = _files_of(set_names, candidates, listed)
    data_sets = []
    for path in candidates:
        near = path.parent in (folder, folder.parent)
        if path.suffix.lower() not in SUFFIXES:
            continue
        if (
            path.name not in columns_by_file
            if columns_by_file
            else set_names or not near or NOT_DATA.search(path.name)
        ):
            continue
        if path.stat().st_size <= LARGEST:
            try:
                data_sets.append(read_training_data(path, columns_by_file.get(path.name)))
            except (Unreadable, OSError):
                continue
    return data_sets if len(data_sets) >= len(set_names) else []


@dataclass(frozen=True)
class _Listed:
    """An entry of LLaMA-Factory's list of data sets."""

    file_name: str = ""
    columns: Columns | None = None


def _listed(candidates: Sequence[Path]) -> dict[str, _Listed]:
    """By the names of the data sets."""
    entries = {}
    for info in (path for path in candidates if path.name == INFO):
        try:
            listed = read_object(info)
        except Unreadable:
            continue
        for name in listed:
            entry = listed.object(name)
            file_name, columns = entry.text("file_name"), entry.object("columns")
            question, answer, turns = map(columns.text, ("prompt", "response", "messages"))
            if file_name is None:
                continue
            entries[name] = _Listed(file_name, None if turns is None else (turns,))
            if question is not None and answer is not None:
                entries[name] = _Listed(file_name, (question, answer))
    return entries


def _files_of(
    names: Sequence[str], candidates: Sequence[Path], listed: Mapping[str, _Listed]
) -> dict[str, Columns | None]:
    """The files' names of data sets, by the list of them or as files are named, whatever their suffix;
    and their columns, where the list has these."""
    columns_by_file: dict[str, Columns | None] = {}
    present = {path.name for path in candidates}
    for name in (n.strip() for n in names):
        entry = listed.get(name, _Listed())
        for file_name in (entry.file_name, name):
            last = Path(file_name).name
            is_stem = last not in present and Path(last).suffix.lower() not in SUFFIXES
            stem = last if is_stem else Path(last).stem
            files = [last, *(f"{stem}{suffix}" for suffix in SUFFIXES)]
            here = [n for n in files if n in present][:1]
            if here:
                columns_by_file[here[0]] = entry.columns
                break
    return columns_by_file


def _columns(first: JsonObject) -> tuple[str, ...] | None:
    # A judge's rows have its reply beside the score; rated data sets have one or the other.
    if NOT_TRAINED_ON & set(first) or {"score", "feedback"} <= set(first):
        return None
    for pair in PAIRS:
        if all(name in first for name in pair):
            return pair
    return next(((name,) for name in CHATS if isinstance(first.get(name), list)), None)


def _is_empty(row: JsonObject, columns: tuple[str, ...]) -> bool:
    if len(columns) == 1:
        turns = row.get(columns[0])
        return not isinstance(turns, list) or len(turns) < 2
    prompt, answer = (row.get(name) for name in columns)
    question = f"{prompt or ''}{row.get('input') or ''}"
    return not str(question).strip() or not str(answer or "").strip()
