"""What answers: the engines' specs."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from harness.spec.base import NOT_KEY, Count, Data, Endpoint, Spec
from harness.spec.train import Quantization

VLLM_IMAGE = (
    "vllm/vllm-openai:v0.14.0"
    "@sha256:1d6866b87630d94f5e0cdae55ab5abb4ce0b03fcb84d9d10612f9d518d19d4fd"
)
"""vLLM's own image. Also in compose.yaml."""


class TransformersEngine(Spec):
    """The row's model in this stage's own process."""

    kind: Literal["transformers"] = "transformers"
    batching: Literal["continuous", "sorted"] = "sorted"
    """`continuous`: a prompt takes the place of each answer that ended; `sorted`: batches of like
    length, each as long as its longest answer."""
    batch_size: Count | None = None
    """Answers in the making at a time. Left open: on a GPU as many as its free memory holds, up to 512,
    and 16 on a CPU; which, stands in the manifest."""
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count | None = None


class EndpointEngine(Spec):
    """A model behind an OpenAI-compatible server: a closed one, or one that is served elsewhere."""

    kind: Literal["endpoint"] = "endpoint"
    endpoint: Endpoint
    api: Literal["chat", "completion"] = "chat"
    """`chat`: the instruction as the user's message, and the server's own template. `completion`: the
    prompt as the row's template (or prompt file) makes it, as one text."""
    system: str = ""
    """Of a chat: the system message; none where it is empty."""
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the server, which is not called."""


class VllmEngine(Spec):
    """The row's model served by vLLM, which is given the template's tokens.

    The docker executor starts the server beside the stage and stops it after. Elsewhere, name a
    running one: `base_url`, or HARNESS_VLLM_URL.
    """

    kind: Literal["vllm"] = "vllm"
    image: str = VLLM_IMAGE
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    max_model_length: Count | None = None
    """Tokens of a prompt with its answer; left open: the model's own limit."""
    base_url: str | None = Field(default=None, json_schema_extra=NOT_KEY)
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = Field(default=0.9, json_schema_extra=NOT_KEY)
    """Share of a GPU's memory that the server may take."""
    tensor_parallel: Count = Field(default=1, json_schema_extra=NOT_KEY)
    """On how many GPUs the model's matrices lie, each in as many parts (vLLM's
    --tensor-parallel-size); the server gets so many and no more."""
    concurrency: Count = Field(default=64, json_schema_extra=NOT_KEY)
    start_timeout_s: Annotated[float, Field(gt=0)] = Field(default=900.0, json_schema_extra=NOT_KEY)


VLLM_FOR_MANY = (
    "vLLM (engine: {kind: vllm}) is made for many prompts on a GPU; here the CPU starts every kernel "
    "of every step"
)
"""Advice, and no more: what vLLM answers is another artefact, and never takes the place of this one."""


def vllm_cannot(quantization: Quantization) -> str:
    """Why vLLM cannot quantise a base so; empty where it can."""
    if quantization.type == "nf4" and quantization.double:
        return ""
    return "vLLM quantises to nf4 with double quantisation alone"


class NullEngine(Spec):
    """A control: the same constant answer to every prompt."""

    kind: Literal["null"] = "null"
    output: str = ""


class ReferenceEngine(Spec):
    """Given outputs in place of a model's: the baseline's own as a control, whose win rate must be
    50 %; or a published model_outputs.json, to be judged again."""

    kind: Literal["reference"] = "reference"
    outputs: Data
    """In alpaca_eval's format, matched by instruction."""


def _with_kind(value: Any) -> Any:
    """Left open, the kind is transformers; and YAML reads `kind: null` as no value."""
    if not isinstance(value, dict):
        return value
    kind = value.get("kind", "transformers")
    return {**value, "kind": "null" if kind is None else kind}


QUANTIZATION = "quantization"
"""Of a stage's parameters: how it quantises the base of an adapter that QLoRA trained."""


BaseWeights = Annotated[
    Literal["as_trained", "none"],
    # What it comes to is a parameter of the stage, and in its key, where QLoRA trained an adapter.
    Field(json_schema_extra=NOT_KEY),
]


LocalEngine = TransformersEngine | VllmEngine
"""Engines that answer with the row's own model."""


_Engine = Annotated[
    TransformersEngine | EndpointEngine | VllmEngine | NullEngine | ReferenceEngine,
    Field(discriminator="kind"),
]


Engine = Annotated[_Engine, BeforeValidator(_with_kind, json_schema_input_type=_Engine)]


TOKENS_PER_ANSWER = 300
