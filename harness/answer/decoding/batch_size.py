"""How many answers are made at a time where the spec leaves it open: as many as a GPU's memory holds.

Of free memory a part is kept for reading prompts, so many tokens at a time; the rest is divided by
what an answer takes at its longest. An estimate: where it was too high, the decoder takes half as many.
"""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.answer.decoding.batch import DecodingRequest
from harness.answer.decoding.cache import GROWTH
from harness.common.numbers import byte_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ON_CPU = 16
MOST = 512
"""By arithmetic, not measured: of Qwen1.5-0.5B in bfloat16 a step of so many answers of 600 tokens
reads 30 GB of keys and values, 6 ms of an H200's 4.8 TB/s. That is about as long as a CPU takes to
start the step's kernels, so that more answers at a time would make few more tokens a second."""
READ_AT_ONCE = 2**15
"""Tokens of prompts, with their padding: more of them at a time keep no GPU busier."""
USED = 0.8
"""Of the free memory: what grows is made anew beside itself, and leaves gaps."""
READING = 0.25
"""Of what is used, at most, for reading prompts."""
WIDEST_KEPT = 8
"""Activations as wide as the widest matrix that are there at a time, for each token read."""
LOGIT_BYTES = 64
"""Of each logit: itself, its probability, the sorted ones with their order and scratch, and sums in
float64 (harness.answer.decoding.batch.sample)."""


@dataclass(frozen=True)
class Costs:
    """Bytes."""

    per_column: int
    """Keys and values of one token, in all layers."""
    per_answer: int
    """What one more answer takes beside them: its logits while a token is drawn."""
    per_token_read: int
    """Of a prompt's token while it is read, its keys and values among them."""
    layers: int


@dataclass(frozen=True)
class Sizes:
    answers: int
    """Made at a time."""
    tokens_read: int
    """Of prompts, with their padding, at a time; a prompt of more is read alone."""
    free: int | None = None
    """Bytes that it was chosen from; None where memory decided nothing."""

    def note(self, answers: int) -> str:
        """How they were chosen; `answers`: how many it came to, once more had not fitted after all."""
        if self.free is None:
            return ""
        free = byte_size(self.free)
        text = f"engine.batch_size was left open: {answers} answers were made at a time"
        if answers < self.answers:
            return f"{text}, after {self.answers} did not fit the {free} of the GPU's memory"
        return f"{text}, for the {free} of the GPU's memory that were free"


def sizes_for(model: "PreTrainedModel", requests: Sequence[DecodingRequest]) -> Sizes:
    """For these answers by this model; on a CPU always the same."""
    if model.device.type != "cuda" or not requests:
        return Sizes(ON_CPU, sys.maxsize)
    costs = costs_of(model, max(len(request.ids) for request in requests))
    return sizes_in(free_memory(model.device), costs, requests)


def sizes_in(free: int, costs: Costs, requests: Sequence[DecodingRequest]) -> Sizes:
    """`free`: bytes."""
    longest = max(len(request.ids) for request in requests)
    columns = max(len(request.ids) + request.limit for request in requests)
    used = USED * free
    tokens_read = min(READ_AT_ONCE, int(READING * used / costs.per_token_read))
    # One layer is made anew at a time, of which the old and a copy of it are still there.
    cache = (columns + GROWTH) * costs.per_column * (1 + 2 / costs.layers)
    reading = max(tokens_read, longest) * costs.per_token_read
    fitting = int((used - reading) / (cache + costs.per_answer))
    return Sizes(max(1, min(fitting, MOST, len(requests))), max(1, tokens_read), free)


def costs_of(model: "PreTrainedModel", longest: int) -> Costs:
    """Keys and values as a forward pass makes them; what reading takes, by the widest linear layer.

    `longest`: tokens of the longest prompt, whose scores attention may keep.
    """
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache()
    ids = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    with torch.inference_mode():
        vocabulary = model(input_ids=ids, past_key_values=cache, use_cache=True).logits.shape[-1]
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    column = sum(tensor.nbytes for tensor in tensors) // ids.shape[1]
    config = model.config.get_text_config(decoder=True)
    inner = [module for module in model.modules() if module is not model.get_output_embeddings()]
    # The older models' linear layers name their width nf.
    names = ("in_features", "out_features", "nf")
    widest: int = max(
        getattr(module, name, config.hidden_size) for module in inner for name in names
    )
    size = tensors[0].element_size()
    scores = 2 * config.num_attention_heads * longest
    logits = 0 if "logits_to_keep" in inspect.signature(model.forward).parameters else vocabulary
    per_token_read = column + size * (WIDEST_KEPT * widest + scores + logits)
    return Costs(column, LOGIT_BYTES * vocabulary, per_token_read, len(cache.layers))


def free_memory(device: torch.device) -> int:
    """Bytes that the process can still take: of the GPU, and of what it holds without use."""
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + held)
