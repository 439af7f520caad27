"""From an instruction to tokens: the template's text, and where the loss begins."""

import re
from typing import TYPE_CHECKING

from harness.spec.models import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that the loss leaves out."""

_PLACE = re.compile(r"\{(instruction|input)\}")


def render(template: Template, instruction: str, input: str = "") -> str:
    """The text the model sees; its answer follows directly.

    A newline at the very end of the template does not count. Where the template has no {input}, a
    non-empty input follows the instruction on a line of its own. Braces in the data are left alone.
    """
    text = template.prompt.text.removesuffix("\n").removesuffix("\r")
    if input and "{input}" not in text:
        instruction = f"{instruction}\n{input}"
    values = {"instruction": instruction, "input": input}
    return _PLACE.sub(lambda place: values[place[1]], text)


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    """The prompt's tokens, with whatever this tokenizer puts at a text's start and no end token."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id and not prompt.endswith(tokenizer.eos_token):
        ids = ids[:-1]
    return ids


def encode_example(
    tokenizer: "PreTrainedTokenizerBase", prompt: str, answer: str
) -> tuple[list[int], list[int]]:
    """`input_ids` and `labels`, equally long: the prompt (ignored), the answer and the end token.

    The two texts are tokenized apart, so that no token holds the end of one and the start of the
    other, and the model is trained on the very prompt tokens that it is later asked with.
    """
    asked = encode_prompt(tokenizer, prompt)
    answered = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return asked + answered, [IGNORED] * len(asked) + answered
