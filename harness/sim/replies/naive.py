"""The simulated teacher's replies to the naive method's three prompts.

Tasks are those of the grammar: an instruction that holds its fact has one answer, which its instances
write in several ways; one that takes an input has an instance for each fact. To a task that the
grammar does not know, it gives sentences that say little. No held-out task is ever taught.
"""

import json
import re
from typing import NotRequired, TypedDict

from harness.sim.grammar import GrammarTask, draw, teachable_tasks
from harness.sim.replies.teacher import answer
from harness.sim.reply import Query

MORE_TASKS = "Following are some examples of {name, instruction} pairs."
MORE_INSTANCES = "Following is a JSON line with name, instruction, and instances."
NEW_INSTANCES = "Following data is in a JSON line with name and instruction."
GIVEN_MORE, NEW = 2, 5
"""How many instances the second and the third prompt ask for."""
CHATTER = "Sure! I thought about it, and these came to mind:"

_OBJECT_LINE = re.compile(r"^\{.*\}$", re.MULTILINE)


class _Task(TypedDict):
    """A line of a prompt, and of the reply to it."""

    name: str
    instruction: str
    instances: NotRequired[list[dict[str, str]]]


def matches(prompt: str) -> bool:
    """Whether a prompt is one of the three."""
    return prompt.startswith((MORE_TASKS, MORE_INSTANCES, NEW_INSTANCES))


def reply(query: Query) -> str:
    """JSON lines, as the prompt asks for; in the wrong form, text that holds none."""
    prompt, seed, salt = query.prompt, query.seed, query.salt
    rows = _rows(prompt)
    if prompt.startswith(MORE_TASKS):
        new_rows = _pairs(rows, seed, salt, prompt)
    elif prompt.startswith(MORE_INSTANCES):
        new_rows = [_with_more(row, seed, salt) for row in rows[-1:]]
    else:
        new_rows = [
            {**row, "instances": _instances(row["instruction"], seed, salt)[:NEW]}
            for row in rows
            if "instances" not in row
        ]
    if query.wrong:
        return "\n".join([CHATTER, *(row["name"] for row in new_rows)])
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in new_rows)


def _rows(prompt: str) -> list[_Task]:
    """The tasks in a prompt: JSON objects, one a line."""
    rows = []
    for line in _OBJECT_LINE.findall(prompt):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row.get("name"), str) and isinstance(row.get("instruction"), str):
            rows.append(row)
    return rows


def _pairs(rows: list[_Task], *salt: object) -> list[_Task]:
    """As many new pairs as were shown, each with an instruction of its own."""
    instructions = {row["instruction"] for row in rows}
    pairs: list[_Task] = []
    for task in draw(teachable_tasks(), 3 * len(rows), "pairs", *salt):
        if task.instruction not in instructions and len(pairs) < len(rows):
            instructions.add(task.instruction)
            name = f"{task.relation}_of_it" if task.input else f"{task.relation}_{task.key}"
            name = name.replace(" ", "_").lower()
            pairs.append({"name": name, "instruction": task.instruction})
    return pairs


def _with_more(row: _Task, seed: int, salt: str) -> _Task:
    """The line with two more instances."""
    instances = [i for i in row.get("instances") or [] if isinstance(i, dict)]
    new = [i for i in _instances(row["instruction"], seed, salt) if i not in instances]
    return {**row, "instances": instances + new[:GIVEN_MORE]}


def _instances(instruction: str, seed: int, salt: str) -> list[dict[str, str]]:
    """Different instances of a task, at least as many as a prompt can ask for, where there are."""
    tasks = [task for task in teachable_tasks() if task.instruction == instruction]
    if not tasks:
        texts = (answer(f"{instruction} {salt} {i}", seed) for i in range(NEW + GIVEN_MORE))
        return [{"input": "", "output": text} for text in dict.fromkeys(texts)]
    if tasks[0].input:
        drawn = draw(tasks, NEW + GIVEN_MORE, "instances", seed, salt)
        return [{"input": task.input, "output": task.output} for task in drawn]
    return [{"input": "", "output": text} for text in _wordings(tasks[0])]


def _wordings(task: GrammarTask) -> list[str]:
    """The right answers, with and without a capital and a full stop."""
    plain = [form for text in task.accepted for form in (text, text[:1].upper() + text[1:])]
    return list(dict.fromkeys([*plain, *(f"{text}." for text in plain)]))
