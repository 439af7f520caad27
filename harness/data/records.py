"""Reading data sets and prompt sets: a JSON list or JSON lines of objects, faults with file:line."""

import codecs
import contextlib
import gc
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.common.text_files import read_text
from harness.data.conversations import as_text, is_absent
from harness.errors import InputError

MARK = "\ufeff"
"""That of UTF-8 at a file's start, and in files put together at the start of each."""
ONE_FORMAT = "The file must hold one JSON list of objects, or one object a line."
NEED_TEXT = "Give the record a text there, or leave it out."
TOO_DEEP = "nested too deeply"
TOO_LONG = "a number with too many digits"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Record(NamedTuple):
    line: int
    """Where the object starts, from 1."""
    fields: dict[str, Any]
    number: int = 0
    """From 1, where several objects start on one line; else 0."""

    def place(self, path: Path | str) -> str:
        """`FILE:LINE`, for people."""
        return f"{path}:{self.line}" + (f" (record {self.number})" if self.number else "")


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Keep the garbage collector from walking over what is only being built: it takes two thirds of
    the time that a large file needs."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@without_collector()
def read_records(path: Path) -> list[Record]:
    """Raises InputError for a file that is absent, unreadable, not JSON, or holds no objects."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except UnicodeDecodeError as e:
        hint = ""
        if e.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            hint = "It begins as UTF-16 does: write it anew as UTF-8."
        raise InputError(f"{path} cannot be read as UTF-8 text: {e}", hint) from None
    except OSError as e:
        raise InputError(f"{path} cannot be read as UTF-8 text: {e}") from None
    try:
        items = _list_items(text) if text.lstrip().startswith("[") else _lines(text)
    except json.JSONDecodeError as e:
        raise InputError(
            f"{path}:{e.lineno}: not valid JSON: {e.msg} (column {e.colno})",
            ONE_FORMAT,
        ) from None
    records = []
    may_hold_half = _SURROGATE.search(text) is not None
    has_shared_lines = len({line for line, _ in items}) < len(items)
    for number, (line, value) in enumerate(items, 1):
        record = Record(line, value, number if has_shared_lines else 0)
        place = record.place(path)
        if not isinstance(value, dict):
            raise InputError(f"{place}: an object is wanted, not {shown(value)}", ONE_FORMAT)
        if may_hold_half and not _is_unicode(value):
            raise InputError(
                f"{place}: a text here holds half of a surrogate pair, which is no character",
                "Remove the lone \\ud800 to \\udfff escape from it.",
            )
        records.append(record)
    if not records:
        raise InputError(f"{path} holds no records")
    return records


def text_field(path: Path, record: Record, name: str, default: str | None = None) -> str:
    """The field's text; of a number its digits. `default`: of a field that is absent, null or NaN.

    Raises InputError where it is absent and has no default, or is not a text.
    """
    value = record.fields.get(name)
    if not is_absent(value):
        with contextlib.suppress(ValueError):
            return as_text(value)
    elif default is not None:
        return default
    if name not in record.fields:
        has = ", ".join(record.fields) or "none"
        raise InputError(
            f"{record.place(path)}: no `{name}`; the fields here are: {has}", NEED_TEXT
        )
    raise InputError(
        f"{record.place(path)}: `{name}` must be a text, not {shown(value)}", NEED_TEXT
    )


def shown(value: Any) -> str:
    try:
        return json.dumps(value)[:60]
    except RecursionError:
        return f"what is {TOO_DEEP}"


def _lines(text: str) -> list[tuple[int, Any]]:
    items = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removeprefix(MARK)
        if line.strip():
            try:
                items.append((number, json.loads(line)))
            except json.JSONDecodeError as e:
                raise json.JSONDecodeError(e.msg, text, _offset(text, number) + e.pos) from None
            except (ValueError, RecursionError) as e:
                raise json.JSONDecodeError(_limit(e), text, _offset(text, number)) from None
    return items


def _limit(error: Exception) -> str:
    """Which of Python's own limits a value passed."""
    return TOO_DEEP if isinstance(error, RecursionError) else TOO_LONG


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _offset(text: str, line: int) -> int:
    return sum(len(part) + 1 for part in text.split("\n")[: line - 1])


def _list_items(text: str) -> list[tuple[int, Any]]:
    """Each item of the list with its line, which json.loads would lose."""
    decoder = json.JSONDecoder()
    items: list[tuple[int, Any]] = []
    line, counted = 1, 0
    at = _skip_space(text, text.index("[") + 1)
    if not text.startswith("]", at):
        while True:
            line, counted = line + text.count("\n", counted, at), at
            try:
                value, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                raise
            except (ValueError, RecursionError) as e:
                raise json.JSONDecodeError(_limit(e), text, at) from None
            items.append((line, value))
            at = _skip_space(text, at)
            if not text.startswith(",", at):
                break
            at = _skip_space(text, at + 1)
    if not text.startswith("]", at):
        raise json.JSONDecodeError("a comma or the list's end is wanted", text, at)
    after = _skip_space(text, at + 1)
    if after < len(text):
        raise json.JSONDecodeError("text after the list's end", text, after)
    return items


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
