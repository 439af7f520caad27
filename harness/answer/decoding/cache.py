"""The keys and values of answers in the making: prompts that come and go in one batch.

Every answer's tokens stand side by side and end in the same column, where the next one goes, whatever
its prompt's length; columns before its own first are masked out. So a place that has become free takes
another prompt whose columns are copied into it, and attention over a window of the last tokens, which
counts columns, stays right.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

JOINABLE = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers that hold keys and values of single tokens; others hold sums over all of them."""
GROWTH = 128
"""Columns that are made at a time."""


class _Columns:
    """Which columns are in use, the same for all layers: from `begin` up to `end`."""

    def __init__(self) -> None:
        self.begin = self.end = 0


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, (places, heads, columns, head size), written in place."""

    def __init__(self, columns: _Columns) -> None:
        super().__init__()
        self.columns = columns
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        at = self.columns
        assert self.keys is not None
        assert self.values is not None
        after = at.end + key_states.shape[-2]
        self.keys[:, :, at.end : after] = key_states
        self.values[:, :, at.end : after] = value_states
        return self.keys[:, :, at.begin : after], self.values[:, :, at.begin : after]

    def get_seq_length(self) -> int:
        return self.columns.end - self.columns.begin


class Places:
    """The cache of a batch of answers, each in a place. Columns are counted from its own zero."""

    def __init__(self) -> None:
        self._columns = _Columns()
        self._count = 0
        self.cache = Cache(layers=[])

    @property
    def end(self) -> int:
        """The column of the next tokens."""
        return self._columns.end

    @property
    def begin(self) -> int:
        return self._columns.begin

    def see_from(self, begin: int) -> None:
        """Forget the columns before this one: no answer has tokens there any more."""
        self._columns.begin = begin

    def advance(self) -> None:
        """The next tokens are in: after a forward pass."""
        self._columns.end += 1

    def arrange(self, old_places: Sequence[int], count: int, width: int) -> int:
        """Keep the places `old_places`, in this order, and make `count` of them in all, with room on
        the left for prompts of `width` tokens. Returns by how much the columns' numbers grew.
        """
        used = self.end - self.begin
        end = max(used, width)
        shift = end - self.end
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = _room(old, count, end)
                if old_places:
                    rows = torch.tensor(old_places, device=old.device)
                    in_sight = old[:, :, self.begin : self.end]
                    new[: len(old_places), :, end - used : end] = in_sight.index_select(0, rows)
                setattr(layer, name, new)
        self._columns.begin, self._columns.end, self._count = end - used, end, count
        return shift

    def has_room(self, tokens: int) -> bool:
        """Whether there are columns for so many more tokens."""
        return bool(self.cache.layers[0].keys.shape[2] >= self.end + tokens)

    def put(self, places: Sequence[int], filled: DynamicCache) -> None:
        """Copy what a forward pass over prompts left, padded on the left, into these places, which
        have room for it on the left of `end` (see arrange)."""
        for source in filled.layers[len(self.cache.layers) :]:
            layer = _Layer(self._columns)
            layer.keys = _room(source.keys, self._count, self.end)
            layer.values = _room(source.values, self._count, self.end)
            self.cache.layers.append(layer)
        for layer, source in zip(self.cache.layers, filled.layers, strict=True):
            width = source.keys.shape[2]
            rows = torch.tensor(places, device=source.keys.device)
            layer.keys[rows, :, self.end - width : self.end] = source.keys
            layer.values[rows, :, self.end - width : self.end] = source.values


def _room(like: torch.Tensor, count: int, end: int) -> torch.Tensor:
    """Zeros: what is masked out is multiplied by 0, which leaves nothing but of what is no number."""
    return like.new_zeros(count, like.shape[1], end + GROWTH, like.shape[3])


def why_not_joined(model: "PreTrainedModel") -> str:
    """Why answers of this model cannot be made in one batch as they come and go; "" if they can."""
    import inspect

    config = model.config.get_text_config(decoder=True)
    parameters = inspect.signature(model.forward).parameters
    if model.config.is_encoder_decoder:
        return "it is an encoder with a decoder"
    for name in ("position_ids", "attention_mask", "past_key_values"):
        if name not in parameters:
            return f"its forward pass takes no {name}"
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    if not kinds <= set(JOINABLE):
        kind_names = ", ".join(sorted(kind.__name__ for kind in kinds - set(JOINABLE)))
        return f"its cache is not only of keys and values ({kind_names})"
    rope = getattr(config, "rope_parameters", None) or {}
    for rope_kind in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        if rope_kind.get("rope_type") in ("dynamic", "longrope"):
            return f"its positions depend on the batch's longest text ({rope_kind['rope_type']})"
    return ""
