"""The chat template that a tokenizer brings, taken apart: prompts, answers, and what ends them."""

import json
import re
from calendar import timegm
from datetime import date, datetime, time
from functools import cached_property
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.modeling.load import NAME_A_TEMPLATE
from harness.modeling.template_pieces import History, Piece
from harness.spec.template import DATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "the answer ends here"
LETTERS = "aAbBcCdDeFfgGhHIjklmMnpPrRsStTuUVwWxXyYzZ+"
DIRECTIVE = re.compile(r"%[-_0^#:EO]*\d{0,2}[A-Za-z+]")
ASKS = re.compile(r"strftime_now|date_string")


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Every text that this tokenizer takes for a special token, the longest first."""
    added = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    return sorted(added | set(tokenizer.all_special_tokens), key=lambda t: (-len(t), t))


def dated(jinja: str, day: date) -> str:
    """The chat template with this day, at midnight, in place of the clock: transformers lets it call
    `strftime_now`, and whoever uses it tell it `date_string` (the templates of Llama 3)."""
    written = dict.fromkeys(
        [*(f"%{f}{c}" for c in LETTERS for f in ("", "-")), *DIRECTIVE.findall(jinja)]
    )
    values = {how: _moment(day, how) for how in written}
    replacements = "".join(
        f"|replace({json.dumps(how)}, {json.dumps(value)})"
        for how, value in values.items()
        if "%" not in value
    )
    # The newline is the blocks' own, which transformers takes away with them.
    return (
        "{% macro strftime_now(format) %}{% for part in format.split('%%') %}"
        f"{{% set text = part{replacements} %}}"
        "{% if '%' in text %}{{ raise_exception('no day can be written as ' ~ format) }}{% endif %}"
        "{{ text }}{% if not loop.last %}%{% endif %}{% endfor %}{% endmacro %}"
        "{% if date_string is not defined %}"
        f"{{% set date_string = '{day:%d %b %Y}' %}}{{% endif %}}\n{jinja}"
    )


def _moment(day: date, how: str) -> str:
    moment = datetime.combine(day, time.min)
    # Python's own takes the machine's time zone.
    return str(timegm(moment.timetuple())) if how.endswith("s") else moment.strftime(how)


class TokenizerTemplate:
    """`day`: what it is given for today's date.

    Raises InputError where the tokenizer has no chat template, or one that ends no answer.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", day: str = DATE) -> None:
        self._tokenizer = tokenizer
        self.day = date.fromisoformat(day)
        if not tokenizer.chat_template:
            raise InputError(
                "the tokenizer brings no chat template (template: tokenizer)", NAME_A_TEMPLATE
            )
        try:
            jinja = str(tokenizer.get_chat_template())
        except ValueError as e:
            raise InputError(
                f"the tokenizer's chat template cannot be chosen: {e}", NAME_A_TEMPLATE
            ) from e
        self.asks_for_date = ASKS.search(jinja) is not None
        """Whether it speaks of the day anywhere: some do so in few conversations."""
        self.jinja = dated(jinja, self.day) if self.asks_for_date else jinja
        """With the day in place of the clock, where it asks for it."""
        probed = self._render([_said("user", "question"), _said("assistant", PROBE)], asks=False)
        after = probed.partition(PROBE)[2]
        specials = "|".join(map(re.escape, special_tokens(tokenizer)))
        match = re.search(specials, after) if specials else None
        if PROBE not in probed or match is None:
            raise InputError(
                "the tokenizer's chat template puts no special token after an answer, so that a model "
                "would not learn where to stop",
                NAME_A_TEMPLATE,
            )
        self._after = after
        self.end = after[: match.end()]
        """What ends an answer: a special token and what stands before it, mostly nothing."""
        self.end_token = match[0]

    def pieces(
        self,
        instruction: str,
        input: str = "",
        output: str | None = None,
        system: str = "",
        history: History = (),
    ) -> list[Piece]:
        """As harness.modeling.template_pieces.pieces. The prompt is what the chat template makes of it.

        Raises InputError where it refuses a role, has no place for a system text, or writes earlier
        turns or the answer in another way once more text follows, so that no part of the whole is the
        prompt.
        """
        messages = [_said("system", system)] if system else []
        if system:
            self._check_system()
        question = f"{instruction}\n{input}" if input else instruction
        turns: list[tuple[str, str | None]] = [(user, answer) for user, answer in history]
        prompts, answered = [], []
        for user, answer in [*turns, (question, output)]:
            messages.append(_said("user", user))
            prompts.append(self._render(messages, asks=True))
            if answer is not None:
                messages.append(_said("assistant", answer))
                answered.append(self._render(messages, asks=False))
        conversation = prompts[-1] if output is None else answered[-1]
        if not all(conversation.startswith(begin) for begin in (*prompts, *answered)):
            raise InputError(
                "the tokenizer's chat template writes a prompt or an earlier turn in another way once "
                "more follows, so that a model would not be trained on what it is asked with",
                "Leave earlier turns out, or name a template in the spec.",
            )
        return self._apart(conversation, prompts, answered)

    @cached_property
    def _places_system(self) -> bool:
        messages = [_said("system", PROBE), _said("user", "question")]
        return PROBE in self._render(messages, asks=True)

    def _check_system(self) -> None:
        """A chat template in Jinja leaves out in silence what it does not look for."""
        if not self._places_system:
            raise InputError(
                "the tokenizer's chat template has no place for a system text",
                "Name a template in the spec that has one, or leave the texts out.",
            )

    def _apart(self, conversation: str, prompts: list[str], answered: list[str]) -> list[Piece]:
        """`prompts` and `answered` are beginnings of it: up to each answer, and with it."""
        parts: list[Piece] = []
        at = 0
        for number, before in enumerate(prompts):
            parts.append(Piece(conversation[at : len(before)]))
            if number == len(answered):
                break
            if not answered[number].endswith(self._after):
                raise InputError(
                    "the tokenizer's chat template does not end every answer in the same way",
                    NAME_A_TEMPLATE,
                )
            ended = len(answered[number]) - len(self._after)
            parts += [Piece(conversation[len(before) : ended], number), Piece(self.end, number)]
            at = ended + len(self.end)
        return parts

    def _render(self, messages: list[dict[str, str]], asks: bool) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.jinja,
                    tokenize=False,
                    add_generation_prompt=asks,
                )
            )
        except (TemplateError, TypeError, ValueError) as e:
            raise InputError(
                f"the tokenizer's chat template cannot be filled: {e}", NAME_A_TEMPLATE
            ) from e


def _said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}
