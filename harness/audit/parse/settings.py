"""What configuration files say of a training or of an evaluation: YAML, JSON, shell scripts, and the
list of hyperparameters in a model card. What is commented out is read too, and kept apart."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.audit.parse.files import Unreadable, number, read_text

WORDS = {
    "batch": "per_device_train_batch_size micro_batch_size train_micro_batch_size_per_gpu",
    "batch_is_tried": "auto_find_batch_size",
    "accumulation": "gradient_accumulation_steps",
    "devices": "num_devices num_gpus nproc_per_node num_processes",
    "nodes": "nnodes num_nodes",
    "total_batch": "total_train_batch_size",
    "epochs": "num_train_epochs num_epochs",
    "max_steps": "max_steps training_steps",
    "drop_last": "dataloader_drop_last",
    "packing": "packing neat_packing sample_packing packed group_texts",
    "block": "block_size",
    "held_out": "val_size val_set_size",
    "held_out_percent": "validation_split_percentage",
    "max_examples": "max_samples max_train_samples",
    "streaming": "streaming",
    "data": "dataset data_path train_file dataset_name",
    "output": "output_dir",
    "checkpoint": "model_name_or_path model_name model_path base_model pretrained checkpoint "
    "checkpoint_path",
    "adapter": "checkpoint_dir adapter_name_or_path adapter_model_name peft lora_path",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "do_sample": "do_sample",
    "max_new_tokens": "max_new_tokens max_tokens",
    "repetition_penalty": "repetition_penalty",
    "prompt": "prompt_template",
    "template": "template",
    "precision": "torch_dtype",
}
"""What it is called here -> what tools call it: transformers, LLaMA-Factory, DeepSpeed, torchrun,
accelerate, axolotl, torchtune, transformers' examples, alpaca_eval, lm-eval."""
NAMES = {word: name for name, words in WORDS.items() for word in words.split()}
DECODING = (
    "temperature", "top_p", "top_k", "do_sample", "max_new_tokens", "repetition_penalty", "prompt",
    "template", "precision",
)  # fmt: skip
"""Those that say how outputs were made."""
OF_TRAINING = frozenset({"batch", "accumulation", "epochs", "total_batch"})
"""Those that a training's settings have, and no other's."""
CHECKPOINTS = ("checkpoint", "adapter")
LARGEST_CONFIG = 2**20
"""Bytes; a larger file is data."""
DEEPEST = 8
_CARD_LINE = re.compile(r"^\s*[-*]\s+([A-Za-z_]\w*):\s*(.+?)\s*$", re.MULTILINE)
_CARD_DATA = re.compile(
    r"(?:\bfine-tuned version of (?:\[[^\]\n]*\]\([^)\n]*\)|\S+) on (?:an? |the )?([^\n]+?)"
    r"|\btrained on (?:an? |the )?(\[[^\]\n]+\]\([^)\n]*\)(?:(?:,| and) [^\n]+?)?)) datasets?\b",
    re.IGNORECASE,
)
_CARD_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CARD_COMMA = re.compile(r",\s*(?:and\s+)?(?:the\s+)?|\s+and\s+(?:the\s+)?")
_NO_DATA = frozenset({"unknown", "none", "generator", "json", "csv", "text", "parquet", "arrow"})
"""What a card calls a data set whose name the trainer did not have."""
_CARD_TITLE = re.compile(r"^#+\s.*hyper-?parameters", re.MULTILINE | re.IGNORECASE)
_COMMENTED = re.compile(
    r"""^[ \t]*(?:\#|//)+[ \t]*(?:-[ \t]+|--)?["']?([A-Za-z_]\w*)["']?[ \t]*(?:[:=][ \t]*|[ \t]+)"""
    r"""["']?([^\s"',\\]+)""",
    re.MULTILINE,
)
_FLAG = re.compile(r"^--?([A-Za-z][\w-]*)(?:=(.*))?$", re.DOTALL)
_SHELL_COMMENT = re.compile(
    r"""^((?:[^'"\\#]|\\.|'[^']*'|"(?:[^"\\]|\\.)*"|(?<=[^\s;&|(])\#)*)(?<![^\s;&|(])\#.*$"""
)
"""A comment begins with a word, outside quotes."""
_VISIBLE = re.compile(r"CUDA_VISIBLE_DEVICES=[\"']?([\d,]*)")


