"""What recipes' specs have in common."""

from typing import Annotated

from pydantic import Field

from harness.spec.base import Count, Data, Endpoint, Spec

Similarity = Annotated[float, Field(ge=0, le=1)]


SELF_INSTRUCT_BLACKLIST = [
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps",
    "draw", "plot", "go to",
]  # fmt: skip
"""Words in instructions that a language model cannot follow; self-instruct 0b26ccaa."""


ALPACA_BLACKLIST = [*SELF_INSTRUCT_BLACKLIST, "video", "audio", "music", "flowchart", "diagram"]
"""stanford_alpaca 761dc5bf."""


class InstructionFilter(Spec):
    """Which new instructions are dropped before their similarity is looked at.

    Beside these: those that start with "Write a program", with punctuation or with a character
    outside ASCII. Defaults: self-instruct 0b26ccaa.
    """

    fewest_words: Annotated[int, Field(ge=0)] = 4
    most_words: Count = 150
    blacklist: list[Annotated[str, Field(min_length=1)]] = SELF_INSTRUCT_BLACKLIST
    max_similarity: Similarity = 0.7
    """Highest ROUGE-L F-measure against seeds and kept instructions; 1: only exact repeats go."""


class Taught(Spec):
    """A recipe that calls a teacher."""

    teacher: Endpoint
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the teacher, which is not called."""
