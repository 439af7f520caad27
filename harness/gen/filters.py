"""Which new instructions are dropped for how they are written; facts from self-instruct 0b26ccaa."""

import re
import string
from collections.abc import Sequence
from functools import lru_cache

from harness.gen.spec import InstructionFilter

RULES = ("too_short", "too_long", "blacklisted", "asks_for_program", "starts_oddly", "not_english")
"""In the order in which they are tried."""


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