@dataclass
class ConfigSettings:
    """values: name -> the different values that the file gives it, in its order. commented: name ->
    those that stand in comments alone."""

    path: Path
    values: dict[str, list[Any]] = field(default_factory=dict)
    commented: dict[str, list[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    """The words the file itself uses."""

    def put(self, word: str, value: Any) -> None:
        name = NAMES.get(word.replace("-", "_"))
        if name is None or value is None or isinstance(value, dict) or value == "":
            return
        if name == "data" and isinstance(value, list):
            value = ",".join(map(str, value))
        if isinstance(value, list):
            return
        self.names.add(word)
        values = self.values.setdefault(name, [])
        if value not in values:
            values.append(value)

    def numbers(self, name: str) -> list[float]:
        """The values that are finite numbers, also as text; `auto` and the like are none."""
        converted = (number(value) for value in self.values.get(name, ()))
        return [value for value in converted if value is not None]


def truth(value: Any) -> bool | None:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return words.get(str(value).lower())


def settings_in(paths: Iterable[Path]) -> Iterator[ConfigSettings]:
    """Those of the files that can be read and are no data by their size."""
    for path in paths:
        with suppress(Unreadable, OSError):
            if path.stat().st_size <= LARGEST_CONFIG:
                yield read_settings(path)


def read_settings(path: Path) -> ConfigSettings:
    """What a configuration file says, as far as its words are known.

    Raises Unreadable: it cannot be opened, or is not of its format.
    """
    text = read_text(path)
    settings = ConfigSettings(path)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        _from_yaml(settings, text)
    elif suffix == ".json":
        try:
            _walk(settings, json.loads(text))
        except (ValueError, RecursionError) as e:
            raise Unreadable(f"not JSON ({e})") from None
    elif suffix == ".sh":
        _from_script(settings, text)
    elif suffix == ".md":
        _from_card(settings, text)
    if suffix in (".yaml", ".yml", ".sh"):
        _from_comments(settings, text)
    return settings


def _from_yaml(settings: ConfigSettings, text: str) -> None:
    import yaml

    try:
        for document in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            _walk(settings, document)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise Unreadable(f"not YAML ({' '.join(str(e).split())[:120]})") from None


def _walk(settings: ConfigSettings, value: Any, depth: int = 0) -> None:
    if depth > DEEPEST:
        return
    if isinstance(value, dict):
        for word, inner in value.items():
            settings.put(str(word), inner)
            _walk(settings, inner, depth + 1)
    elif isinstance(value, list) and len(value) < 100:
        for inner in value:
            _walk(settings, inner, depth + 1)


def _from_script(settings: ConfigSettings, text: str) -> None:
    """`--name value` and `--name=value` of every command; variables are not filled in."""
    for line in _commands(text):
        for visible in _VISIBLE.findall(line):
            settings.put("num_gpus", len([d for d in visible.split(",") if d]) or None)
        try:
            words = shlex.split(line)
        except ValueError:
            words = line.split()
        for place, word in enumerate(words):
            flag = _FLAG.match(word)
            if flag is None:
                continue
            has_value = place + 1 < len(words) and not _FLAG.match(words[place + 1])
            value = flag[2] if flag[2] is not None else words[place + 1] if has_value else "true"
            if "$" not in value:
                settings.put(flag[1], value)


def _commands(text: str) -> Iterator[str]:
    """A script's commands, each on one line and without its comments. As in a shell, a backslash at the
    end of a comment continues nothing."""
    begun = ""
    for line in text.splitlines():
        code = _SHELL_COMMENT.sub(r"\1", line)
        if code == line and code.endswith("\\"):
            begun += code[:-1] + " "
        else:
            yield begun + code
            begun = ""
    yield begun


def _from_card(settings: ConfigSettings, text: str) -> None:
    """The sentence on the data sets that transformers and TRL write into a model card, and the list
    below transformers' heading on hyperparameters."""
    sentence = _CARD_DATA.search(text)
    if sentence is not None:
        names = _CARD_COMMA.split(_CARD_LINK.sub(r"\1", sentence[1] or sentence[2]))
        settings.put("dataset", ",".join(n for n in names if n and n.lower() not in _NO_DATA))
    title = _CARD_TITLE.search(text)
    if title is None:
        return
    part = re.split(r"^#", text[title.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    lines = dict(_CARD_LINE.findall(part))
    if "train_batch_size" not in lines:
        return
    for name, value in lines.items():
        settings.put("per_device_train_batch_size" if name == "train_batch_size" else name, value)
    # The card names these only where they are not 1.
    settings.values.setdefault("devices", [1])
    settings.values.setdefault("accumulation", [1])


def _from_comments(settings: ConfigSettings, text: str) -> None:
    for word, value in _COMMENTED.findall(text):
        name = NAMES.get(word)
        if name is None or "$" in value:
            continue
        used = {str(v) for v in settings.values.get(name, ())}
        commented = settings.commented.setdefault(name, [])
        if value not in used and value not in commented:
            commented.append(value)
