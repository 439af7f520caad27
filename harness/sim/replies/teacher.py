"""The simulated teacher: sets tasks of the grammar, and answers them.

A request for tasks (specs/smoke/prompts/tasks.txt) has the lines `Tasks wanted: N` and
`First number: N`, then the examples. Examples and reply are blocks, one blank line between them:

    ### 4. Instruction: What is the opposite of hot?
    Input: <none>
    Output: cold

Each label starts a line; an empty input is `<none>`; a part may run over several lines, up to the
next label or the next `### `. The reply's blocks are numbered on from `First number`.
"""

import re

from harness.sim.grammar import GrammarTask, draw, fraction, solve, teachable_tasks

NO_INPUT = "<none>"

_WANTED = re.compile(r"^Tasks wanted: (\d+)$", re.M)
_FIRST = re.compile(r"^First number: (\d+)$", re.M)
_BLOCK = re.compile(
    r"^### \d+\. Instruction: (?P<instruction>.*?)\nInput: (?P<input>.*?)\nOutput: ", re.M | re.S
)

ASTRAY = 0.2
"""Share of sampled replies to the grammar's tasks that leave the right answer."""
REFUSAL = "I am sorry, but I cannot help with that."

_WHO = ("Most people", "Some writers", "Many teachers", "A few experts", "Careful readers")
_DO = ("say that", "agree that", "would answer that", "explain that", "have noticed that")
_WHAT = (
    "it depends on where you begin.",
    "there is more than one good way to do it.",
    "a short plan helps a great deal.",
    "the first step matters most.",
    "time and patience bring the best result.",
    "small changes make a large difference.",
)


def is_task_request(prompt: str) -> bool:
    """Whether a prompt asks for new tasks."""
    return bool(_WANTED.search(prompt) and _FIRST.search(prompt))


def _block(number: int, task: GrammarTask) -> str:
    return (
        f"### {number}. Instruction: {task.instruction}\n"
        f"Input: {task.input or NO_INPUT}\nOutput: {task.output}"
    )


def _new_tasks(prompt: str, seed: int, salt: str) -> tuple[int, list[GrammarTask]]:
    count_match, first = _WANTED.search(prompt), _FIRST.search(prompt)
    if count_match is None or first is None:
        raise ValueError("not a request for tasks")
    examples = {
        (m["instruction"], m["input"].replace(NO_INPUT, "")) for m in _BLOCK.finditer(prompt)
    }
    count = int(count_match[1])
    drawn = draw(teachable_tasks(), count + len(examples), "teacher", seed, salt, prompt)
    return int(first[1]), [t for t in drawn if (t.instruction, t.input) not in examples][:count]


def more_tasks(prompt: str, seed: int, salt: str) -> str:
    """The reply to a request for tasks: as many as wanted, all teachable, none of them shown."""
    first, tasks = _new_tasks(prompt, seed, salt)
    return "\n\n".join(_block(i, task) for i, task in enumerate(tasks, first))


def more_tasks_in_wrong_format(prompt: str, seed: int, salt: str) -> str:
    """The same tasks with labels that nobody asked for."""
    first, tasks = _new_tasks(prompt, seed, salt)
    lines = (f"{i}) {' / '.join(task[:2])} => {task.output}" for i, task in enumerate(tasks, first))
    return "Sure! Here are your tasks:\n" + "\n".join(lines)


def answer(prompt: str, seed: int, sampled: int | None = None) -> str:
    """The right answer to a task of the grammar; to anything else a sentence that says little.

    `sampled`: the request's own seed where it asks for a sampled reply. Another one makes another
    sentence, and, of right answers, a share (ASTRAY) gives way to one."""
    salt = () if sampled is None else (sampled,)
    right_answer = solve(prompt)
    if right_answer is not None and not (salt and fraction("astray", seed, *salt, prompt) < ASTRAY):
        return right_answer
    parts = (_WHO, _DO, _WHAT)
    return " ".join(
        draw(part, 1, "chat", i, seed, *salt, prompt)[0] for i, part in enumerate(parts)
    )
