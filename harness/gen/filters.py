"""Which new instructions are dropped for how they are written; facts from self-instruct 0b26ccaa."""

import re
import string
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from harness.spec.base import Count, Spec

Similarity = Annotated[float, Field(ge=0, le=1)]
SELF_INSTRUCT_BLACKLIST = [
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps",
    "draw", "plot", "go to",
]  # fmt: skip
"""Words in instructions that a language model cannot follow; self-instruct 0b26ccaa."""
ALPACA_BLACKLIST = [*SELF_INSTRUCT_BLACKLIST, "video", "audio", "music", "flowchart", "diagram"]
"""stanford_alpaca 761dc5bf."""

RULES = ("too_short", "too_long", "blacklisted", "asks_for_program", "starts_oddly", "not_english")
"""In the order in which they are tried."""


class InstructionFilter(Spec):
    """Which new instructions are dropped before their similarity is looked at.

    Beside these: those that start with "Write a program", with punctuation or with a character
    outside ASCII. Defaults: self-instruct 0b26ccaa.
    """

    fewest_words: Annotated[int, Field(ge=0)] = 4
    """An instruction with fewer goes."""
    most_words: Count = 150
    """An instruction with more goes."""
    blacklist: list[Annotated[str, Field(min_length=1)]] = SELF_INSTRUCT_BLACKLIST
    """Words with which an instruction goes."""
    max_similarity: Similarity = 0.7
    """Highest ROUGE-L F-measure against seeds and kept instructions; 1: only exact repeats go."""


def fault(instruction: str, rules: InstructionFilter) -> str | None:
    """The first of RULES that drops the instruction; None when it may stay.

    starts_oddly: with punctuation. not_english: starts with a character outside ASCII.
    """
    words = len(instruction.split())
    if words < rules.fewest_words:
        return "too_short"
    if words > rules.most_words:
        return "too_long"
    if rules.blacklist and _any_of(tuple(rules.blacklist)).search(instruction):
        return "blacklisted"
    if instruction.startswith("Write a program"):
        return "asks_for_program"
    if instruction[0] in string.punctuation:
        return "starts_oddly"
    if not instruction[0].isascii():
        return "not_english"
    return None


@lru_cache
def _any_of(words: Sequence[str]) -> re.Pattern[str]:
    """Any of the words as a whole word, in upper or lower case."""
    return re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b", re.IGNORECASE)
