"""The attention masks of decoding steps, made beforehand for several steps.

From a mask of which columns hold tokens, transformers makes its own in every step, and first asks the
device whether it could do without: the GPU is waited for once a step and kind of layer. A mask that
comes ready, of four dimensions, is taken as it is; a dict of them where layers are of several kinds.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EVERY_LAYER = ""
FULL, SLIDING = "full_attention", "sliding_attention"
ADDED_TO_SCORES = ("eager", "sdpa")
"""Implementations of attention that take a mask which is added to the scores."""
ALIGNED = 16
"""Rows begin at multiples of so many numbers: a GPU's attention else copies the mask in each layer."""

Windows = Mapping[str, int | None]
"""Kind of layer -> how many of the last columns it sees; None: all of them."""


def windows_of(model: "PreTrainedModel") -> Windows | None:
    """Of the kinds of layers that the configuration names, or of EVERY_LAYER where it names none: the
    library's own rule (masking_utils.create_masks_for_generate). None: it makes its masks itself."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if config._attn_implementation not in ADDED_TO_SCORES:
        return None
    if kinds is not None:
        is_known = set(kinds) <= {FULL, SLIDING}
        return (
            {kind: window if kind == SLIDING else None for kind in set(kinds)} if is_known else None
        )
    return None if getattr(config, "attention_chunk_size", None) else {EVERY_LAYER: window}


def step_masks(
    windows: Windows | None,
    starts: torch.Tensor,
    columns: int,
    steps: int,
    padded: bool,
    dtype: torch.dtype,
) -> list[Any]:
    """What each of the next steps is given as its attention_mask; nothing is read from the device.

    starts: (answers,), the first column of each. `columns`: those that the first step sees, its own
    among them; each later step sees one more. `padded`: whether any answer starts after column 0.
    """
    numbers = torch.arange(_aligned(columns + steps - 1), device=starts.device)
    begun = numbers >= starts[:, None]
    if windows is None:
        return [begun[:, : columns + step].long() for step in range(steps)]
    by_kind = {
        kind: _added(begun, window, columns, steps, padded, dtype)
        for kind, window in windows.items()
    }
    if EVERY_LAYER in by_kind:
        return by_kind[EVERY_LAYER]
    return [{kind: masks[step] for kind, masks in by_kind.items()} for step in range(steps)]


def _added(
    begun: torch.Tensor,
    window: int | None,
    columns: int,
    steps: int,
    padded: bool,
    dtype: torch.dtype,
) -> list[torch.Tensor | None]:
    """Of one kind of layer a mask for each step, (answers, 1, 1, columns); None where it needs none."""
    widths = range(columns, columns + steps)
    # With as many columns as the window the library has one that hides nothing: last bits depend on it.
    needed = [padded or (window is not None and width >= window) for width in widths]
    if not any(needed):
        return [None] * steps
    visible = begun[None]
    if window is not None and widths[-1] > window:
        first = torch.arange(columns - window, columns - window + steps, device=begun.device)
        numbers = torch.arange(begun.shape[1], device=begun.device)
        visible = visible & (numbers >= first[:, None])[:, None]
    low = torch.finfo(dtype).min
    masks = torch.zeros(visible.shape, dtype=dtype, device=begun.device).masked_fill_(~visible, low)
    rows = masks[:, :, None, None].expand(steps, -1, -1, -1, -1)
    return [rows[step, ..., :width] if needed[step] else None for step, width in enumerate(widths)]


def _aligned(columns: int) -> int:
    return -(-columns // ALIGNED) * ALIGNED
