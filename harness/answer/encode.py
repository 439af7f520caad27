"""Prompts as tokens, and how long their answers may be; without a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.answer.prompts import Prompt
from harness.errors import InputError
from harness.modeling.load import is_adapter, model_folder, most_positions_of, trained_folder
from harness.modeling.text import Encoder
from harness.spec.model_source import ModelSource
from harness.spec.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedPrompts:
    ids: list[list[int]]
    """One list of tokens a prompt."""
    ends: list[int]
    """The tokens that end an answer, by the template or as stop texts that are one special token."""
    stop: list[str]
    """The other texts that end one."""
    notes: list[str]
    """What is to be told of how the prompts were made."""


def encode(
    prompts: Sequence[Prompt],
    template: Template | None,
    tokenizer: "PreTrainedTokenizerBase",
    stop: Sequence[str] = (),
) -> EncodedPrompts:
    """`stop`: texts that end an answer beside the template's.

    Raises InputError for a system text or earlier turns that the template has no place for."""
    if template is None:
        raise InputError("the answer stage was given no template")
    encoder = Encoder(tokenizer, template)
    ids = [encoder.prompt(p.asked, p.input, p.system, p.history) for p in prompts]
    return EncodedPrompts(ids, *encoder.stops(stop), encoder.notes)


def check_lengths(prompts: Sequence[Prompt], ids: Sequence[list[int]], room: int | None) -> None:
    """Raises InputError for a prompt without tokens, or one that leaves no `room` for an answer."""
    for index, tokens in enumerate(ids):
        if not tokens:
            raise InputError(f"prompt {index} has no tokens")
        if room is not None and len(tokens) >= room:
            raise InputError(
                f"prompt {index} has {len(tokens)} tokens, the model takes {room} with the answer: "
                f"{prompts[index].instruction[:60]!r}",
                "Leave the prompt out, or take a model for longer texts.",
            )


def limit_of(prompt: int, max_new_tokens: int | None, room: int | None) -> int:
    """The most tokens an answer may have: what the row wants, as far as the model has positions.

    Raises InputError where neither is known.
    """
    limit = least(max_new_tokens, None if room is None else room - prompt)
    if limit is None:
        raise InputError(
            "nothing says how long an answer may be: the model's configuration names no longest text",
            "Give eval.answer.decoding.max_new_tokens (of a local judge: judge.sampling.max_tokens) in "
            "place of null.",
        )
    return limit


def least(*limits: int | None) -> int | None:
    """Of those that there are; None of none."""
    return min((limit for limit in limits if limit is not None), default=None)


def positions_in(source: ModelSource, inputs: dict[str, str]) -> int | None:
    """The longest text that the model was made for, by its configuration; its weights are not read."""
    from transformers import AutoConfig

    folder = trained_folder(inputs)
    if folder is None or is_adapter(folder):
        if source.random is not None:
            limit = source.random.config.get("max_position_embeddings")
            return limit if isinstance(limit, int) else None
        folder = model_folder(source, inputs)
    return most_positions_of(
        AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=source.trust_remote_code
        )
    )
