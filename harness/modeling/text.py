"""From an instruction to tokens: the template's text, where the loss begins, what ends an answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import InputError
from harness.modeling.template_pieces import (
    MASKED,
    History,
    Piece,
    ending,
    pieces,
    render,
    text_before_token,
)
from harness.modeling.tokenizer_template import TokenizerTemplate, special_tokens
from harness.spec.template import DATE, TOKENIZER, Template, load_template, template_names

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Encoder", "Example", "Tokens", "encode_prompt", "render"]

CHUNK = 1000
"""Examples tokenized in one call."""


class Example(NamedTuple):
    """`system` "" is the template's own; `history` is earlier (user, assistant) pairs, oldest first."""

    instruction: str
    input: str
    output: str
    system: str = ""
    history: History = ()

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of all its texts, without what a template writes between them."""
        turns = [text for turn in self.history for text in turn]
        texts = (self.system, *turns, self.instruction, self.input, self.output)
        return sum(len(text.encode()) for text in texts)


@dataclass(frozen=True, slots=True)
class Tokens:
    ids: list[int]
    answers: list[tuple[int, int]]
    """Where each assistant turn with its end begins and ends (the end not included), oldest first."""


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    """The prompt's tokens, with whatever this tokenizer puts at a text's start and no end token."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    return _without_end(tokenizer, prompt, ids)


class Encoder:
    """A template with a tokenizer.

    The parts of an example are tokenized apart: prompt tokens and answer tokens together are the whole,
    and the prompt tokens are those that the model is asked with. `together`: what lies between two of
    the tokenizer's own tokens is one text, and a part of it begins behind as many tokens as all before
    it has alone. `append_end`: whether an example's answer is followed by its end. Raises InputError
    where the tokenizer lacks a token that the template needs, or both of them begin a text with the
    same one.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: Template,
        together: bool = False,
        append_end: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._together, self._append_end = together, append_end
        self._own = (
            TokenizerTemplate(tokenizer, template.date or DATE) if template.from_tokenizer else None
        )
        if self._own is None:
            _check_tokens(tokenizer, template)
        specials = special_tokens(tokenizer) + template.special
        self._special = re.compile("|".join(map(re.escape, specials)) or r"(?!)")
        self.end_ids: list[int] = []
        """The ids that end an answer: a model that has learnt the template makes one of them."""
        self.stop = list(template.stop)
        """Texts that end an answer; among them what the template's end has before its special token, or
        all of it where it has none."""
        self.notes: list[str] = []
        if self._own is not None and self._own.asks_for_date:
            self.notes.append(
                f"the tokenizer's chat template asks for today's date: it is given {self._own.day}, "
                "always (template.date)"
            )
        self._find_end()
        self._check_opening()

    def prompt(
        self, instruction: str, input: str = "", system: str = "", history: History = ()
    ) -> list[int]:
        return self.encode(self.pieces(instruction, input, None, system, history)).ids

    def example(
        self,
        instruction: str,
        input: str,
        output: str,
        system: str = "",
        history: History = (),
    ) -> Tokens:
        return self.examples([Example(instruction, input, output, system, history)])[0]

    def examples(self, examples: Sequence[Example]) -> list[Tokens]:
        tokens: list[Tokens] = []
        for at in range(0, len(examples), CHUNK):
            chunk = examples[at : at + CHUNK]
            tokens += self._encode([self.pieces(*example) for example in chunk])
        return tokens

    def injected(self, text: str) -> bool:
        """Whether a text holds what the tokenizer takes for a special token: it could end a turn."""
        return self._special.search(text) is not None

    def pieces(
        self,
        instruction: str,
        input: str = "",
        output: str | None = None,
        system: str = "",
        history: History = (),
    ) -> list[Piece]:
        """The texts that are tokenized apart; without an output, those of the prompt."""
        if self._own is None:
            return pieces(
                self._template, instruction, input, output, system, history, self._append_end
            )
        system = system or self._template.system
        parts = self._own.pieces(instruction, input, output, system, history)
        return parts if output is None or self._append_end else parts[:-1]

    def encode(self, parts: Sequence[Piece]) -> Tokens:
        return self._encode([parts])[0]

    def _encode(self, examples: Sequence[Sequence[Piece]]) -> list[Tokens]:
        """Every text that occurs, once, in one call: the template's own parts cost nothing."""
        texts_of = _up_to if self._together else _own_texts
        texts_by_example = [texts_of(parts) for parts in examples]
        texts = dict.fromkeys(
            text for e, of in zip(examples, texts_by_example, strict=True)
            for piece, text in zip(e, of, strict=True) if not piece.token
        )  # fmt: skip
        plain = self._tokenize([text for text, opens in texts if not opens], opens=False)
        opened = self._tokenize([text for text, opens in texts if opens], opens=True)
        marks = {"bos": self._tokenizer.bos_token_id, "eos": self._tokenizer.eos_token_id}
        encoded = []
        for example, of in zip(examples, texts_by_example, strict=True):
            ids: list[int] = []
            spans: dict[int, tuple[int, int]] = {}
            together = 0
            for piece, (text, opens) in zip(example, of, strict=True):
                begin = len(ids)
                mark = marks.get(piece.token)
                if mark is not None:
                    ids.append(mark)
                    together = len(ids)
                else:
                    if self._together:
                        del ids[together:]
                    ids += (opened if opens else plain)[text]
                if piece.answer != MASKED:
                    spans[piece.answer] = (spans.get(piece.answer, (begin, 0))[0], len(ids))
            encoded.append(Tokens(ids, list(spans.values())))
        return encoded

    def _tokenize(self, texts: list[str], opens: bool) -> dict[str, list[int]]:
        if not texts:
            return {}
        tokens = self._tokenizer(
            texts, add_special_tokens=opens, return_attention_mask=False, verbose=False
        )["input_ids"]
        if opens:
            tokens = [
                _without_end(self._tokenizer, t, ids) for t, ids in zip(texts, tokens, strict=True)
            ]
        return dict(zip(texts, tokens, strict=True))

    def _check_opening(self) -> None:
        systems = {"", _any_system(self._template)} if self._own is None else {""}
        prompts = [self.prompt("", text, system) for text in ("", "any") for system in systems]
        if any(ids[:2] == [self._tokenizer.bos_token_id] * 2 for ids in prompts):
            begins = self._tokenizer.bos_token
            raise InputError(
                f"the template begins with {begins}, and the tokenizer puts one there by itself: every "
                "text would begin with two",
                f"Leave {begins} out of template.prompt, prompt_with_input and system_layout, or say "
                "with template.start that the template alone decides what a text begins with "
                "(start: '', and in the prompt {bos}).",
            )

    def stops(self, texts: Sequence[str] = ()) -> tuple[list[int], list[str]]:
        """What ends an answer, by the template and by these stop texts: tokens, and texts.

        A text that is one special token is that token: an answer's text would not show it.
        """
        every = dict.fromkeys([*self.stop, *texts])
        special = [text for text in special_tokens(self._tokenizer) if text in every]
        ids: list[int] = self._tokenizer.convert_tokens_to_ids(special)
        return sorted({*self.end_ids, *ids}), [text for text in every if text not in special]

    def _find_end(self) -> None:
        ends = ending(self._template) if self._own is None else [Piece(self._own.end_token)]
        specials = set(
            self._tokenizer.convert_tokens_to_ids(
                special_tokens(self._tokenizer) + self._template.special
            )
        )
        marks = {self.encode([piece]).ids[0] for piece in ends if piece.token}
        self.end_ids = [i for i in self.encode(ends).ids if i in specials | marks][:1]
        if not self.end_ids:
            self.stop.append("".join(piece.text for piece in ends))
        elif before := text_before_token(
            ends if self._own is None else [Piece(self._own.end)], self._special
        ):
            self.stop.append(before)


