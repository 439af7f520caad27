"""The simulated teacher's reply to prompt 4: the output in a longer text that still holds it."""

import re

from harness.sim.grammar import draw
from harness.sim.replies.teacher import answer
from harness.sim.reply import Query

OPENING = "Given is a question-answer task with task name, instruction and input-output instance."
FILLERS = 2

_TASK = re.compile(
    r".*?Example part end\. Following is content of the task: Task name: '.*?', Instruction: '.*?', "
    r"Input: '.*?, output: '(?P<output>.*)'\. Print output text directly\.",
    re.DOTALL,
)
_FRAMES = (
    "A good answer is: {} ",
    "Many people would put it like this: {} ",
    "In other words: {} ",
    "What we are looking for is this: {} ",
)


def matches(prompt: str) -> bool:
    """Whether a prompt asks for a longer output."""
    return prompt.startswith(OPENING)


def reply(query: Query) -> str:
    """The output in its frame, and a few sentences; in the wrong form, labelled and quoted."""
    seed, salt = query.seed, query.salt
    match = _TASK.fullmatch(query.prompt)
    output = match["output"] if match else ""
    frame = draw(_FRAMES, 1, "frame", seed, salt)[0]
    more = " ".join(answer(f"{salt} {i}", seed) for i in range(FILLERS))
    text = frame.replace("{}", output if output.endswith((".", "!", "?")) else f"{output}.") + more
    return f'Output: "{text}"' if query.wrong else text
