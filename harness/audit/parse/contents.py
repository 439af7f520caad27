"""What a file is by its content, where its name does not say it."""

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.audit.model import short
from harness.audit.parse.files import (
    AuditSource,
    Unreadable,
    is_archive,
    number,
    read_json,
    read_lines,
    read_text,
)
from harness.audit.parse.lm_eval_files import is_results

ANNOTATIONS, OUTPUTS = "alpaca_eval's annotations", "alpaca_eval's outputs"
RESULTS = "lm-eval's results"
STATE, LOG = "a trainer's state", "a trainer's log"
NEEDED = {
    ANNOTATIONS: ("instruction", "preference", "generator_2"),
    OUTPUTS: ("instruction", "output", "generator"),
    RESULTS: ("results", "versions"),
    STATE: ("log_history", "global_step"),
    LOG: ("step", "loss", "epoch"),
    "alpaca_eval's leaderboard (leaderboard.csv)": ("win_rate", "n_total"),
    "AlpaGasus's reviews (FIRST-SECOND-SET.json)": ("question_id", "review", "score"),
    "scores on a rubric": ("score", "feedback"),
}
"""What each has at its top, or in each of its rows."""
TABLES = (".csv", ".tsv")
NO_JSON = (*TABLES, ".md", ".yaml", ".yml")
MOST_ROWS = 1000
"""Rows of a file that are looked at for their columns."""
MOST_NAMES = 3


@dataclass(frozen=True)
class Content:
    """kind: one of NEEDED, "" for none. keys: those that all its rows have, or its top."""

    kind: str = ""
    keys: frozenset[str] = frozenset()


def of_kind(source: AuditSource, kind: str, *names: str) -> list[Path]:
    """Unclaimed files of a kind by their content, besides those of these names."""
    usual_names = {name.lower() for name in names}
    options = {path.resolve() for path in (source.reference, source.training_data) if path}
    unusual = [path for path in source.files if path.name.lower() not in usual_names]
    matching = [path for path in unusual if content_of(source, path).kind == kind]
    return [path for path in matching if path.resolve() not in options]


def content_of(source: AuditSource, path: Path) -> Content:
    if path not in source.contents:
        source.contents[path] = _content(path)
    content: Content = source.contents[path]
    return content


def read_values(path: Path) -> Any:
    """A file's JSON, or the list of its lines' values; a line that a killed run left unfinished at the
    end is left out. Raises Unreadable."""
    try:
        return read_json(path)
    except Unreadable as e:
        with suppress(Unreadable):
            return read_lines(path, may_be_cut=True)
        raise e from None


def packed(source: AuditSource) -> str:
    """How many archives a folder holds, with the first names; "" where there is none."""
    archives = sorted({path for path in source.archives if path not in source.paths})
    if not archives:
        return ""
    if len(archives) == 1:
        return f"an archive in it ({_first(archives)}) was not looked into: unpack it first"
    count = f"{len(archives):,} archives"
    return f"{count} in it ({_first(archives)}) were not looked into: unpack them first"


def nearest_miss(source: AuditSource) -> str:
    """Of files that no reader could use, which comes nearest to what they read, and what it lacks; of
    archives that they must be unpacked."""
    if not source.root.is_dir() and is_archive(source.root):
        return "it is an archive: unpack it first, and give the folder"
    return "; ".join(filter(None, (_nearest(source), packed(source))))


def _nearest(source: AuditSource) -> str:
    best: tuple[float, int, str] = (0.0, 0, "")
    for path in source.all_files:
        keys = content_of(source, path).keys
        for what, needed in NEEDED.items():
            has = [key for key in needed if key in keys]
            lacks = [key for key in needed if key not in keys]
            if (len(has) / len(needed), len(has)) > best[:2]:
                remark = f"so have {what}, and yet their values, or the file alone, make no result"
                if lacks:
                    remark = f"{what} have {_and(lacks)} too"
                best = (len(has) / len(needed), len(has), f"{path} has {_and(has)}; {remark}")
    if best[2]:
        return f"the nearest is {best[2]}"
    if not source.all_files:
        return "it holds no JSON, CSV, log or text file"
    names = _first(source.all_files)
    if len(source.all_files) == 1:
        return f"its text file ({names}) has nothing of these"
    return f"of its {len(source.all_files):,} text files ({names}) none has anything of these"


def _first(paths: Sequence[Path]) -> str:
    more = ", ..." if len(paths) > MOST_NAMES else ""
    return ", ".join(short(path.name, 60) for path in paths[:MOST_NAMES]) + more


def _content(path: Path) -> Content:
    try:
        if path.suffix.lower() in TABLES:
            return Content(keys=frozenset(next(csv.reader(read_text(path).splitlines()), [])))
        if path.suffix.lower() in NO_JSON or not begins_with(path, b"{", b"["):
            return Content()
        value = read_values(path)
    except (Unreadable, csv.Error):
        return Content()
    if isinstance(value, dict):
        history = value.get("log_history")
        is_state = isinstance(history, list) and ("global_step" in value or _is_log(history))
        kind = RESULTS if is_results(value) else STATE if is_state else ""
        return Content(kind, frozenset(map(str, value)))
    rows = value[:MOST_ROWS] if isinstance(value, list) else []
    if not rows or not all(isinstance(row, dict) for row in rows):
        return Content()
    keys = frozenset.intersection(*(frozenset(map(str, row)) for row in rows))
    for kind in (ANNOTATIONS, OUTPUTS):
        if keys.issuperset(NEEDED[kind]):
            return Content(kind, keys)
    return Content(LOG if _is_log(value) else "", keys)


def begins_with(path: Path, *marks: bytes) -> bool:
    """Whether one of these bytes is the first that is no white space."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in marks
    except OSError:
        return False


def _is_log(rows: Sequence[Any]) -> bool:
    """Lines of transformers' or LLaMA-Factory's log: some have a loss, with the step and what goes on
    in a training beside it."""
    trained = [
        row for row in rows
        if isinstance(row, dict) and number(row.get("step", row.get("current_steps"))) is not None
        and (row.keys() & {"epoch", "total_steps"})
    ]  # fmt: skip
    losses = sum("loss" in row for row in trained)
    return losses > 0 and 2 * len(trained) > len(rows)


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