def _own_texts(parts: Sequence[Piece]) -> list[tuple[str, bool]]:
    return [(piece.text, piece.opens) for piece in parts]


def _up_to(parts: Sequence[Piece]) -> list[tuple[str, bool]]:
    """Of each part all of the text since the last of the tokenizer's own tokens, with its own."""
    joined: list[tuple[str, bool]] = []
    for piece in parts:
        text, opens = joined[-1] if joined and not piece.token else ("", False)
        joined.append((text + piece.text, opens or piece.opens))
    return joined


def missing_tokens(tokenizer: "PreTrainedTokenizerBase", template: Template) -> list[str]:
    """What the template needs as one token and the tokenizer has not."""
    missing = [text for text in template.special if not _is_token(tokenizer, text)]
    marks = {piece.token for piece in pieces(template, "", output="", system=_any_system(template))}
    if "bos" in marks and tokenizer.bos_token_id is None:
        missing.append("a beginning-of-sequence token (bos)")
    if "eos" in marks and tokenizer.eos_token_id is None:
        missing.append("an end-of-sequence token (eos)")
    return missing


def _any_system(template: Template) -> str:
    return "" if template.system_layout is None else "any"


def _is_token(tokenizer: "PreTrainedTokenizerBase", text: str) -> bool:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return len(ids) == 1 and (ids[0] != tokenizer.unk_token_id or text == tokenizer.unk_token)


def _check_tokens(tokenizer: "PreTrainedTokenizerBase", template: Template) -> None:
    missing = missing_tokens(tokenizer, template)
    if not missing:
        return
    templates = [load_template(name) for name in template_names() if name != TOKENIZER]
    fitting = [str(o.name) for o in templates if not missing_tokens(tokenizer, o)]
    fitting += [TOKENIZER] if tokenizer.chat_template else []
    raise InputError(
        f"the template {template.name or 'of the spec'} needs what the model's tokenizer does not know "
        f"as one token: {', '.join(missing)}",
        "Take a base model that has been given these tokens, or a template that fits this one: "
        f"{', '.join(fitting)}.",
    )


def _without_end(tokenizer: "PreTrainedTokenizerBase", prompt: str, ids: list[int]) -> list[int]:
    if ids and ids[-1] == tokenizer.eos_token_id and not prompt.endswith(tokenizer.eos_token):
        return ids[:-1]
    return ids
