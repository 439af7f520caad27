"""Texts that end an answer, those among them that hold special tokens, which no answer's text shows."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.modeling.tokenizer_template import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL_LOOKS = r"<\|[^|<>\s]+\|>|</?s>"
"""How special tokens are written, where no tokenizer says which there are."""


def text_of(
    tokenizer: "PreTrainedTokenizerBase", tokens: Sequence[int], special: bool = False
) -> str:
    """The tokens' text; `special`: with the special tokens in it."""
    text: str = tokenizer.decode(
        list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )
    return text


def special_pattern(texts: Sequence[str]) -> "re.Pattern[str]":
    """Matches any of these special tokens in a text; with none, nothing."""
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


def special_looks_in(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(look for text in texts for look in re.findall(SPECIAL_LOOKS, text)))


class Stops:
    """Says where an answer holds one of the stop texts. Only its last tokens are read each time."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> None:
        self._tokenizer, self.texts = tokenizer, list(texts)
        special = special_pattern(special_tokens(tokenizer))
        self._marked = [text for text in texts if special.search(text)]
        self._plain = [text for text in texts if text not in self._marked]
        # A token holds at least a byte, so this many last tokens hold any stop text they complete.
        self._window = max((len(t.encode()) for t in texts), default=0) + 4

    def complete(self, tokens: Sequence[int]) -> bool:
        """Whether the last of the tokens completes a stop text."""
        last = tokens[-self._window :]
        return self._hold(last, self._plain) or self._hold(last, self._marked, special=True)

    def _hold(self, tokens: Sequence[int], texts: Sequence[str], special: bool = False) -> bool:
        if not texts:
            return False
        answer = text_of(self._tokenizer, tokens, special)
        return any(text in answer for text in texts)

    def text(self, tokens: Sequence[int], unfinished: bool = False) -> str:
        """The answer without special tokens, up to the first stop text that holds one.

        `unfinished`: up to where such a stop text may just have begun.
        """
        if not self._marked:
            return text_of(self._tokenizer, tokens)
        answer = text_of(self._tokenizer, tokens, special=True)
        end = min((answer.find(t) for t in self._marked if t in answer), default=len(answer))
        if unfinished and end == len(answer):
            starts = (text[:n] for text in self._marked for n in range(1, len(text)))
            end -= max((len(start) for start in starts if answer.endswith(start)), default=0)
        if end == len(answer):
            return text_of(self._tokenizer, tokens)
        for count in range(len(tokens), -1, -1):
            before = text_of(self._tokenizer, tokens[:count], special=True)
            if len(before) <= end and answer.startswith(before):
                # What is left is a part of one token, and special tokens have no parts.
                return text_of(self._tokenizer, tokens[:count]) + answer[len(before) : end]
        return answer[:end]
