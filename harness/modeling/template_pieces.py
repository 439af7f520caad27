"""A template filled: an example part by part. Each part is tokenized by itself."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.errors import InputError
from harness.spec.template import Template

MASKED = -1
History = Sequence[Sequence[str]]
"""Earlier turns: (user, assistant) pairs, oldest first."""
_PLACE = re.compile(r"\{(\w+)\}")
_MARK = re.compile(r"\{(bos|eos)\}")


class Piece(NamedTuple):
    text: str
    answer: int = MASKED
    """Which of the example's answers it belongs to, from 0; MASKED: to none."""
    token: str = ""
    """`bos` or `eos`: the tokenizer's own, in place of a text."""
    opens: bool = False
    """Whether the tokenizer adds what it puts at a text's start."""


def render(template: Template, instruction: str, input: str = "") -> str:
    """The text the model sees; its answer follows directly.

    A newline at the very end of the template does not count. Where the template has no {input}, a
    non-empty input follows the instruction on a line of its own. Braces in the data are left alone.
    """
    layout = _layout(template, input)
    return _filled(layout, _values(layout, instruction, input))


def pieces(
    template: Template,
    instruction: str,
    input: str = "",
    output: str | None = None,
    system: str = "",
    history: History = (),
    append_end: bool = True,
) -> list[Piece]:
    """An example, or without an output its prompt: the text up to where the answer begins. Its last
    answer has its end where `append_end` says so, earlier ones always.

    `system` "" is the template's own. Raises InputError for a system text or earlier turns where the
    template has no place for them.
    """
    _check_places(template, system, history)
    system = system or template.system
    block = ""
    parts = _marked(template.start or "", {})
    if system and has_system_place(template):
        block = _filled(template.system_layout or "", {"system": system})
    elif system:
        parts += _marked(template.system_layout or "", {"system": system})
    turns = [*((user, "", answer) for user, answer in history), (instruction, input, output)]
    for number, (question, context, answer) in enumerate(turns):
        if number:
            parts += _marked(template.separator or "", {})
        parts += _turn(template, question, context, "" if number else block)
        if answer is not None:
            parts.append(Piece(_filled(template.answer, {"output": answer}), number))
            if append_end or number < len(history):
                parts += [piece._replace(answer=number) for piece in ending(template)]
    if template.start is None and not parts[0].token:
        parts[0] = parts[0]._replace(opens=True)
    return parts


def ending(template: Template) -> list[Piece]:
    """What ends an answer."""
    return _marked(template.end or "{eos}", {})


def text_before_token(ends: Sequence[Piece], special: "re.Pattern[str]") -> str:
    """Of what ends an answer the plain text before its first token, which alone would not be seen to
    end one; "" for white space, which an answer can hold, and where there is no such token."""
    before = ""
    for piece in ends:
        mark = special.search(piece.text)
        before += piece.text[: mark.start()] if mark else piece.text
        if piece.token or mark:
            return before if before.strip() else ""
    return ""


def has_system_place(template: Template) -> bool:
    """Whether a system text stands inside the first turn, and not before it."""
    return template.start is not None and "{system}" in _layout(template, "")


def _check_places(template: Template, system: str, history: History) -> None:
    called = f"the template {template.name}" if template.name else "the template"
    if system and template.system_layout is None:
        raise InputError(
            f"{called} has no place for an example's system text",
            "Give it one (template.system_layout, text with {system}), or leave the texts out.",
        )
    if history and template.separator is None:
        raise InputError(
            f"{called} has no earlier turns",
            "Say what stands between turns (template.separator), or leave the earlier turns out.",
        )


def _turn(template: Template, instruction: str, input: str, system: str) -> list[Piece]:
    layout = _layout(template, input)
    values = _values(layout, instruction, input)
    if template.start is None:
        return [Piece(_filled(layout, values))]
    return _marked(layout, values | {"system": system})


def _layout(template: Template, input: str) -> str:
    file = template.prompt_with_input if input and template.prompt_with_input else template.prompt
    assert file is not None, "the tokenizer's own template is not made of pieces"
    return file.text.removesuffix("\n").removesuffix("\r")


def _values(layout: str, instruction: str, input: str) -> dict[str, str]:
    if input and "{input}" not in layout:
        instruction = f"{instruction}\n{input}"
    return {"instruction": instruction, "input": input}


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Filled once: what the values hold is left alone, and so are braces around other words."""
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), text)


def _marked(text: str, values: Mapping[str, str]) -> list[Piece]:
    """The text filled, and apart from it {bos} and {eos} of the layout (never of the values)."""
    parts = _MARK.split(text)
    marked = []
    for number, part in enumerate(parts):
        if number % 2:
            marked.append(Piece("", token=part))
        elif part:
            marked.append(Piece(_filled(part, values)))
    return marked
