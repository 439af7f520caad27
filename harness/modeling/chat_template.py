"""A template of the spec as a chat template in Jinja, for those who use the model elsewhere."""

from typing import TYPE_CHECKING

from harness.modeling.template_pieces import Piece, pieces
from harness.modeling.tokenizer_template import TokenizerTemplate
from harness.spec.template import DATE, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_USER, _ANSWER, _SYSTEM = "\ue000", "\ue001", "\ue002"
"""Stand in for an example's texts (characters for private use) while the template is filled."""
_HELD = {_USER: "message['content']", _ANSWER: "message['content']", _SYSTEM: "system"}


def chat_template_of(tokenizer: "PreTrainedTokenizerBase", template: Template) -> str:
    """What apply_chat_template() then writes is what `pieces` makes of the same texts: one message of
    the system at most, and turns of user and assistant. An example's `input` has no place of its own
    in a conversation.

    A template of the tokenizer's own is its Jinja, with the spec's system text where it gives one.
    """
    if template.from_tokenizer:
        return _own(tokenizer, template)
    marks = {"bos": tokenizer.bos_token or "", "eos": tokenizer.eos_token or ""}
    opening = opening_of(tokenizer)

    def text(parts: list[Piece]) -> str:
        return "".join(
            (opening if part.opens else "") + marks.get(part.token, part.text) for part in parts
        )

    first = text(pieces(template, _USER))
    answered = text(pieces(template, _USER, output=_ANSWER))
    answer = answered[len(first) :]
    lines = ["{%- set turns = messages -%}"]
    if template.system_layout is None:
        lines += [
            "{%- if messages[0]['role'] == 'system' -%}",
            "{{- raise_exception('this template has no place for a system text') -}}",
            "{%- endif -%}",
        ]
    else:
        lines += [
            f"{{%- set system = {_literal(template.system)} -%}}",
            "{%- if messages[0]['role'] == 'system' -%}",
            "{%- set turns = messages[1:] -%}",
            "{%- if messages[0]['content'] -%}",
            "{%- set system = messages[0]['content'] -%}",
            "{%- endif -%}{%- endif -%}",
        ]
    lines += [
        "{%- for message in turns -%}",
        "{%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}",
        "{{- raise_exception('user and assistant must take turns') -}}",
        "{%- elif message['role'] == 'assistant' -%}",
        _written(answer),
        "{%- elif loop.first -%}",
    ]
    if template.system_layout is None:
        lines += [_written(first)]
    else:
        with_system = text(pieces(template, _USER, system=_SYSTEM))
        # Without any system text the layout stands empty, which a template's own text would hide.
        bare = text(pieces(template.model_copy(update={"system": ""}), _USER))
        lines += ["{%- if system -%}", _written(with_system), "{%- else -%}", _written(bare)]
        lines += ["{%- endif -%}"]
    lines += ["{%- else -%}"]
    if template.separator is None:
        lines += ["{{- raise_exception('this template has no earlier turns') -}}"]
    else:
        conversation = text(pieces(template, _USER, history=[(_USER, _ANSWER)]))
        lines += [_written(conversation[len(answered) :])]
    return "\n".join([*lines, "{%- endif -%}", "{%- endfor -%}", ""])


def opening_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What this tokenizer puts at a text's start, as text."""
    from harness.modeling.text import encode_prompt

    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    ids = encode_prompt(tokenizer, "a")
    return "".join(tokenizer.convert_ids_to_tokens(ids[: len(ids) - len(plain)]))


def _own(tokenizer: "PreTrainedTokenizerBase", template: Template) -> str:
    jinja = TokenizerTemplate(tokenizer, template.date or DATE).jinja
    if not template.system:
        return jinja
    system = f"[{{'role': 'system', 'content': {_literal(template.system)}}}]"
    return (
        "{% if messages[0]['role'] != 'system' %}"
        f"{{% set messages = {system} + messages %}}"
        "{% endif %}\n" + jinja
    )


def _written(text: str) -> str:
    """The text as Jinja's output, its stand-ins as what they stand for."""
    parts, plain = [], ""
    for character in text:
        if character in _HELD:
            parts += [_literal(plain)] * bool(plain) + [_HELD[character]]
            plain = ""
        else:
            plain += character
    parts += [_literal(plain)] * bool(plain)
    return "{{- " + " ~ ".join(parts or ["''"]) + " -}}"


def _literal(text: str) -> str:
    """A string of Jinja's, on one line."""
    for raw, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(raw, escaped)
    return f"'{text}'"
