"""Specs from files: every fault of every file at once, each with file, line and column."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.artefact.metrics import METRICS
from harness.errors import KEY_ADVICE, Faults, InputError, masked
from harness.row.reported import ReportedNumbers
from harness.row.row import Row
from harness.row.settings import STUDIED
from harness.spec.base import REVISION, SHA256, models_in
from harness.spec.source import Fault, Mark, Node, load_tree

PRICES = "prices.yaml"
"""The table of prices stands among the specs and is none."""


@dataclass(frozen=True)
class LoadedRow:
    row: Row
    path: Path
    is_named: bool
    """Whether the file itself was named, and not a folder above it."""
    tree: Node | None = field(default=None, repr=False, compare=False)
    """What the files say, each value with its place; None of a row that is made of another."""

    def place(self, setting: Sequence[str | int]) -> Mark | Path:
        """Where a setting stands, or the mapping that it would stand in; of none the spec itself."""
        return self.tree.at(tuple(setting))[1] if self.tree and setting else self.path

    def place_of(self, part: BaseModel) -> Mark | Path:
        """Where a part of the row stands, which is found by its identity."""
        return self.place(_path_to(part, self.row) or ())


def _path_to(part: BaseModel, value: Any) -> tuple[str | int, ...] | None:
    if value is part:
        return ()
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, BaseModel):
        items = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    found = ((name, _path_to(part, inner)) for name, inner in items)
    return next(((name, *path) for name, path in found if path is not None), None)


class SpecFaults(Faults):
    """The specs have faults; `faults` lists them all."""

    def __init__(self, faults: Sequence[Fault], hint: str = "") -> None:
        self.faults = sorted(set(faults))
        super().__init__([InputError(str(fault)) for fault in self.faults], "in the specs", hint)


@dataclass(frozen=True)
class Usable:
    """What can be used of some specs, and what cannot."""

    rows: list[LoadedRow]
    faulty: list[Path]
    """The other specs."""
    faults: list[Fault]
    """Theirs, which may stand in a file that they extend."""


def spec_files(paths: Sequence[Path]) -> dict[Path, bool]:
    """Spec files, and whether each was named itself; of a folder, every *.yaml below it whose name
    does not begin with `_` and that is not the table of prices."""
    files: dict[Path, bool] = {}
    for path in paths:
        if _is_folder(path):
            inside = sorted(
                p for p in path.rglob("*.yaml") if not p.name.startswith("_") and p.name != PRICES
            )
            if not inside:
                raise InputError(
                    f"there is no spec in {path}", "Give a YAML file or a folder that holds some."
                )
            files.update({p: files.get(p, False) for p in inside})
        else:
            files[path] = True
    return _once(files)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _once(files: dict[Path, bool]) -> dict[Path, bool]:
    """Every file once, by the first of the names that it was found under."""
    first: dict[str, Path] = {}
    for path in files:
        first.setdefault(os.path.abspath(path), path)
    named_paths = {os.path.abspath(path) for path, was_named in files.items() if was_named}
    return {path: place in named_paths for place, path in first.items()}


def load_rows(paths: Sequence[Path]) -> list[LoadedRow]:
    """Load and check rows.

    Raises:
        SpecFaults: with every fault of every file.
    """
    usable = load_usable(paths)
    if usable.faults:
        raise SpecFaults(usable.faults)
    return usable.rows


def load_usable(paths: Sequence[Path]) -> Usable:
    """Load the rows that have no fault. Of two with the same id none is usable: which is meant is
    not known."""
    faults: list[Fault] = []
    rows: dict[Path, LoadedRow] = {}
    faulty: list[Path] = []
    first_seen: dict[str, Path] = {}
    parents: dict[Path, Node] = {}
    for path, is_named in spec_files(paths).items():
        before = len(faults)
        # Once there are faults, parents are read anew: theirs are those of every spec on them.
        tree = load_tree(path, faults, {} if faults else parents)
        if tree is not None:
            if (same := _used_before(tree, path, first_seen, faults)) in rows:
                del rows[same]
                faulty.append(same)
            try:
                row = Row.model_validate(tree.plain())
            except ValidationError as error:
                faults.extend(_faults_of(error, tree))
            else:
                faults.extend(_yes_for_a_number(tree, row))
                faults.extend(_metrics_not_given(tree, row))
                faults.extend(_settings_not_had(tree, row))
                rows[path] = LoadedRow(row, path, is_named, tree)
        if len(faults) > before:
            rows.pop(path, None)
            faulty.append(path)
    return Usable(list(rows.values()), faulty, faults)


def _yes_for_a_number(node: Node, value: Any, path: tuple[Any, ...] = ()) -> Iterator[Fault]:
    """YAML reads a bare yes, no, on and off as true and false, which would pass for 1 and 0."""
    if isinstance(node.value, bool) and isinstance(value, int | float):
        if not isinstance(value, bool):
            yield Fault(node.mark, f"{_dotted(path)}: a number is wanted (here: {node.value})")
        return
    if isinstance(node.value, dict) and isinstance(value, list | tuple):
        value = value[0]  # one recipe in place of a chain, one file of several
    for name, child in node.children.items():
        if isinstance(value, BaseModel):
            inner = getattr(value, name, None)
        else:
            inner = value[name] if isinstance(value, dict | list | tuple) else None
        yield from _yes_for_a_number(child, inner, (*path, name))


NEED_VALIDATION = "held_out_loss and bits_per_byte need train.validation"


def _metrics_not_given(tree: Node, row: Row) -> Iterator[Fault]:
    """Names below `reported` and `margins` that the row can have no number for."""
    metrics = row.metrics()
    kinds = [name.partition("/")[0] for name in metrics]
    judge = row.judge
    for part, names in (("reported", metrics), ("margins", [*metrics, *kinds])):
        for name in getattr(row, part):
            if name not in names and not (judge and judge.may_give(name)):
                _, mark = tree.at((part, name))
                fields = ReportedNumbers.model_fields if part == "reported" else ()
                near = difflib.get_close_matches(name, [*names, *fields], n=1)
                advice = f"; did you mean {near[0]!r}?" if near else "."
                advice += f" It gives: {', '.join(metrics)}" if metrics else " It gives none"
                advice += f" ({NEED_VALIDATION})" if row.train and not row.train.validation else ""
                yield Fault(mark, f"{part}.{name}: the row gives no such metric{advice}")


def _settings_not_had(tree: Node, row: Row) -> Iterator[Fault]:
    """Keys of `sources` that no setting of the row has; of inherited ones, that no row can have: a base
    names those of parts, too, that one of its rows does without."""
    settings = row.settings() if row.sources else []
    names = [name for setting in settings for name in setting.names]
    keys = {key for setting in settings for key in setting.keys}
    for key in row.sources:
        if key in keys:
            continue
        _, mark = tree.at(("sources", key))
        unknown = _unknown_part(key)
        if unknown or mark.file == tree.mark.file:
            near = difflib.get_close_matches(key, names, n=1)
            advice = f"; did you mean {near[0]!r}?" if near else f". Parts: {', '.join(STUDIED)}"
            yield Fault(mark, f"sources.{key}: the row has no such setting{advice}")


def _unknown_part(key: str) -> bool:
    """Whether no spec can have a setting of this dotted name, as far as its parts have names."""
    first, *parts = key.split(".")
    if first not in STUDIED:
        return True
    models = models_in(Row.model_fields[first].annotation)
    for part in parts:
        having = [m for m in models if part in m.model_fields]
        if having:
            fields = [m.model_fields[part] for m in having]
            if any("dict[" in str(field.annotation) for field in fields):
                return False
            models = [m for field in fields for m in models_in(field.annotation)]
        elif not part.isdigit():
            return True
    return False


def _used_before(
    tree: Node, path: Path, first_seen: dict[str, Path], faults: list[Fault]
) -> Path | None:
    """The spec, if any, that has the same row id; a fault then says so."""
    node, mark = tree.at(("row",))
    if node is tree or not isinstance(node.value, str):
        return None
    first = first_seen.setdefault(node.value, path)
    if first is path:
        return None
    faults.append(Fault(mark, f"row id {node.value!r} is already used in {first}"))
    return first


SECRET_NAME = re.compile(r"api_?key|(?<!max_|new_)token$|secret|password", re.IGNORECASE)
"""What people call a field that they write a key into."""
NEED_THE_REST = ("missing", "value_error", "union_tag_not_found")
"""Faults of a mapping that a file it extends, and that cannot be used, may take away."""


COMMA = re.compile(r"[-+]?\d[\d.]*(,\d+)+")
NO_COMMA = "a number has a point before its decimals, and no comma"
NO_MAPPING = ("model_type", "dict_type", "model_attributes_type", "mapping_type")
"""Faults of a value that should be a mapping and is none; pydantic names its own classes there."""


def _faults_of(error: ValidationError, tree: Node) -> Iterator[Fault]:
    grouped: dict[tuple[Mark, str], list[str]] = {}
    for item in error.errors(include_url=False):
        path = item["loc"]
        field = _misspelt(path)
        path = path[:2] if field else path
        node, mark = tree.at(path)
        if not tree.is_complete and item["type"] in NEED_THE_REST and isinstance(node.value, dict):
            continue
        name = _dotted(_written(tree, path))
        if field:
            message = f"unknown key; did you mean {field!r}?"
        elif node.value is None and path and isinstance(path[-1], str) and path[-1].isdigit():
            message = f"unknown key; {NO_COMMA}"  # `{value: 40,0}`, which YAML parts at the comma
        elif item["type"] == "extra_forbidden":
            message = f"unknown key{_nearest(str(path[-1]), path)}"
            message += f" ({KEY_ADVICE})" * bool(SECRET_NAME.search(str(path[-1])))
        elif item["type"] == "union_tag_invalid":
            message = _unknown_tag(item["ctx"])
        elif item.get("ctx", {}).get("pattern") == REVISION:
            message = f"40 hex digits are wanted: the full commit hash (here: {_short(node.value)})"
        elif item.get("ctx", {}).get("pattern") == SHA256:
            message = "64 hex digits in small letters are wanted, as sha256sum prints them"
            message += f" (here: {_short(node.value)})"
        elif item["type"] == "missing":
            name = _dotted((*_written(tree, path), path[-1]))
            message = "is missing"
        elif item["type"] in NO_MAPPING:
            message = _mapping_wanted(path, item["type"])
            message += f" (here: {_short(node.value)})" * (not isinstance(node.value, list))
        else:
            message = item["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            if item["type"] == "value_error":
                _, mark = tree.at((*path, *_begun_with(message, node)))
            if not isinstance(node.value, dict | list) and message != KEY_ADVICE:
                is_comma = isinstance(node.value, str) and COMMA.fullmatch(node.value)
                message += f"; {NO_COMMA}" if is_comma else ""
                message += f" (here: {_short(node.value)})"
        grouped.setdefault((mark, name), []).append(message)
    for (mark, name), messages in grouped.items():
        text = "; or ".join(dict.fromkeys(messages))
        yield Fault(mark, f"{name}: {text}" if name else text)


def _misspelt(path: tuple[Any, ...]) -> str:
    """The part of `reported` that a key is meant for which is like no metric; else empty. Any key may
    be a metric's, so that what is wrong within says nothing of it."""
    if path[:1] != ("reported",) or len(path) < 2 or path[1] in ReportedNumbers.model_fields:
        return ""
    fields = list(ReportedNumbers.model_fields)
    near = difflib.get_close_matches(str(path[1]), [*fields, *METRICS], n=1)
    return near[0] if near and near[0] in fields else ""


