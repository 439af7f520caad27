"""The engines that a spec can name."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from harness.answer.engines.endpoint import EndpointEngine
from harness.answer.engines.given import NullEngine, ReferenceEngine
from harness.answer.engines.transformers import TransformersEngine
from harness.answer.engines.vllm import VllmEngine


def _with_kind(value: Any) -> Any:
    """Left open, the kind is transformers; and YAML reads `kind: null` as no value."""
    if not isinstance(value, dict):
        return value
    kind = value.get("kind", "transformers")
    return {**value, "kind": "null" if kind is None else kind}


_Engine = Annotated[
    TransformersEngine | EndpointEngine | VllmEngine | NullEngine | ReferenceEngine,
    Field(discriminator="kind"),
]


Engine = Annotated[_Engine, BeforeValidator(_with_kind, json_schema_input_type=_Engine)]
