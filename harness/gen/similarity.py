"""ROUGE-L against a growing pool of texts, as Self-Instruct uses it to keep tasks apart."""

import re

from rapidfuzz.distance import LCSseq

_TOKEN = re.compile(r"[a-z0-9]+")
_FIRST_SURROGATE, _SURROGATES = 0xD800, 0x800


class Pool:
    """Texts that a new one is compared with.

    ROUGE-L (Lin 2004) with the longest common subsequence of `[a-z0-9]+` tokens of the lower-cased
    texts, no stemming. Each distinct token stands for one character, so that a fast routine for
    strings can do the work.
    """

    def __init__(self) -> None:
        self._characters: dict[str, str] = {}
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        self._texts.append(self._encode(text))

    def nearest_above(self, text: str, threshold: float) -> tuple[float, int] | None:
        """The highest F-measure above the threshold and which text has it (the first one of
        equals), or None."""
        new = self._encode(text)
        best, place = threshold, None
        for index, old in enumerate(self._texts):
            shorter, both = min(len(new), len(old)), len(new) + len(old)
            # F is at most this; the margin is for rounding.
            if not shorter or 2 * shorter / both < best - 1e-9:
                continue
            f = f_measure(LCSseq.similarity(new, old), len(new), len(old))
            if f > best:
                best, place = f, index
        return None if place is None else (best, place)

    def _encode(self, text: str) -> str:
        return "".join(map(self._character, _TOKEN.findall(text.lower())))

    def _character(self, token: str) -> str:
        character = self._characters.get(token)
        if character is None:
            code = len(self._characters) + 1
            character = chr(code if code < _FIRST_SURROGATE else code + _SURROGATES)
            self._characters[token] = character
        return character


def f_measure(common: int, new: int, old: int) -> float:
    """F = 2pr / (p + r) in rouge_score's order of operations, so that equal means equal.

    `common`: length of the longest common subsequence; `new` and `old`: lengths in tokens.
    """
    if common == 0:
        return 0.0
    precision, recall = common / new, common / old
    return 2 * precision * recall / (precision + recall)
