"""The simulated teacher answers tasks of the grammar, and whatever else it is asked."""

import json

from harness.sim.grammar import draw, fraction, solve
from harness.sim.reply import Query

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


def matches(prompt: str) -> bool:
    """Any prompt that no other reply is for."""
    return True


def reply(query: Query) -> str:
    """The answer; in the wrong form, as JSON."""
    text = answer(query.prompt, query.seed, query.sampled)
    return json.dumps({"reply": text}) if query.wrong else text


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
