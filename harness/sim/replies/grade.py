"""The simulated judge's grading of two answers: a score from 1 to 10 for each, right above wrong.

A score depends on the question, the answer and the seed alone, unless the judge is told to favour a
place. Understands specs/alpagasus/prompts/grade.txt.
"""

import re

from harness.sim.grammar import find
from harness.sim.replies import rate
from harness.sim.replies.judge import readability
from harness.sim.reply import Query

LOWEST, HIGHEST = 1.0, 10.0
FAVOUR = 2.0
"""What the favoured place gains on the other, where the scale leaves room."""
WRONG, HALF_RIGHT = 0.3, 0.5
"""The merit of a wrong answer that reads well, and what a text passes that holds the right one."""
WRONG_FORMAT = "Both assistants gave answers that have their merits."

_ASKED = re.compile(
    r".*?<question>\n(?P<question>.*)\n</question>\n\n<answer_1>\n(?P<first>.*)\n</answer_1>\n\n"
    r"<answer_2>\n(?P<second>.*)\n</answer_2>\n",
    re.DOTALL,
)


def matches(prompt: str) -> bool:
    """Whether a prompt asks for a grading of two answers."""
    return _ASKED.match(prompt) is not None


def reply(query: Query) -> str:
    """The scores and, below them, a reason; turned, each answer gets the other's score."""
    match = _ASKED.match(query.prompt)
    if match is None:
        raise ValueError("not a request for a grading")
    if query.wrong:
        return WRONG_FORMAT
    first, second = (
        grade(match["question"], match[which], query.seed) for which in ("first", "second")
    )
    if query.turned:
        first, second = second, first
    if query.favours is not None:
        gain = FAVOUR / 2 if query.favours == "first" else -FAVOUR / 2
        first, second = _on_scale(first + gain), _on_scale(second - gain)
    return (
        f"{first:g} {second:g}\n\nThe scores say how right each answer is, or where that is not known, "
        "how easy it is to read."
    )


def grade(question: str, answer: str, seed: int = 0) -> float:
    """From 1 to 10: the answer's merit on another scale."""
    instruction, _, input_text = question.rpartition(" Input: ")
    if find(instruction, input_text) is None:
        instruction, input_text = question, ""
    return round(LOWEST + (HIGHEST - LOWEST) * merit(instruction, input_text, answer, seed), 1)


def merit(instruction: str, input_text: str, output: str, seed: int = 0) -> float:
    """From 0 to 1: the simulated judge's rating; but of wrong answers to a task of the grammar the more
    readable ones are better."""
    rating = rate.rate(instruction, input_text, output, seed) / rate.HIGHEST
    if find(instruction, input_text) is None or rating > HALF_RIGHT:
        return rating
    return WRONG * round(readability(output), 1)


def _on_scale(score: float) -> float:
    return round(min(HIGHEST, max(LOWEST, score)), 1)
