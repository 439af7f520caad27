"""A closed world of small tasks: what the simulated teacher sets and what the judge knows.

`python -m harness.sim.grammar --write FOLDER` writes seed tasks and evaluation prompts there.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from harness.sim.facts import KEY, RELATIONS, Relation

HELD_OUT_SHARE = 0.1
RIGHT_BASELINE_SHARE = 0.1
NO_ANSWER = ("I do not know.", "I am not sure about that.", "That is hard to say.")

SEEDS_FILE, SEEDS = "seeds.jsonl", 20
PROMPTS_FILE, PROMPTS = "prompts.jsonl", 100

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


def _wrong_answer(task: GrammarTask, seed: int) -> str:
    if fraction("no answer", seed, task.text) < 0.5:
        return draw(NO_ANSWER, 1, "excuse", seed, task.text)[0]
    facts = next(r.facts for r in RELATIONS if r.name == task.relation)
    wrong_answers = [a[0] for a in facts.values() if a[0] not in task.accepted]
    return draw(wrong_answers, 1, "wrong", seed, task.text)[0]


def evaluation_prompts(n: int, seed: int = 0) -> list[dict[str, str]]:
    """`n` held-out tasks, in alpaca_eval's format, with the outputs of a weak baseline.

    A tenth of the outputs, rounded, are right; the others read well and are wrong. Raises
    ValueError for an `n` larger than the number of held-out tasks.
    """
    if n > len(held_out_tasks()):
        raise ValueError(f"{n} prompts are wanted; the grammar holds out {len(held_out_tasks())}")
    tasks = draw(held_out_tasks(), n, "evaluation", seed)
    right = set(draw(range(n), round(n * RIGHT_BASELINE_SHARE), "right baseline", seed))
    return [
        {
            "instruction": task.text,
            "output": task.output if i in right else _wrong_answer(task, seed),
            "generator": "simulated-baseline",
            "dataset": "smoke",
        }
        for i, task in enumerate(tasks)
    ]


def seed_tasks(n: int, seed: int = 0) -> list[dict[str, object]]:
    """`n` teachable tasks in Self-Instruct's format for seed tasks."""
    return [
        {
            "id": f"seed_task_{i}",
            "name": f"{task.relation}_{task.key}".replace(" ", "_").lower(),
            "instruction": task.instruction,
            "instances": [{"input": task.input, "output": task.output}],
            "is_classification": False,
        }
        for i, task in enumerate(draw(teachable_tasks(), n, "seed tasks", seed))
    ]


def files() -> dict[str, str]:
    """File name -> text of the seed tasks and evaluation prompts of `specs/smoke`."""
    return {
        SEEDS_FILE: _json_lines(seed_tasks(SEEDS)),
        PROMPTS_FILE: _json_lines(evaluation_prompts(PROMPTS)),
    }


def _json_lines(rows: Sequence[object]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the smoke rows' seed tasks and prompts.")
    parser.add_argument("--write", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args().write
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
