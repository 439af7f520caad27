"""Data sets that a model is trained on: which files are one, and how many rows they have to use."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.audit.files import LARGEST, Unreadable, read_json, read_rows, read_table
from harness.errors import InputError

PAIRS = (
    ("instruction", "output"), ("instruction", "response"), ("prompt", "completion"),
    ("prompt", "response"), ("question", "answer"), ("query", "response"), ("input", "output"),
    ("chosen", "rejected"),
)  # fmt: skip
"""Columns of a question and of its answer, as data sets have them."""
CHATS = ("messages", "conversations", "conversation")
NOT_TRAINED_ON = frozenset(
    {"generator", "generator_1", "generator_2", "preference", "annotator", "score", "score1",
     "review_id", "feedback", "raw_completion", "log_likelihoods", "doc_hash", "dropped", "why"}
)  # fmt: skip
"""Columns of outputs, of judgements, and of lists of what was dropped."""
NOT_DATA = re.compile(
    r"output|annotation|prediction|result|leaderboard|eval|test|valid|judg|dropped", re.I
)
"""Of a file's name: what a model is not trained on, whatever its columns."""
INFO = "dataset_info.json"
"""LLaMA-Factory's list of its data sets' files."""


@dataclass(frozen=True)
class TrainingData:
    """path: the file; rows: of it; empty: rows without a question or without an answer, which
    trainers leave out; different: rows that differ from each other."""

    path: Path
    rows: int
    empty: int
    different: int


def read_training_data(path: Path) -> TrainingData:
    """Raises Unreadable: no list of objects, or not with columns that one trains on."""
    rows = read_table(path) if path.suffix.lower() == ".csv" else read_rows(path)
    if not rows:
        raise Unreadable("it has no rows")
    columns = _columns(rows)
    if columns is None:
        raise Unreadable(
            "its rows are no training examples: no columns such as instruction and output"
        )
    empty = sum(_is_empty(row, columns) for row in rows)
    different = {json.dumps([row.get(c) for c in (*columns, "input", "system")]) for row in rows}
    return TrainingData(path, len(rows), empty, len(different))


def given_data(path: Path) -> TrainingData:
    """The data set that the option --data names: a file, or a folder with one.

    Raises InputError: there is none, or it is damaged.
    """
    files = [path]
    if path.is_dir():
        try:
            files = sorted(p for p in path.iterdir() if p.suffix in (".json", ".jsonl", ".csv"))
        except OSError as e:
            raise InputError(f"{path} cannot be opened: {e.strerror}") from None
    found, faults = [], []
    for file in files:
        try:
            found.append(read_training_data(file))
        except Unreadable as e:
            faults.append(f"{file}: {e}")
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(data.path.name for data in found)
        raise InputError(f"{path} holds several data sets: {names}", "Name the one that was used.")
    raise InputError("; ".join(faults[:3]) or f"{path} holds no data set", "See the option --data.")


def data_beside(
    folder: Path, names: Sequence[str], candidates: Sequence[Path]
) -> list[TrainingData]:
    """The data sets among `candidates`, files in the training's folder or the one above.

    names: of data sets, as its configuration has them; where given, only these files, and none
    unless all are there.
    """
    wanted = [name for part in names for name in part.split(",") if name.strip()]
    known = _files_of(wanted, candidates)
    found = []
    for path in candidates:
        near = path.parent in (folder, folder.parent)
        if path.suffix.lower() not in (".json", ".jsonl", ".csv"):
            continue
        if path.name not in known if known else wanted or not near or NOT_DATA.search(path.name):
            continue
        if path.stat().st_size <= LARGEST:
            try:
                found.append(read_training_data(path))
            except (Unreadable, OSError):
                continue
    return found if len(found) >= len(wanted) else []


def _files_of(names: Sequence[str], candidates: Sequence[Path]) -> set[str]:
    """The files' names of data sets: by LLaMA-Factory's list of them, or the name is one."""
    found = set()
    there = {path.name for path in candidates}
    for info in (path for path in candidates if path.name == INFO):
        try:
            listed = read_json(info)
        except Unreadable:
            continue
        for name in names if isinstance(listed, dict) else ():
            entry = listed.get(name.strip())
            if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
                found.add(Path(entry["file_name"]).name)
    for name in names:
        last = Path(name.strip()).name
        found.update(n for n in (last, f"{last}.json", f"{last}.jsonl") if n in there)
    return found


def _columns(rows: Sequence[dict[str, Any]]) -> tuple[str, ...] | None:
    first = rows[0]
    if NOT_TRAINED_ON & set(first):
        return None
    for pair in PAIRS:
        if all(name in first for name in pair):
            return pair
    for name in CHATS:
        if isinstance(first.get(name), list):
            return (name,)
    return None


def _is_empty(row: dict[str, Any], columns: tuple[str, ...]) -> bool:
    if len(columns) == 1:
        turns = row.get(columns[0])
        return not isinstance(turns, list) or len(turns) < 2
    asked, told = (row.get(name) for name in columns)
    question = f"{asked or ''}{row.get('input') or ''}"
    return not str(question).strip() or not str(told or "").strip()
