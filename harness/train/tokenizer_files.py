"""What stands beside a trained model's weights: tokenizer, chat template, end tokens, and the files
that its base brought. None of it stops the model from being written."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from harness.common.device_faults import pass_on
from harness.errors import InputError
from harness.modeling.chat_template import chat_template_of
from harness.modeling.generation import (
    BASE_CHAT_TEMPLATE,
    GENERATION,
    TOKENS,
    read_settings,
    token_set,
)
from harness.modeling.load import TOKENIZERS, model_folder
from harness.modeling.text import Encoder
from harness.spec.model_source import ModelSource
from harness.spec.template import Template

CHAT_TEMPLATE = "chat_template.jinja"
CARRIED = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "*.model", "*.tiktoken")
"""Of the base's folder, what transformers does not write again."""
CODE = "*.py"
TOKENIZER_FILES = (
    *TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)


class Beside(NamedTuple):
    stop: list[str]
    """Texts that end an answer: no setting that is written here stops at them."""
    notes: list[str]
    """What was repaired, what could not be, and what the template asked for."""


def write_beside(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    source: ModelSource,
    inputs: dict[str, str],
) -> Beside:
    """Write into the folder of the model or adapter, whose weights are there."""
    base = None if source.random is not None else model_folder(source, inputs)
    notes = _write_tokenizer(folder, tokenizer, base)
    try:
        base_template = str(tokenizer.get_chat_template()) if tokenizer.chat_template else ""
    except ValueError:  # several by name, none of them the usual one
        base_template = ""
    (folder / BASE_CHAT_TEMPLATE).write_text(base_template, encoding="utf-8")
    (folder / CHAT_TEMPLATE).write_text(chat_template_of(tokenizer, template), encoding="utf-8")
    encoder = Encoder(tokenizer, template)
    ends, stop = encoder.stops()
    keeps_ends = source.chat_format is None
    notes += _write_settings(folder, {int(tokenizer.eos_token_id), *ends}, base, keeps_ends)
    if base is not None:
        patterns = (*CARRIED, CODE) if source.trust_remote_code else CARRIED
        _copy(base, folder, patterns)
    return Beside(stop, notes + encoder.notes + _differing(folder, tokenizer, encoder))


def _write_tokenizer(
    folder: Path, tokenizer: PreTrainedTokenizerBase, base: Path | None
) -> list[str]:
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as e:  # a tokenizer's class can be the base's own code
        pass_on(e)
        if base is None:
            raise
        _copy(base, folder, TOKENIZER_FILES)
        why = " ".join(str(e).split())[:200] or type(e).__name__
        return [f"the tokenizer could not be written again ({why}): its base's files were copied"]
    return []


def _write_settings(
    folder: Path, ends: set[int], model: Path | None, keeps_ends: bool
) -> list[str]:
    """generation_config.json as the base has it, with the template's end beside the base's own, or in
    their place."""
    path = folder / GENERATION
    proposed = read_settings(folder if model is None else model)
    fields = dict(proposed.fields)
    notes = []
    if proposed.dropped:
        notes.append(
            f"of the base model's {GENERATION} this could not be carried over, as transformers "
            f"does not read it: {', '.join(proposed.dropped)}"
        )
    if not keeps_ends:
        for name in TOKENS:
            fields.pop(name, None)
    before = token_set(fields.get("eos_token_id"))
    every = before | ends
    if every != before or "eos_token_id" not in fields:
        fields["eos_token_id"] = sorted(every) if len(every) > 1 else next(iter(every))
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return notes


def _copy(base: Path, folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in base.glob(pattern):
            if path.is_file() and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)


def _differing(folder: Path, tokenizer: PreTrainedTokenizerBase, encoder: Encoder) -> list[str]:
    """Whether the chat template as it was written makes the tokens of the template, for each kind of
    conversation that it has a place for."""
    jinja = (folder / CHAT_TEMPLATE).read_text(encoding="utf-8")
    differing = []
    for name, system, history in PROBES:
        try:
            ids = encoder.prompt("Why is that?", system=system, history=history)
        except InputError:
            continue
        messages = [{"role": "system", "content": system}] if system else []
        for question, answered in history:
            messages += [{"role": "user", "content": question}]
            messages += [{"role": "assistant", "content": answered}]
        messages += [{"role": "user", "content": "Why is that?"}]
        by_template = tokenizer.apply_chat_template(
            messages, chat_template=jinja, add_generation_prompt=True, return_dict=False
        )
        differing += [name] * (by_template != ids)
    if not differing:
        return []
    return [
        f"{CHAT_TEMPLATE} writes the template's text, and the tokenizer cuts it otherwise where two of "
        f"its parts meet: {', '.join(differing)}"
    ]


PROBES = (
    ("a question alone", "", ()),
    ("with a system text", "Be brief.", ()),
    ("with an earlier turn", "", (("Is it so?", "Yes, it is."),)),
)
