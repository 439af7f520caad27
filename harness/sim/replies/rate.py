"""The simulated judge's rating of one example: knows the grammar's right answers and plain English.

A rating depends on the example and the seed alone. Understands specs/alpagasus/prompts/rate.txt.
"""

import re

from harness.sim.grammar import GrammarTask, find, fraction, is_right
from harness.sim.replies.judge import readability
from harness.sim.reply import Query

HIGHEST = 5.0
WRONG_FORMAT = "The response is rather good, all in all."

_ASKED = re.compile(
    r"^Grade the (\w+) of the response from 0 \(worst\) to 5 \(best\)\.", re.MULTILINE
)
_PARTS = re.compile(
    r"<instruction>\n(?P<instruction>.*)\n</instruction>\n\n<input>\n(?P<input>.*)\n</input>\n\n"
    r"<response>\n(?P<output>.*)\n</response>",
    re.DOTALL,
)


def matches(prompt: str) -> bool:
    """Whether a prompt asks for a rating of an example."""
    return bool(_ASKED.search(prompt) and _PARTS.search(prompt))


def reply(query: Query) -> str:
    """The rating and, below it, a reason; turned, bad for good."""
    prompt, seed = query.prompt, query.seed
    parts = _PARTS.search(prompt)
    request = _ASKED.search(prompt)
    if parts is None or request is None:
        raise ValueError("not a request for a rating")
    if query.wrong:
        return WRONG_FORMAT
    rating = rate(parts["instruction"], parts["input"], parts["output"], seed)
    score = HIGHEST - rating if query.turned else rating
    label = "Score: " if fraction("label", seed, prompt) < 0.2 else ""
    return f"{label}{score:g}\nThis is how I see the {request[1]} of the response."


def rate(instruction: str, input_text: str, output: str, seed: int = 0) -> float:
    """From 0 to 5 in halves.

    A task of the grammar: 4.5 or 5 for a right answer, 3.5 for a text that holds one, at most 2 for
    others. Anything else: by how readable the output is.
    """
    task = find(instruction, input_text)
    if task is None:
        return round(2 * HIGHEST * readability(output)) / 2
    luck = fraction("rating", seed, instruction, input_text, output)
    if is_right(task, output):
        return 5.0 if luck < 0.5 else 4.5
    return 3.5 if _holds_answer(task, output) else round(4 * luck) / 2


def _holds_answer(task: GrammarTask, output: str) -> bool:
    return any(
        re.search(rf"(?<!\w){re.escape(text)}(?!\w)", output, re.IGNORECASE)
        for text in task.accepted
    )
