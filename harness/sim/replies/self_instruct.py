"""The simulated teacher of Self-Instruct's steps: sets tasks of the grammar and writes instances.

Knows the templates in specs/self_instruct/prompts by these lines: a numbered list that follows
`Go on with this list of instructions:` (or `... with labels:`); `Known labels:` at the end; and,
after `For each task, write`, a last line `Task: ...` that asks for instances: labels first where the
worked examples have a `Class label:`.
"""

import re
from functools import cache
from itertools import permutations

from harness.sim.facts import RELATIONS
from harness.sim.grammar import GrammarTask, draw, teachable_tasks
from harness.sim.replies import teacher
from harness.sim.reply import Query

PER_REPLY = 7
LABELLED_PER_REPLY, WITHOUT_KEY_PER_REPLY = 2, 1
"""How many of a reply's instructions are classification tasks, and leave the key to an input."""
MOST_EXAMPLES = 5

_LIST = re.compile(
    r"^Go on with this list of instructions(?P<labels> with labels)?:\n"
    r"(?P<shown>(?:\d+\. .*\n)*)(?P<next>\d+)\.\Z",
    re.MULTILINE,
)
_KIND = re.compile(r"^Task: (?P<task>.*)\nKnown labels:\Z", re.MULTILINE)
_INSTANCES = re.compile(r"\AFor each task, write .*^Task: (?P<task>[^\n]*)\Z", re.M | re.S)
_LABELS_FIRST = re.compile(r"^Class label: ", re.MULTILINE)

_KINDS = {
    "country": ("capital", "keys"),
    "capital city": ("capital", "answers"),
    "colour": ("colour", "answers"),
    "number": ("digits", "keys"),
    "young animal": ("young", "answers"),
    "verb": ("past", "keys"),
}
_QUESTIONS = (
    "Is the given word a {a} or a {b}?",
    "Classify the word as {a} or {b}.",
    "Decide which label fits the word: {a} or {b}.",
    "What does this word stand for, a {a} or a {b}?",
    "Choose between the labels {a} and {b} for this text.",
)


def matches(prompt: str) -> bool:
    """Whether a prompt is one of these steps."""
    return any(pattern.search(prompt) for pattern in (_LIST, _KIND, _INSTANCES))


def reply(query: Query) -> str:
    """What the teacher says to a prompt of these steps."""
    prompt, seed, salt = query.prompt, query.seed, query.salt
    if match := _LIST.search(prompt):
        instructions = _new_instructions(match, seed, salt)
        if query.wrong:
            return "Sure! Here are some ideas:\n" + "\n".join(f"- {text}" for text in instructions)
        # The prompt ends with the first one's number; so this reads well as a chat and as a
        # completion.
        later = enumerate(instructions[1:], int(match["next"]) + 1)
        return "\n".join([instructions[0], *(f"{number}. {text}" for number, text in later)])
    if match := _KIND.search(prompt):
        if query.wrong:
            return "That depends on the input."
        return "Yes" if _normal(match["task"]) in _choices() else "No"
    if match := _INSTANCES.search(prompt):
        pairs = _pairs(match["task"], seed, salt)
        if query.wrong:
            return "\n".join(f"Q: {input_text} A: {output}" for input_text, output in pairs)
        if _LABELS_FIRST.search(prompt):
            return "\n".join(
                f"Class label: {output}\n{input_text}".rstrip() for input_text, output in pairs
            )
        return "\n".join(_example(number, *pair) for number, pair in enumerate(pairs, 1))
    raise ValueError("not a prompt of Self-Instruct")


def _example(number: int, input_text: str, output: str) -> str:
    return "\n".join(filter(None, (f"Example {number}", input_text, f"Output: {output}")))


def _new_instructions(match: re.Match[str], seed: int, salt: str) -> list[str]:
    listed = {_normal(line.partition(". ")[2]) for line in match["shown"].splitlines()}
    labelled = PER_REPLY if match["labels"] else LABELLED_PER_REPLY
    without_key = 0 if match["labels"] else WITHOUT_KEY_PER_REPLY
    parts = (
        ("labelled", list(_choices()), labelled),
        ("without key", [n for n, tasks in _tasks().items() if tasks[0].input], without_key),
        ("with key", [n for n, tasks in _tasks().items() if not tasks[0].input], PER_REPLY),
    )
    instructions: list[str] = []
    for name, candidates, count in parts:
        fresh = [text for text in candidates if text not in listed]
        instructions += draw(fresh, min(count, PER_REPLY - len(instructions)), name, seed, salt)
    return [_written(text) for text in draw(instructions, len(instructions), "order", seed, salt)]


def _written(normal: str) -> str:
    return _choices()[normal][0] if normal in _choices() else _tasks()[normal][0].instruction


def _pairs(instruction: str, seed: int, salt: str) -> list[tuple[str, str]]:
    """(input, output) pairs for a task, all right."""
    name = _normal(instruction)
    if name in _choices():
        _, *labels = _choices()[name]
        words = [draw(_only(labels[i], labels[1 - i]), 2, i, seed, salt) for i in (0, 1)]
        pairs = [(words[i][n], labels[i]) for n in (0, 1) for i in (0, 1)]
        return draw(pairs, len(pairs), "pairs", seed, salt)
    tasks = _tasks().get(name, [])
    if not tasks:
        return [("", teacher.answer(instruction, seed))]
    return [(t.input, t.output) for t in draw(tasks, MOST_EXAMPLES, "inputs", seed, salt)]


@cache
def _tasks() -> dict[str, list[GrammarTask]]:
    """The teachable tasks by their instruction."""
    tasks: dict[str, list[GrammarTask]] = {}
    for task in teachable_tasks():
        tasks.setdefault(_normal(task.instruction), []).append(task)
    return tasks


@cache
def _choices() -> dict[str, tuple[str, str, str]]:
    """Classification tasks: instruction and its two labels."""
    choices = [
        (question.format(a=a, b=b), a, b)
        for a, b in permutations(_KINDS, 2)
        for question in _QUESTIONS
    ]
    return {_normal(choice[0]): choice for choice in choices}


def _only(kind: str, other: str) -> list[str]:
    """The words that are of one kind and not of the other."""
    return [word for word in _words(kind) if word not in _words(other)]


def _words(kind: str) -> list[str]:
    name, side = _KINDS[kind]
    facts = next(relation.facts for relation in RELATIONS if relation.name == name)
    words = facts if side == "keys" else (answers[0] for answers in facts.values())
    return list(dict.fromkeys(words))


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()
