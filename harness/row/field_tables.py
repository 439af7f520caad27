"""The fields of a spec as a page of Markdown: a table for each part and each kind of part."""

import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from harness.common.progress import counted
from harness.row.schema import json_schema

Schema: TypeAlias = dict[str, Any]
ROOT = "Row"
MOST_PLACES = 6
MOST_ITEMS = 4
"""Of a default that is a list."""
SEEDS = 2**32
"""Bounds of seeds, which tell a reader nothing."""
WORDS = {
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
    "integer": "integer",
    "number": "number",
}
INTRODUCTION = """\
# The fields of a spec

Made from the schema: `harness schema --markdown`. How fields are used, and what decides a key, is in
[specs.md](specs.md).

It begins with a whole row; from there links lead to the parts. Under default, — is a field that is
left open, **needed** one that its part cannot do without (a file that is extended may bring it), and
*defaults* the part's own ones, as its table has them. Text that names a file is a path relative to the
spec. What is *in no key* says how a stage runs, or where something is found, and not what it makes:
changing it makes nothing anew.
"""


def markdown() -> str:
    """The page. The same schema gives the same bytes."""
    schema = json_schema()
    parts = {ROOT: schema, **schema["$defs"]}
    places: dict[str, list[str]] = {}
    for name, place in _walk(parts, ROOT, ""):
        if place not in places.setdefault(name, []):
            places[name].append(place)
    sections = [_section(name, parts, places[name]) for name in places]
    return INTRODUCTION + "\n" + "\n".join(sections)


def _walk(parts: dict[str, Schema], name: str, place: str) -> Iterator[tuple[str, str]]:
    """Every part, where it first stands before what it is made of, with its dotted place in a spec."""
    yield name, place
    for field, value in _fields(parts[name]).items():
        for part in _references(value):
            yield from _walk(parts, part, f"{place}.{field}".removeprefix("."))
    others = parts[name].get("additionalProperties")
    for part in _references(others):
        yield from _walk(parts, part, f"{place}.NAME")


def _fields(part: Schema) -> dict[str, Schema]:
    shapes = (part, *part.get("anyOf", []))
    fields = {
        name: value for shape in shapes for name, value in shape.get("properties", {}).items()
    }
    return dict(sorted(fields.items(), key=lambda field: field[0] != "extends"))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield _name_of(value["$ref"])
        for key, inner in value.items():
            if key not in ("default", "discriminator"):
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _name_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def _heading(name: str, parts: dict[str, Schema]) -> str:
    """`recipe: alpaca`; of a part that is no kind of one, its name in words."""
    for field, value in _fields(parts[name]).items():
        if "const" in value:
            return f"{field}: {value['const']}"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()


def _section(name: str, parts: dict[str, Schema], places: list[str]) -> str:
    part = parts[name]
    lines = [f"## {_heading(name, parts)}", ""]
    if places != [""]:
        at = ", ".join(f"`{place}`" for place in places[:MOST_PLACES])
        more = places[MOST_PLACES:]
        lines += [
            f"At {at}" + (f" and {counted(len(more), 'other place')}" if more else "") + ".",
            "",
        ]
    if part.get("description"):
        lines += [_escaped(part["description"].replace("\n\n", " ")), ""]
    names = [t for shape in part.get("anyOf", []) if "enum" in shape for t in shape["enum"]]
    if names:
        lines += [f"A name: {_codes(names)}; or these fields.", ""]
    lines += ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field, value in _fields(part).items():
        if "const" not in value:
            default = _default(value, parts) if "default" in value else "**needed**"
            meaning = _escaped(value["description"])
            meaning += " *In no key.*" if value.get("key") is False else ""
            lines.append(f"| `{field}` | {_type(value, parts)} | {default} | {meaning} |")
    if others := part.get("additionalProperties"):
        lines.append(f"| *any metric* | {_type(others, parts)} | — | What was published of it. |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """On one line, with no sign of a table's or of HTML's; in code `<` is none."""
    pieces = " ".join(text.split()).replace("|", "\\|").split("`")
    pieces[::2] = [piece.replace("<", "&lt;") for piece in pieces[::2]]
    return "`".join(pieces)


def _codes(values: list[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _type(value: Schema, parts: dict[str, Schema]) -> str:
    if "$ref" in value:
        heading = _heading(_name_of(value["$ref"]), parts)
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        kind = heading.partition(": ")[2]
        return f"[{f'`{kind}`' if kind else heading}](#{anchor})"
    options = value.get("anyOf") or value.get("oneOf")
    if options:
        options = [option for option in options if option.get("type") != "null"]
        types = [_type(option, parts) for option in options]
        either = _either(types[:-1])
        if types[-1] == f"list of {either}":
            return f"{either}, or a list of these"
        return _either(types)
    if "enum" in value or "const" in value:
        return _codes(value.get("enum") or [value["const"]])
    if value.get("type") == "array":
        if "prefixItems" in value:
            return f"list of {len(value['prefixItems'])}: {_type(value['prefixItems'][0], parts)}"
        return f"list of {_type(value['items'], parts)}" if value.get("items") else "list"
    inner = value.get("additionalProperties") or next(
        iter(value.get("patternProperties", {}).values()), None
    )
    if isinstance(inner, dict):
        return f"mapping of names to {_type(inner, parts)}"
    return WORDS[value["type"]] + _range(value) if "type" in value else "any value"


def _either(types: list[str]) -> str:
    *first, last = types or [""]
    return f"{', '.join(first)} or {last}" if first else last


def _range(value: Schema) -> str:
    """` from 0 to 1`, ` over 0`, ` under 1`."""
    words = {
        "minimum": "from",
        "exclusiveMinimum": "over",
        "maximum": "to",
        "exclusiveMaximum": "under",
    }
    bounds = {word: value[key] for key, word in words.items() if abs(value.get(key, SEEDS)) < SEEDS}
    return "".join(f" {word} {bound:g}" for word, bound in bounds.items())


def _default(value: Schema, parts: dict[str, Schema]) -> str:
    default = value["default"]
    if default is None:
        return "—"
    if default in ({}, [], ""):
        return "none"
    if "discriminator" in value:
        return f"`{default[value['discriminator']['propertyName']]}`"
    if isinstance(default, dict):
        default = _changed(default, value, parts)
    return f"`{_flow(default)}`" if default != {} else "defaults"


def _changed(default: Schema, value: Schema, parts: dict[str, Schema]) -> Schema:
    """What of a part's default is another value than the part's own default."""
    names = list(_references(value))
    fields = _fields(parts[names[0]]) if names else {}
    return {
        name: given
        for name, given in default.items()
        if name not in fields or given != fields[name].get("default")
    }


def _flow(value: Any) -> str:
    """As YAML on one line, long lists by their beginning."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        more = [f"... {len(value)} in all"] if len(value) > MOST_ITEMS else []
        return "[" + ", ".join([*map(_flow, value[:MOST_ITEMS]), *more]) + "]"
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z{][\w./@{}-]*", value)
    return value if is_word else json.dumps(value)
