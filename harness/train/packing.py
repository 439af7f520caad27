"""Padding-free batches: examples end to end in one row, none of which sees another.

All layers but attention work on each token by itself, so a flat row of tokens costs no padding. In
attention each example is a call of its own (on a GPU in half precision, one call of a kernel for
sequences of various lengths), and position ids begin anew with every example.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.modeling.memory.shapes import labels_at_once

ATTENTION, SPLIT_ATTENTION = "harness_packed", "harness_packed_split"
"""Names in transformers' table of attention functions; the second for GPUs whose kernel for sequences
of various lengths fails."""
HALF = (torch.float16, torch.bfloat16)
TOLERANCE = 1e-3
"""Relative difference of a loss that two orders of float32 sums may leave."""


@dataclass
class Lengths:
    """Where the examples of a flat row end. `bounds`: int32, (examples + 1,), from 0."""

    each: list[int]
    bounds: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "Lengths":
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(list(lengths), ends)

    def to(self, device: torch.device) -> "Lengths":
        return Lengths(self.each, sent(self.bounds, device))


Inputs = dict[str, Tensor | Lengths]
"""What a model is called with: ids and places, and of texts end to end their lengths."""


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on the device. To a GPU the copy runs beside what this process does next, which it
    does from pinned memory alone; the pinned block is kept until then."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def whole_kernel_takes(device: str, dtype: torch.dtype, dropout: float) -> bool:
    """Whether the kernel for sequences of various lengths computes such a call."""
    return device == "cuda" and dtype in HALF and not dropout


def takes_grouped_heads(device: str) -> bool:
    """Whether torch's attention takes fewer heads of keys than of queries and keeps no scores. On a GPU
    flash attention alone does, which has neither float32 nor masks nor GPUs older than sm_80."""
    return device != "cuda"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: Lengths | None = None,
    sliding_window: int | None = None,
    at_once: bool = True,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each example. Shapes as transformers gives them: (1, heads, tokens,
    head size); the output is (1, tokens, heads, head size), in autocast's type where that is on.

    at_once: use the GPU's kernel for all examples at once, where it can be. Raises ValueError for what
    is not computed: a call without `packed`, with capped scores or sinks.
    """
    if packed is None or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError("packed attention does not compute what this model asks for")
    device = query.device.type
    if torch.is_autocast_enabled(device):
        # Rotary tables of float32 embeddings leave queries and keys in float32, beside half values.
        half = torch.get_autocast_dtype(device)
        query, key, value = query.to(half), key.to(half), value.to(half)
    groups = query.shape[1] // key.shape[1]
    if at_once and whole_kernel_takes(device, query.dtype, dropout):
        from torch.nn.attention.varlen import varlen_attn

        longest = max(packed.each)
        out = varlen_attn(
            *(t[0].transpose(0, 1) for t in (query, key, value)),
            packed.bounds, packed.bounds, longest, longest,
            scale=scaling,
            window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
            enable_gqa=groups > 1,
        )  # fmt: skip
        return out.unsqueeze(0), None
    if not takes_grouped_heads(device):
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        groups = 1
    # split's gradient is one concatenation; slices would each cost a gradient as long as the row.
    parts = zip(*(t.split(packed.each, dim=2) for t in (query, key, value)), strict=True)
    outs = []
    for q, k, v in parts:
        window = _window(q, sliding_window)
        outs.append(
            nn.functional.scaled_dot_product_attention(
                q, k, v,
                attn_mask=window,
                dropout_p=dropout,
                is_causal=window is None,
                scale=scaling,
                enable_gqa=groups > 1,
            )
        )  # fmt: skip
    return torch.cat(outs, dim=2).transpose(1, 2), None


def _window(query: Tensor, size: int | None) -> Tensor | None:
    """Which keys a query sees where a sliding window is shorter than the example; else None."""
    length = query.shape[2]
    if size is None or length <= size:
        return None
    back = torch.arange(length, device=query.device)
    behind = back[:, None] - back[None, :]
    return (behind >= 0) & (behind < size)


def _half_losses(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor | None, at_once: int
) -> Tensor:
    """Losses in float32 from logits in half precision, as transformers has them, so many labels at a
    time. torch's own fused loss would round each of them, and their sum, to half precision."""
    assert targets is not None

    def piece(part: Tensor, labels: Tensor) -> Tensor:
        logits = nn.functional.linear(part, weight, bias).float()
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    pieces = zip(hidden.split(at_once), targets.split(at_once), strict=True)
    return torch.cat([checkpoint(piece, *inputs, use_reentrant=False) for inputs in pieces])


def add_label_loss(model: PreTrainedModel) -> None:
    """Give a causal language model a forward that takes `label_at` (places in the flattened batch,
    each before its label's) and `targets`, and returns the negative log-likelihoods in nats: their
    sum, or with `each=True` one for every label. Logits are made for these places alone. The
    attention functions for packed rows are then among those that the model can be told to use.

    To be called before PEFT wraps the model. Other calls go to the model's own forward.
    """
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, packed_attention)
    ALL_ATTENTION_FUNCTIONS.register(SPLIT_ATTENTION, partial(packed_attention, at_once=False))
    original: Callable[..., Any] = model.forward

    def forward(
        *args: Any,
        label_at: Tensor | None = None,
        targets: Tensor | None = None,
        each: bool = False,
        **kwargs: Any,
    ) -> Any:
        if label_at is None:
            return original(*args, **kwargs)
        kwargs["use_cache"] = False
        reduction = "none" if each else "sum"
        head = model.get_output_embeddings()
        if getattr(model, "harness_plain_head", False) or type(head) is not nn.Linear:
            logits = original(*args, **kwargs).logits.flatten(0, 1).index_select(0, label_at)
            return nn.functional.cross_entropy(logits.float(), targets, reduction=reduction)
        hidden = model.base_model(*args, **kwargs).last_hidden_state.flatten(0, 1)
        hidden = hidden.index_select(0, label_at)
        if torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        weight = head.weight.to(hidden.dtype)
        bias = None if head.bias is None else head.bias.to(hidden.dtype)
        at_once = labels_at_once(head.out_features, hidden.is_cuda)
        if hidden.dtype != torch.float32:
            losses = _half_losses(hidden, weight, bias, targets, at_once)
            return losses if each else losses.sum()
        # torch's own choice, one or two labels for a large vocabulary, takes seven times as long on
        # a CPU.
        pieces = nn.LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=at_once)
        return nn.functional.linear_cross_entropy(
            hidden, weight, targets, linear_bias=bias, reduction=reduction, options=pieces
        )

    model.forward = forward
