"""A row's settings, and where each value comes from."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.common.hanging import hanging, print_hanging
from harness.common.progress import counted, plain
from harness.row.inherited import stale_in
from harness.row.load import LoadedRow
from harness.row.sources import Valued

STATUSES = ("same", "deviation", "assumption", "default", "harness", "no source")
STYLES = {
    "deviation": "yellow",
    "assumption": "cyan",
    "default": "dim",
    "harness": "dim",
    "no source": "bold red",
}
HARNESS = "not stated by the study: the harness's default fills it"
WIDE = 130
"""Columns of a terminal from which on a setting is a line of a table; else, and where no line is
broken, it is a block of lines."""
TRAIN_SEED = "train.seed"
ANY_SEED = f"{HARNESS}, with any seed; another one trains another model"
NAME, STATUS = 27, 10
VALUE, VALUE_SHARE = (16, 48), 3
"""Widths of the columns, of the values' the least and the most: it has a third of what is left of the
terminal's, and the sources have the rest."""
GAPS = 6
MOST_LINES = 3
"""In a column; what is longer, or has a word longer than the column, stands below."""
INDENT = 4
DITTO = '"'
AS_ABOVE = "as above"


def show_sources(console: Console, loaded: LoadedRow, as_json: bool) -> None:
    """Every setting that decides what the row's stages make: value, source, and how the two stand. A
    source of a value that the row replaces is none of its own."""
    settings = loaded.row.settings()
    stale = stale_in(loaded.path, settings) if loaded.row.scale == "full" else {}
    settings = [_without_stale(setting, stale) for setting in settings]
    if as_json:
        documents = [_to_json(setting, stale) for setting in settings]
        console.file.write(json.dumps(documents, indent=2) + "\n")
        return
    parts = _parts if console.width >= WIDE and not console.soft_wrap else _blocks
    console.print(Group(*parts(console, settings, stale)), highlight=False)
    counts = Counter(map(status_of, settings))
    each = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    print_hanging(console, f"{counted(len(settings), 'setting')}: {each}")


def _blocks(
    console: Console, settings: Sequence[Valued], stale: Mapping[str, Path]
) -> Iterator[Text]:
    """Of each setting a line with its value, and one with status and source."""
    for part, inside in _by_part(settings):
        if inside[0].path != part:
            yield Text(part, "bold")
        above = ""
        for setting in inside:
            name = plain(setting.path.removeprefix(f"{part}."))
            indent = "  " if name != part else ""
            line = Text.assemble(indent, (name, "bold"), f": {plain(_value(setting))}")
            yield hanging(console, line, INDENT)
            source, status = plain(_source(setting, stale)), status_of(setting)
            told = AS_ABOVE if source and source == above else source
            line = Text.assemble(" " * INDENT, (status, STYLES.get(status, "")))
            yield hanging(console, line.append(f": {told}" if told else ""), INDENT + 2)
            above = source


def _by_part(settings: Sequence[Valued]) -> Iterator[tuple[str, list[Valued]]]:
    for part, inside in groupby(settings, _part_of):
        yield part, list(inside)


def _parts(
    console: Console, settings: Sequence[Valued], stale: Mapping[str, Path]
) -> list[Table | Text]:
    """Tables, and between them the values and sources that do not fit into their column."""
    width = _value_width(console, settings)
    table, room = _table(console, width, has_header=True)
    parts: list[Table | Text] = [table]
    for part, inside in _by_part(settings):
        if inside[0].path != part:
            table.add_row(f"[bold]{escape(part)}[/]")
        above = ""
        for setting in inside:
            value, source = plain(_value(setting)), plain(_source(setting, stale))
            shown = DITTO if source and source == above else source
            above, below = source, []
            if not _fits(value, width):
                below, value = [value], ""
            if not _fits(shown, room):
                below, shown = [*below, f"from: {source}"], ""
            status = status_of(setting)
            marked = f"[{STYLES[status]}]{status}[/]" if status in STYLES else status
            table.add_row(*map(escape, (plain(_name(setting, part)), value, shown)), marked)
            if below:
                parts += [hanging(console, Text(" " * INDENT + text), INDENT) for text in below]
                table, _ = _table(console, width)
                parts.append(table)
    return parts


def _fits(text: str, width: int) -> bool:
    return len(text) <= MOST_LINES * width and all(len(word) <= width for word in text.split())


def _table(console: Console, width: int, has_header: bool = False) -> tuple[Table, int]:
    """A table with columns of fixed widths, and that of the sources."""
    room = max(1, console.width - NAME - width - STATUS - GAPS)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=has_header)
    table.add_column("setting", width=NAME, overflow="fold")
    table.add_column("value", width=width, overflow="fold")
    table.add_column("source", width=room, overflow="fold")
    table.add_column("status", width=STATUS)
    return table, room


def _without_stale(setting: Valued, stale: Mapping[str, Path]) -> Valued:
    return replace(setting, source=None) if setting.path in stale else setting


def _value_width(console: Console, settings: Sequence[Valued]) -> int:
    """As wide as the longest value, within bounds and the terminal's room."""
    least, most = VALUE
    longest = max((len(_value(setting)) for setting in settings), default=0)
    room = (console.width - NAME - STATUS - GAPS) // VALUE_SHARE
    return max(least, min(longest, most, room))


def status_of(setting: Valued) -> str:
    """`same`, `deviation`, `assumption`; `default` where the source is of the whole part and the spec
    leaves this open, so that the place need not say it; without a source `harness` for a default of how
    something is done, `assumption` for the training's seed, else `no source`."""
    if setting.source is not None:
        is_open = setting.is_default and setting.key not in setting.names
        return "default" if is_open and setting.source.status == "same" else setting.source.status
    if not (setting.is_default and setting.is_technical):
        return "no source"
    return "assumption" if setting.path == TRAIN_SEED else "harness"


def _part_of(setting: Valued) -> str:
    """`eval.answer`, and of all other parts the first name."""
    first, *names = setting.path.split(".")
    return ".".join([first, *names[:1]]) if first == "eval" else first


def _name(setting: Valued, part: str) -> str:
    """Below its part, where it is not all of it; broken at dots where it is long."""
    if setting.path == part:
        return part
    lines = [""]
    for name in setting.path.removeprefix(part).removeprefix(".").split("."):
        joined = f"{lines[-1]}.{name}" if lines[-1] else name
        if len(joined) < NAME - 2 or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(f"  .{name}")
    return "\n".join(f"  {line}" if number == 0 else line for number, line in enumerate(lines))


def _value(setting: Valued) -> str:
    value = setting.value
    text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, str) and value[:1] in ("{", "["):
        with contextlib.suppress(ValueError):  # spaced, so that lines break between its parts
            text = json.dumps(json.loads(value), ensure_ascii=False)
    return f"{text or repr(text)} (default)" if setting.is_default else text


def _source(setting: Valued, stale: Mapping[str, Path]) -> str:
    if setting.source is not None:
        return str(setting.source)
    if setting.path in stale:
        return f"(what {stale[setting.path].name} says is of the value that this one replaces)"
    if status_of(setting) == "assumption":
        return ANY_SEED
    return HARNESS if status_of(setting) == "harness" else ""


def _to_json(setting: Valued, stale: Mapping[str, Path]) -> dict[str, JsonValue]:
    source = setting.source
    replaced = {"replaces_value_of": str(stale[setting.path])} if setting.path in stale else {}
    return {
        **replaced,
        "setting": setting.path,
        "value": setting.value,
        "is_default": setting.is_default,
        "source": source.model_dump(exclude_none=True) if source is not None else None,
        "status": status_of(setting),
    }
