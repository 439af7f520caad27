"""Where a model comes from: random weights, a folder, the hub."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from harness.spec.base import Data, Hub, Seed, Spec, if_set


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise ValueError(f"a configuration holds what JSON can hold: {e}") from None
    return value


class RandomModel(Spec):
    """A model with random weights: real architecture, no training. Marked in manifests and tables."""

    config: Annotated[dict[str, Any], AfterValidator(_as_json)]
    """A transformers configuration with `model_type`, as in config.json."""
    tokenizer: Literal["bytes"] | Data = "bytes"
    """`bytes`: one token a byte, made on the spot; or a folder that holds a tokenizer."""
    seed: Seed = 0
    """Of the weights."""


class HubModel(Hub):
    """A model on the hub."""


class ModelSource(Spec):
    """Where the base model comes from: exactly one of these."""

    random: RandomModel | None = None
    """Weights drawn at random, for tests."""
    path: Data | None = None
    """A local folder with config.json, safetensors weights and a tokenizer."""
    hub: HubModel | None = None
    """A model on the hub, at a fixed revision."""
    trust_remote_code: bool = False
    """Run the Python code that stands beside the weights. Shows as a deviation."""
    chat_format: Literal["chatml"] | None = if_set(None)
    """chatml: `<|im_start|>` and `<|im_end|>` become tokens of the vocabulary, with rows of their own
    in the embeddings, and begin, end and pad texts: TRL's setup_chat_format. null: the vocabulary as it
    is."""

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSource":
        if sum(s is not None for s in (self.random, self.path, self.hub)) != 1:
            raise ValueError("give exactly one of random, path, hub")
        return self
