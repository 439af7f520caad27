"""The simulated teacher sets tasks of the grammar.

A request for tasks (specs/smoke/prompts/tasks.txt) has the lines `Tasks wanted: N` and
`First number: N`, then the examples. Examples and reply are blocks, one blank line between them:

    ### 4. Instruction: What is the opposite of hot?
    Input: <none>
    Output: cold

Each label starts a line; an empty input is `<none>`; a part may run over several lines, up to the
next label or the next `### `. The reply's blocks are numbered on from `First number`.
"""

import re

from harness.sim.grammar import GrammarTask, draw, teachable_tasks
from harness.sim.reply import Query

NO_INPUT = "<none>"

_WANTED = re.compile(r"^Tasks wanted: (\d+)$", re.M)
_FIRST = re.compile(r"^First number: (\d+)$", re.M)
_BLOCK = re.compile(
    r"^### \d+\. Instruction: (?P<instruction>.*?)\nInput: (?P<input>.*?)\nOutput: ", re.M | re.S
)


def matches(prompt: str) -> bool:
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


def reply(query: Query) -> str:
    """As many as wanted, all teachable, none of them shown; in the wrong form, with labels that nobody
    asked for."""
    first, tasks = _new_tasks(query.prompt, query.seed, query.salt)
    if not query.wrong:
        return "\n\n".join(_block(i, task) for i, task in enumerate(tasks, first))
    lines = (f"{i}) {' / '.join(task[:2])} => {task.output}" for i, task in enumerate(tasks, first))
    return "Sure! Here are your tasks:\n" + "\n".join(lines)
