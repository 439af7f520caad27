"""ROUGE-L against a growing pool of texts, as Self-Instruct uses it to keep tasks apart."""

import re
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq

from harness.data.dropped import Reason

MOST_SIMILAR = 10  # Self-Instruct stores so many with each kept instruction

_TOKEN = re.compile(r"[a-z0-9]+")
PATIENCE = 200_000
"""Comparisons of two texts that are made one by one before the compiler, which takes two seconds, is
worth its while."""

WORD_BITS = 64
# What the `places` of an entry say beside an index: the first word of a text of several words,
# and each further one. An entry of a text of one word has neither.
FIRST, FURTHER = 1 << 30, 1 << 31
_FIRST_SIZE = 1024


class Pool:
    """Texts that a new one is compared with.

    ROUGE-L (Lin 2004) with the longest common subsequence of `[a-z0-9]+` tokens of the lower-cased
    texts, no stemming, equal to the last bit to the F-measure of the package rouge_score. A text
    without a token scores 0. After the first PATIENCE comparisons a text is compared with the whole
    pool at once, by way of the texts that share its tokens (harness.gen.lcs).
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._postings = _Postings()
        self._texts = 0
        self._lengths = np.empty(_FIRST_SIZE, np.int32)
        self._further = 0
        self._owners = np.empty(0, np.int32)
        self._patience = PATIENCE
        self._tokens: list[list[str]] = []
        self._last: tuple[str, NDArray[np.float64]] | None = None

    def __len__(self) -> int:
        return self._texts

    def extend(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        tokens = _TOKEN.findall(text.lower())
        if self._patience > 0:
            self._tokens.append(tokens)
        masks: dict[str, int] = {}
        for position, token in enumerate(tokens):
            masks[token] = masks.get(token, 0) | 1 << position
        index, further = self._texts, self._further
        more = max(0, -(-len(tokens) // WORD_BITS) - 1)
        word = (1 << WORD_BITS) - 1
        for token, mask in masks.items():
            number = self._numbers.setdefault(token, len(self._numbers))
            self._postings.append(number, index | FIRST if more else index, mask & word)
            for k in range(more):
                mask >>= WORD_BITS
                self._postings.append(number, (further + k) | FURTHER, mask & word)
        self._lengths = _with_room(self._lengths, index + 1)
        self._lengths[index] = len(tokens)
        self._owners = _with_room(self._owners, further + more)
        self._owners[further : further + more] = index
        self._texts, self._further = index + 1, further + more
        self._last = None

    def scores(self, text: str) -> NDArray[np.float64]:
        """The F-measure with each text, in order of adding; read-only.

        The last text's are kept until the next `add`, so that asking whether it is new and then
        what it resembles goes through the pool once.
        """
        if self._last is None or self._last[0] != text:
            scores = self._f_measures(text)
            scores.setflags(write=False)
            self._last = text, scores
        return self._last[1]

    def nearest_above(self, text: str, threshold: float) -> tuple[float, int] | None:
        """The highest F-measure above the threshold and which text has it (the first one of
        equals), or None."""
        scores = self.scores(text)
        if not scores.size:
            return None
        index = int(scores.argmax())
        best = float(scores[index])
        return (best, index) if best > threshold else None

    def nearest(
        self, text: str, count: int = MOST_SIMILAR
    ) -> tuple[list[tuple[int, float]], float]:
        """The most similar texts as (index, F), best first and the first added of equals first,
        and the mean F over the pool, 0 for an empty one."""
        scores = self.scores(text)
        if not scores.size:
            return [], 0.0
        count = min(count, scores.size)
        last = np.partition(scores, -count)[-count]
        best = np.flatnonzero(scores >= last)
        best = best[np.argsort(-scores[best], kind="stable")][:count]
        return list(zip(best.tolist(), scores[best].tolist(), strict=True)), float(scores.mean())

    def _f_measures(self, text: str) -> NDArray[np.float64]:
        tokens = _TOKEN.findall(text.lower())
        self._patience -= self._texts
        if self._patience > 0:
            return np.array([_one_by_one(tokens, old) for old in self._tokens], np.float64)
        self._tokens.clear()

        from harness.gen.lcs import f_measures

        numbers = [n for n in map(self._numbers.get, tokens) if n is not None]
        postings = self._postings
        measures: NDArray[np.float64] = f_measures(
            np.array([postings.starts[n] for n in numbers], np.int64),
            np.array([postings.ends[n] for n in numbers], np.int64),
            postings.places,
            postings.masks,
            self._owners[: self._further],
            self._lengths[: self._texts],
            len(tokens),
        )
        return measures


class EarlierTexts:
    """Named texts that a new one may neither repeat nor, by ROUGE-L, resemble more than `most`."""

    def __init__(self, most: float) -> None:
        self.pool = Pool()
        self._most = most
        self._names: list[str] = []
        self._keys: set[Hashable] = set()

    def add(self, name: str, text: str, key: Hashable) -> None:
        """`key`: what a repeat of the text has too."""
        self._names.append(name)
        self._keys.add(key)
        self.pool.add(text)

    def fault(self, text: str, key: Hashable) -> Reason | None:
        if key in self._keys:
            return Reason("repeated")
        nearest = self.pool.nearest_above(text, self._most) if self._most < 1 else None
        if nearest is None:
            return None
        score, place = nearest
        return Reason("similar", {"similarity": score, "similar_to": self._names[place]})


class _Postings:
    """For each token which texts have it and where: its entries are those from `starts` to `ends`
    in the flat `places` and `masks`. A token that outgrows its room moves behind all others, with
    room for twice as many."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.places = np.empty(_FIRST_SIZE, np.uint32)
        self.masks = np.empty(_FIRST_SIZE, np.uint64)
        self._limits: list[int] = []
        self._used = 0

    def append(self, token: int, place: int, mask: int) -> None:
        """Tokens are numbered from 0 in order of their first entry."""
        if token == len(self.starts):
            for bounds in (self.starts, self.ends, self._limits):
                bounds.append(self._used)
        if self.ends[token] == self._limits[token]:
            self._move(token)
        end = self.ends[token]
        self.places[end], self.masks[end] = place, mask
        self.ends[token] = end + 1

    def _move(self, token: int) -> None:
        old, new = slice(self.starts[token], self.ends[token]), self._used
        count = old.stop - old.start
        self._used += max(1, 2 * count)
        self.places = _with_room(self.places, self._used)
        self.masks = _with_room(self.masks, self._used)
        for entries in (self.places, self.masks):
            entries[new : new + count] = entries[old]
        self.starts[token], self.ends[token] = new, new + count
        self._limits[token] = self._used


def _with_room(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array, or a longer one that begins with it, of `size` entries at least."""
    if size <= array.size:
        return array
    longer = np.empty(max(size, 2 * array.size), array.dtype)
    longer[: array.size] = array
    return longer


def _one_by_one(new: list[str], old: list[str]) -> float:
    return f_measure(LCSseq.similarity(new, old), len(new), len(old))


def f_measure(common: int, new: int, old: int) -> float:
    """F = 2pr / (p + r) in rouge_score's order of operations, so that equal means equal.

    `common`: length of the longest common subsequence; `new` and `old`: lengths in tokens.
    """
    if common == 0:
        return 0.0
    precision, recall = common / new, common / old
    return 2 * precision * recall / (precision + recall)
