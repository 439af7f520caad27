"""A closed world of small tasks: what the simulated teacher sets and what the judge knows."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeVar

from harness.sim.facts import KEY, RELATIONS, Relation

HELD_OUT_SHARE = 0.1

T = TypeVar("T")


class GrammarTask(NamedTuple):
    """One phrasing of the question for one fact. `accepted` holds every right answer."""

    instruction: str
    input: str
    output: str
    accepted: tuple[str, ...]
    relation: str
    key: str

    @property
    def text(self) -> str:
        """The whole task as one text: the input, if there is one, on a line of its own."""
        return f"{self.instruction}\n{self.input}" if self.input else self.instruction


def fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone, the same on every machine."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def draw(items: Sequence[T], count: int, *salt: object) -> list[T]:
    """`count` different items (all of them where there are fewer), in an order made from `salt`."""
    pool = list(items)
    count = min(count, len(pool))
    for i in range(count):
        j = i + int(fraction(*salt, i) * (len(pool) - i))
        pool[i], pool[j] = pool[j], pool[i]
    return pool[:count]


def _task(relation: Relation, phrasing: str, key: str) -> GrammarTask:
    accepted = relation.facts[key]
    in_text = KEY in phrasing
    instruction = phrasing.replace(KEY, key) if in_text else phrasing
    return GrammarTask(
        instruction, "" if in_text else key, accepted[0], accepted, relation.name, key
    )


def _held_out_phrasing(relation: Relation, key: str) -> int | None:
    """At most one phrasing of a fact is kept back, so that every fact can still be learnt."""
    phrasings = len(relation.phrasings)
    place = fraction("held out", relation.name, key) / (HELD_OUT_SHARE * phrasings)
    return int(place * phrasings) if place < 1 else None


@cache
def _split() -> tuple[tuple[GrammarTask, ...], tuple[GrammarTask, ...]]:
    teachable: list[GrammarTask] = []
    held_out: list[GrammarTask] = []
    for relation in RELATIONS:
        for key in relation.facts:
            kept_back = _held_out_phrasing(relation, key)
            for i, phrasing in enumerate(relation.phrasings):
                part = held_out if i == kept_back else teachable
                part.append(_task(relation, phrasing, key))
    return tuple(teachable), tuple(held_out)


def teachable_tasks() -> tuple[GrammarTask, ...]:
    """Every task that the teacher may set."""
    return _split()[0]


def held_out_tasks() -> tuple[GrammarTask, ...]:
    """The tasks, about a tenth of all, that the teacher never sets and evaluation draws from."""
    return _split()[1]


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


@cache
def _by_text() -> dict[str, GrammarTask]:
    return {_normal(task.text): task for part in _split() for task in part}


def find(instruction: str, input: str = "") -> GrammarTask | None:
    """The task of the grammar that a text is, whatever its case and spacing; None for others."""
    return _by_text().get(_normal(f"{instruction}\n{input}"))


def solve(instruction: str, input: str = "") -> str | None:
    """The right answer of a task of the grammar; None for any other text."""
    task = find(instruction, input)
    return task.output if task else None


def is_right(task: GrammarTask, answer: str) -> bool:
    """Whether the whole answer is an accepted one; case, spacing and one full stop do not count."""
    return _normal(answer).removesuffix(".") in {_normal(a) for a in task.accepted}
