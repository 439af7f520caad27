"""The shape of a decoder model, from its configuration or its weights' headers, without loading it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from harness.common.json_files import read_object

CONFIG = "config.json"
MOST_HEADER_BYTES = 100_000_000
"""What the safetensors format allows."""
BYTES_TOKENS = 258
"""Of the tokenizer `bytes`: 256 bytes, padding and end."""
LABELS_AT_ONCE = 512
"""So many labels' logits training has at a time: 297 MiB for a vocabulary of 151,936 in float32."""
GPU_LOGIT_BYTES = 2**30
"""On a GPU more of them, up to so much in float32: each piece adds a gradient to the whole head's."""

_LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "tie_word_embeddings": False,
}  # fmt: skip
_QWEN2 = {**_LLAMA, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32}
_GEMMA = {
    **_LLAMA, "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16,
    "head_dim": 256, "tie_word_embeddings": True,
}  # fmt: skip
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": _QWEN2,
    "qwen3": {**_QWEN2, "head_dim": 128},
    "phi3": {**_LLAMA, "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192},
    "gemma": _GEMMA,
    "gemma2": {
        **_GEMMA, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4,
    },
}  # fmt: skip
"""model_type -> what transformers 5.23 takes where a configuration is silent."""

_OTHER_NAMES = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "intermediate_size": ("n_inner", "ffn_dim"),
}


@dataclass(frozen=True)
class Shape:
    """Widths are in numbers, not bytes; `linears` are those of one layer."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    attention: int
    """Width of the queries, all heads together; `key_value`: of the keys, and of the values."""
    key_value: int
    vocabulary: int
    linears: Mapping[str, tuple[int, int]]
    """Module name -> width in, width out."""
    parameters: int
    head_norms: bool = False
    """Queries and keys are normalised, as in Qwen3."""

    @property
    def linear_parameters(self) -> int:
        """Of one layer's matrices: what is quantised, and copied to bfloat16."""
        return sum(rows * columns for rows, columns in self.linears.values())

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings, and of the head where it has its own."""
        matrix = self.vocabulary * self.hidden
        rest = self.parameters - self.layers * self.linear_parameters
        return matrix * (2 if rest >= 2 * matrix else 1)


def from_config(config: Mapping[str, Any]) -> Shape | None:
    """The shape of a known model type; None for others, and where a setting makes no sense."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in DEFAULTS:
        return None
    settings = {**DEFAULTS[kind], **config}
    wide = _widths(settings)
    if wide is None:
        return None
    h, i, layers, _, vocabulary, a, kv = wide
    if kind == "phi3":
        linears = {"qkv_proj": (h, a + 2 * kv), "gate_up_proj": (h, 2 * i)}
    else:
        linears = {"q_proj": (h, a), "k_proj": (h, kv), "v_proj": (h, kv)}
        linears |= {"gate_proj": (h, i), "up_proj": (h, i)}
    linears |= {"o_proj": (a, h), "down_proj": (i, h)}
    each = sum(x * y for x, y in linears.values()) + (4 if kind == "gemma2" else 2) * h
    if kind == "qwen2":
        each += a + 2 * kv
    elif kind in ("llama", "qwen3", "gemma", "gemma2") and settings.get("attention_bias"):
        each += a + 2 * kv + h
    if kind == "llama" and settings.get("mlp_bias"):
        each += 2 * i + h
    if kind == "qwen3":
        each += 2 * (a // wide.heads)
    ends = vocabulary * h * (1 if settings["tie_word_embeddings"] else 2) + h
    return _shape(wide, linears, layers * each + ends, kind == "qwen3")


def labels_at_once(vocabulary: int, on_gpu: bool) -> int:
    """How many labels' logits training has at a time."""
    return max(LABELS_AT_ONCE, GPU_LOGIT_BYTES // (4 * vocabulary)) if on_gpu else LABELS_AT_ONCE


class _Widths(NamedTuple):
    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    attention: int
    key_value: int


def _widths(config: Mapping[str, Any]) -> _Widths | None:
    def number(name: str, default: int | None = None) -> int:
        names = (name, *_OTHER_NAMES.get(name, ()))
        value = next((config[n] for n in names if config.get(n) is not None), default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(name)
        return value

    try:
        hidden, heads = number("hidden_size"), number("num_attention_heads")
        size = number("head_dim", hidden // heads)
        return _Widths(
            hidden, number("intermediate_size", 4 * hidden), number("num_hidden_layers"), heads,
            number("vocab_size"), heads * size, number("num_key_value_heads", heads) * size,
        )  # fmt: skip
    except ValueError:
        return None


def _shape(
    wide: _Widths, linears: Mapping[str, tuple[int, int]], parameters: int, head_norms: bool = False
) -> Shape:
    return Shape(
        layers=wide.layers, hidden=wide.hidden, intermediate=wide.intermediate, heads=wide.heads,
        attention=wide.attention, key_value=wide.key_value, vocabulary=wide.vocabulary,
        linears=linears, parameters=parameters, head_norms=head_norms,
    )  # fmt: skip


def from_folder(folder: Path) -> Shape | None:
    """Of a model's folder: by its configuration where the type is known, else by the headers of its
    safetensors files. None where neither says enough."""
    config = read_object(folder / CONFIG)
    if config is None:
        return None
    shape_by_config = from_config(config)
    wide = None if shape_by_config else _widths(config)
    if wide is None:
        return shape_by_config
    tensors: dict[str, Sequence[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= _header(path)
    linears = {
        match[1]: (shape[1], shape[0])
        for name, shape in tensors.items()
        if len(shape) == 2 and (match := re.search(r"\.0\.(?:[\w.]+\.)?(\w+)\.weight$", name))
    }
    total = sum(map(prod, tensors.values()))
    return _shape(wide, linears, total) if linears else None


def _header(path: Path) -> dict[str, Sequence[int]]:
    """Tensor name -> shape: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= MOST_HEADER_BYTES else {}
        return {n: t["shape"] for n, t in header.items() if n != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def vocabulary_of(folder: Path) -> int | None:
    """How many tokens the tokenizer in a folder has; None where its files do not say it plainly."""
    tokenizer = read_object(folder / "tokenizer.json")
    try:
        if tokenizer is not None:
            vocab, added = tokenizer["model"]["vocab"], tokenizer["added_tokens"]
            more = {t["content"] for t in added} - set(vocab if isinstance(vocab, dict) else ())
            return len(vocab) + len(more)
        vocab, added = read_object(folder / "vocab.json"), read_object(folder / "added_tokens.json")
        return len({*vocab, *(added or {})}) if vocab else None
    except (KeyError, TypeError):
        return None
