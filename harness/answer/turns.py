"""Questions of several turns: each is a prompt of its own, after the model's answers to those before.

A record's `turns` are the user's texts. The outputs of all first turns stand first in
model_outputs.json, then those of the second turns, and so on; a later turn's instruction is the whole
conversation up to there as one text, as that of a given conversation is.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from harness.answer.prompts import Prompt, as_conversation

T = TypeVar("T")


def next_turn(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Prompt]:
    """The prompts of the turn after these, of those that have one. `answers`: as judges see them."""
    return [
        _after(prompt, answer)
        for prompt, answer in zip(prompts, answers, strict=True)
        if prompt.later
    ]


def every_turn(
    prompts: Sequence[Prompt],
    take: Callable[[Sequence[Prompt]], Sequence[T]],
    text: Callable[[T], str],
) -> tuple[list[Prompt], list[T]]:
    """The prompts of all turns with their outputs. `take`: gives those of one turn's prompts."""
    all_prompts: list[Prompt] = []
    outputs: list[T] = []
    turn = list(prompts)
    while turn:
        of_turn = take(turn)
        all_prompts += turn
        outputs += of_turn
        turn = next_turn(turn, [text(output) for output in of_turn])
    return all_prompts, outputs


def _after(prompt: Prompt, answer: str) -> Prompt:
    history = (*prompt.history, (prompt.asked, answer))
    question = prompt.later[0]
    return replace(
        prompt,
        instruction=as_conversation(prompt.system, history, question),
        output=None,
        history=history,
        question=question,
        later=prompt.later[1:],
        turn=prompt.turn + 1,
    )
