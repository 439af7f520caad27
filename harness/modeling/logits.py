"""Logits of the places that are scored, and of no others.

Over a large vocabulary the logits of a whole prompt take more memory than all else.
"""

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def last_logits(model: "PreTrainedModel", keep: int, **inputs: Any) -> "torch.Tensor":
    """The model's logits of the last `keep` places of each row: (rows, keep, vocabulary), or fewer
    places where rows are shorter."""
    inputs["use_cache"] = False
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(**inputs, logits_to_keep=keep).logits
    return model(**inputs).logits[:, -keep:]