def _begun_with(message: str, node: Node) -> tuple[str, ...]:
    """The path below a node of what a message about it names first; empty where that is not there."""
    name = re.split(r"[\s:]", message, maxsplit=1)[0]
    if name in node.children:
        return (name,)
    parts = tuple(name.split("."))
    return parts if parts[0] in node.children else ()


def _mapping_wanted(path: tuple[Any, ...], kind: str) -> str:
    """Of one kind of thing also the keys that it may have."""
    models = _models_at(path) if kind == "model_type" and path != ("reported",) else []
    keys = list(models[0].model_fields) if len(models) == 1 and models != [Row] else []
    some_keys = ", ".join(keys[:6]) + ", ..." * (len(keys) > 6)
    return f"a mapping of keys to values is wanted{f': {some_keys}' if keys else ''}"


def _written(tree: Node, path: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parts of pydantic's path that stand in the file."""
    parts: list[Any] = []
    node = tree
    for part in path:
        if part in node.children:
            parts.append(part)
            node = node.children[part]
    return tuple(parts)


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(p) for p in path)


def _short(value: Any) -> str:
    # Masked while it is whole: half a key is not known as one.
    text = masked(repr(str(value)) if isinstance(value, str) else repr(value))
    text = "null" if value is None else text
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown_tag(context: Mapping[str, str]) -> str:
    key, tag = context["discriminator"].strip("'"), context["tag"]
    tags = [name.strip("'") for name in context["expected_tags"].split(", ")]
    near = difflib.get_close_matches(tag, tags, n=1)
    among = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(map(repr, tags))}"
    return f"unknown {key} {_short(tag)}; {among}"


def _nearest(key: str, path: tuple[Any, ...]) -> str:
    fields = sorted({name for model in _models_at(path[:-1]) for name in model.model_fields})
    near = difflib.get_close_matches(key, fields, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(fields)}" if fields else ""


def _models_at(path: tuple[Any, ...]) -> list[type[BaseModel]]:
    """The spec models that may stand at pydantic's error path `path`."""
    models: list[type[BaseModel]] = [Row]
    for part in path:
        inner = [
            m for model in models if part in model.model_fields
            for m in models_in(model.model_fields[str(part)].annotation)
        ]  # fmt: skip
        if inner:
            models = inner
        elif extra := [
            m for model in models if model.model_config.get("extra") == "allow"
            for m in models_in(model.__annotations__["__pydantic_extra__"])
        ]:  # fmt: skip
            models = extra
        elif tagged := [m for m in models if _has_tag(m, part)]:
            models = tagged
    return models


def _has_tag(model: type[BaseModel], tag: Any) -> bool:
    return isinstance(tag, str) and any(f.default == tag for f in model.model_fields.values())
