"""The simulated judge's grade of one answer, from 1 to 10 in double square brackets, right above wrong.

Understands specs/mt_bench/prompts.
"""

import re

from harness.sim.replies import grade
from harness.sim.reply import Query

_ENDING = "on a line of its own, as in: [[5]]"
_SHOWN = re.compile(
    r"<(question|question_2)>\n(?P<question>.*?)\n</\1>.*<(answer|answer_2)>\n(?P<answer>.*)\n</\3>\n",
    re.DOTALL,
)


def matches(prompt: str) -> bool:
    """Whether a prompt asks for the grade of one answer."""
    return prompt.rstrip().endswith(_ENDING) and _SHOWN.search(prompt) is not None


def reply(query: Query) -> str:
    """A reason and the grade; turned, bad for good. In the wrong form, a grade in words."""
    match = _SHOWN.search(query.prompt)
    if match is None:
        raise ValueError("not a request for a grade")
    if query.wrong:
        return "A good answer, all in all."
    score = round(grade.grade(match["question"], match["answer"], query.seed))
    if query.turned:
        score = round(grade.LOWEST + grade.HIGHEST) - score
    return f"The grade says how right the answer is, or how easy it is to read.\n[[{score}]]"
