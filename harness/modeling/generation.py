"""What a model's folder says of decoding beside its weights, and which tokens end its answers."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from harness.common.json_files import read_object

CONFIG, GENERATION = "config.json", "generation_config.json"
BASE_CHAT_TEMPLATE = "base_chat_template.jinja"
"""In a trained model's folder: the chat template that its base brought, empty where it brought none.
A spec's `template: tokenizer` means that one; chat_template.jinja is the row's own template."""
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class Settings(NamedTuple):
    """What generate() would take from a folder. `dropped`: what of it transformers refuses to read."""

    fields: dict[str, Any]
    dropped: list[str]


def read_settings(folder: Path) -> Settings:
    """From generation_config.json; of a folder without a readable one from its config.json, as
    transformers does of one without.

    Nothing in these files stops a model from being loaded or saved: what cannot be read is dropped.
    """
    stored = read_object(folder / GENERATION)
    dropped = []
    if stored is None:
        dropped = ["all of it"] if (folder / GENERATION).is_file() else []
        stored = {n: v for n, v in (read_object(folder / CONFIG) or {}).items() if n in _names()}
    if _is_readable(stored):
        return Settings(stored, dropped)
    readable = Settings({}, dropped)
    # Whether it samples decides which of the others can be used.
    for name, value in sorted(stored.items(), key=lambda item: item[0] != "do_sample"):
        if _is_readable({**readable.fields, name: value}):
            readable.fields[name] = value
        else:
            dropped.append(name)
    return readable


def _names() -> set[str]:
    """The settings of decoding that older configurations of models hold too."""
    from transformers import GenerationConfig

    # Also a setting of the model itself.
    return {*GenerationConfig._get_default_generation_params(), *TOKENS} - {"use_cache"}


def _is_readable(fields: Mapping[str, object]) -> bool:
    from transformers import GenerationConfig

    if not all(_are_ids(fields[name]) for name in TOKENS if fields.get(name) is not None):
        return False
    if not all(_fits(name, value) for name, value in fields.items()):
        return False
    try:
        GenerationConfig.from_dict(dict(fields))
        _try_sampling(fields)
    except Exception:  # whatever a library of another version raises
        return False
    return True


def _fits(name: str, value: Any) -> bool:
    """Whether a setting is of the type of transformers' default, where that has one."""
    from transformers import GenerationConfig

    default = GenerationConfig._get_default_generation_params().get(name)
    if value is None or name == "early_stopping" or type(default) not in (bool, int, float):
        return not isinstance(value, float) or isfinite(value)
    if isinstance(default, float):
        return type(value) in (int, float) and isfinite(value)
    return type(value) is type(default)


def _try_sampling(fields: Mapping[str, object]) -> None:
    """Make what generate() makes of these settings, which raises for values out of their range."""
    from transformers.generation import logits_process as makers

    penalty = fields.get("repetition_penalty")
    if penalty not in (None, 1.0):
        makers.RepetitionPenaltyLogitsProcessor(penalty=penalty)
    if not fields.get("do_sample"):
        return
    for name, unused, maker in (
        ("temperature", 1.0, makers.TemperatureLogitsWarper),
        ("top_k", 0, makers.TopKLogitsWarper),
        ("top_p", 1.0, makers.TopPLogitsWarper),
        ("min_p", None, makers.MinPLogitsWarper),
        ("typical_p", 1.0, makers.TypicalLogitsWarper),
    ):
        if fields.get(name) not in (None, unused):
            maker(fields[name])


def _are_ids(value: Any) -> bool:
    return all(type(token) is int for token in (value if isinstance(value, list) else [value]))


def token_set(value: int | list[int] | None) -> set[int]:
    """Of a configuration's `eos_token_id`: None, a number, or several."""
    return {value} if isinstance(value, int) else set(value or ())


def end_tokens_in(folder: Path) -> set[int]:
    """The tokens that end an answer of the folder's model for transformers' generate()."""
    return token_set(read_settings(folder).fields.get("eos_token_id"))
