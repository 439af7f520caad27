"""The simulated judge's score on a rubric, as Flow Judge gives it: feedback, then a score.

A score depends on what is shown and the seed alone: how right the output is for a task of the grammar,
else how much of it is taken from the context or the reference answer, else how readable it is.
"""

import re

from harness.sim.grammar import find
from harness.sim.replies import grade
from harness.sim.replies.judge import readability
from harness.sim.reply import Query

_OPENING = "# GOAL\nYour job is to evaluate a task carried out by an AI system"
_SHOWN = re.compile(
    r"(?:\n<inputs>\n(?P<inputs>.*?)\n</inputs>\n\n# OUTPUT\n.*?)?"
    r"\n<output>\n<response>\n(?P<output>.*)\n</response>\n</output>\n"
    r".*\n<scoring_rubric>\n(?P<rubric>.*)\n</scoring_rubric>\n",
    re.DOTALL,
)
_SCORE = re.compile(r"^- Score (-?\d+): ", re.MULTILINE)
_WORD = re.compile(r"\w+")
GROUNDS = ("reference_answer", "context")


def matches(prompt: str) -> bool:
    """Whether a prompt asks for a score on a rubric."""
    return prompt.startswith(_OPENING) and bool(_SHOWN.search(prompt) and _SCORE.search(prompt))


def reply(query: Query) -> str:
    """Feedback and a score of the rubric's; turned, bad for good. In the wrong form, a score in words,
    with no tag around it."""
    parts = _SHOWN.search(query.prompt)
    if parts is None:
        raise ValueError("not a request for a score on a rubric")
    feedback = "<feedback>\nThis is how well the output meets the criteria.\n</feedback>"
    if query.wrong:
        return f"{feedback}\nA good one, all in all."
    scores = sorted(int(score) for score in _SCORE.findall(parts["rubric"]))
    share = merit(_inputs(parts["inputs"] or ""), parts["output"], query.seed)
    place = round(share * (len(scores) - 1))
    return (
        f"{feedback}\n<score>\n{scores[::-1][place] if query.turned else scores[place]}\n</score>"
    )


def merit(inputs: dict[str, str], output: str, seed: int = 0) -> float:
    """From 0 (worst) to 1."""
    query = inputs.get("query", "")
    if find(query) is not None:
        return grade.merit(query, "", output, seed)
    words = {word.casefold() for word in _WORD.findall(output)}
    grounds = " ".join(inputs[name] for name in GROUNDS if name in inputs)
    if grounds and words:
        return len(words & {word.casefold() for word in _WORD.findall(grounds)}) / len(words)
    return readability(output)


def _inputs(text: str) -> dict[str, str]:
    tagged = re.findall(r"^<(\w+)>\n(.*?)\n</\1>$", text, re.DOTALL | re.MULTILINE)
    return dict(tagged)
