"""Objects in a reply, however a teacher lists them: JSON lines, a JSON list, numbered or fenced
objects, Python's quotes, or `Name: ... Instruction: ...` pairs.

Whatever can be read in two ways is not read at all.
"""

import ast
import io
import itertools
import json
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

MOST_UNREADABLE = 100
"""Pieces of a reply; what comes after so many is a single one. Each costs a look at all the rest."""

_START = re.compile(r"\{\s*[\"']")
_LINE_START = re.compile(
    r"^(?P<indent>[^\S\n]*+)(?:[\[,][^\S\n]*+)?(?:(?:\(?\d{1,4}[.):]|[-*•])[^\S\n]*+)?"
    r"(?P<brace>\{)\s*[\"']",
    re.MULTILINE,
)
_QUOTED_OR_BRACE = re.compile(
    r"\"(?:[^\"\\\n]|\\.)*+\"|'(?:[^'\\\n]|\\.)*+'|[{}]|[\"'][^\n]*"  # or a quote left open
)
_MARKS = r"[-*•#>_` \t]*+(?:\(?\d{1,4}[.):]++[*_` \t]*+)?"
_NAME = re.compile(
    rf"^{_MARKS}(?:task[ _])?name[*_`]*[ \t]*:[*_`]*[ \t]*", re.IGNORECASE | re.MULTILINE
)
_INSTRUCTION = re.compile(
    rf"(?:^{_MARKS}|(?<=[\s,;|])[*_`]*+)instruction[*_`]*[ \t]*:[*_`]*[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_HEADING = re.compile(r"(?:(?:pair|task|example)[ #]*\d{0,4}|\(?\d{1,4}[.)])?", re.IGNORECASE)
"""What may stand on a line of its own before the next pair, beside rules and marks."""


Fields = dict[str, Any]
"""An object of a reply: name in lower case -> whatever the teacher wrote."""


class ReplyPiece(NamedTuple):
    """A piece of a reply. `fields` is None where it cannot be read.

    is_open: nothing shows where it ends, so that in a reply that was cut it is not whole.
    """

    text: str
    fields: Fields | None
    is_open: bool = False


def find_objects(reply: str) -> list[ReplyPiece]:
    """The objects in a reply, in order; the text around them does not count.

    Numbers come as their text. An object that only wraps others, `{"tasks": [...]}` for example,
    stands for those.
    """
    pieces: list[ReplyPiece] = []
    at = unreadable = 0
    while opening := _START.search(reply, at):
        start = opening.start()
        value, end = _read(reply, start)
        at = _resume(reply, start) if end is None else end
        unreadable += value is None
        if unreadable > MOST_UNREADABLE:
            at = len(reply)
        is_open = end is None and at == len(reply)
        pieces += _unwrapped(reply[start:at].strip(), value, is_open)
    return pieces


def find_pairs(reply: str) -> list[ReplyPiece]:
    """The `Name: ... Instruction: ...` pairs in a reply, in order."""
    labels = list(_NAME.finditer(reply))
    pieces: list[ReplyPiece] = []
    for label, following in itertools.zip_longest(labels, labels[1:]):
        text = reply[label.start() : following.start() if following else len(reply)]
        body = text[label.end() - label.start() :]
        if following is not None:
            body = _without_heading(body)
        pieces.append(ReplyPiece(text.strip(), _pair(body), is_open=following is None))
    return pieces


def fields_of(value: Any) -> Fields | None:
    """An object's fields by their names in lower case; None for anything else, and where two names
    become one."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return None
    fields = {name.strip().lower(): content for name, content in value.items()}
    return fields if len(fields) == len(value) else None


def text_of(value: Any) -> str | None:
    """A field's text without white space around it; a whole number is a text too, a list is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else None


def without_quotes(text: str) -> str:
    """The text without the pair of quotes around it: `"A b."`, not `"A" or "b"`."""
    for first, last in ('""', "''", "“”", "‘’"):
        if len(text) < 2 or text[0] != first or text[-1] != last:
            continue
        inner = text[1:-1]
        rest = re.sub(r"(?<=\w)['’](?=\w)", "", inner)  # an apostrophe ends nothing
        rest = re.sub(rf"(?<![^\s(\[]){first}(?=\S)[^{first}{last}]*(?<=\S){last}(?!\w)", "", rest)
        if first not in rest and last not in rest:
            return inner.strip()
    return text


def _unwrapped(text: str, value: Any, is_open: bool) -> Iterator[ReplyPiece]:
    fields = fields_of(value)
    members = _members(fields or {})
    if not members:
        yield ReplyPiece(text, fields, is_open)
    for member in members:
        yield ReplyPiece(json.dumps(member, ensure_ascii=False), fields_of(member))


def _members(fields: Fields) -> list[Fields]:
    """The objects in an object that holds nothing else; `instances` belong to the task it is."""
    contents = list(fields.values())
    if "instances" in fields:
        return []
    if len(contents) == 1 and isinstance(contents[0], list):
        contents = contents[0]
    return contents if all(isinstance(content, dict) for content in contents) else []


def _read(text: str, start: int) -> tuple[Any, int | None]:
    """The object that begins at `start`, and where it ends; None for what is not known."""
    try:
        return _JSON.raw_decode(text, start)
    except (ValueError, RecursionError):
        end = _end(text, start)
        return (None if end is None else _python(text[start:end])), end


def _end(text: str, start: int) -> int | None:
    """Where the brace at `start` is closed."""
    depth = 0
    for token in _QUOTED_OR_BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return None


def _resume(text: str, start: int) -> int:
    """Where to go on after an object that is never closed: at the next line that begins one and is
    not indented further, so that no inner object is taken for one of the list."""
    line = text.rfind("\n", 0, start) + 1
    indent = len(text[line:start]) - len(text[line:start].lstrip())
    for line_start in _LINE_START.finditer(text, start + 1):
        if len(line_start["indent"]) <= indent:
            return line_start.start("brace")
    return len(text)


def _python(text: str) -> Any:
    """A Python literal's value; None where it is none, repeats a key or joins texts unasked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval")
            value = ast.literal_eval(tree)
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
        return None
    nodes = list(ast.walk(tree))
    texts = sum(isinstance(n, ast.Constant) and isinstance(n.value, str) for n in nodes)
    if texts != sum(token.type == tokenize.STRING for token in tokens):
        return None
    objects = (node for node in nodes if isinstance(node, ast.Dict))
    keys = ([ast.dump(key) for key in node.keys if key is not None] for node in objects)
    return None if any(len(set(names)) < len(names) for names in keys) else value


def _no_repeats(pairs: Iterable[tuple[str, Any]]) -> Fields:
    fields: Fields = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError("a name stands twice in an object")
        fields[name] = value
    return fields


_JSON = json.JSONDecoder(
    object_pairs_hook=_no_repeats, parse_int=str, parse_float=str, parse_constant=str, strict=False
)


def _without_heading(text: str) -> str:
    lines = text.rstrip().split("\n")
    while len(lines) > 1 and _HEADING.fullmatch(lines[-1].strip(" \t\r#*=_-:")):
        lines.pop()
    return "\n".join(lines)


def _pair(text: str) -> Fields | None:
    """Name and instruction from what follows a `Name:`."""
    labels = list(_INSTRUCTION.finditer(text))
    if len(labels) != 1:
        return None
    name = text[: labels[0].start()].strip(" \t\r\n,;|*_`")
    instruction = text[labels[0].end() :].strip(" \t\r\n*_`")
    # Beyond an empty line the teacher may well speak of something else.
    if "\n" in name or re.search(r"\n\s*\n", instruction):
        return None
    return {"name": without_quotes(name), "instruction": without_quotes(instruction)}
