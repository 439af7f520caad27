"""A reply of the simulated server: which prompts it is for, and what it says to one.

A module of harness/sim/replies is one; harness/sim/server.py lists them.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

AnswerPlace = Literal["first", "second"]


@dataclass(frozen=True)
class Query:
    """One prompt of a request, and how the reply to it shall be."""

    prompt: str
    seed: int = 0
    salt: str = ""
    """Tells one request from another."""
    turned: bool = False
    """A judge says the opposite of what it holds."""
    wrong: bool = False
    """In another form than what was asked for."""
    sampled: int | None = None
    """The request's own seed where it asks for a sampled reply."""
    favours: AnswerPlace | None = None
    """The place that a grading favours."""


class SimulatedReply(Protocol):
    def matches(self, prompt: str) -> bool:
        """Whether a prompt is one that this reply is for."""

    def reply(self, query: Query) -> str:
        """The text; the same for the same query."""
