"""What the answer stage is told: prompt sets, decoding, and what answers them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.spec.base import NOT_KEY, Data, Endpoint, Name, Seed, Spec
from harness.spec.recipes import HubData, Sample
from harness.spec.template import Template
from harness.spec.train import Quantization

Count = Annotated[int, Field(ge=1)]

LEAST_TEMPERATURE = 1e-3
"""Below it logits overflow when they are divided."""

VLLM_IMAGE = (
    "vllm/vllm-openai:v0.14.0"
    "@sha256:1d6866b87630d94f5e0cdae55ab5abb4ce0b03fcb84d9d10612f9d518d19d4fd"
)
"""vLLM's own image. Also in compose.yaml."""


class HubPrompts(HubData):
    """A prompt set on the hub: a data set's split, or one of its files."""

    file: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)*$")] | None = None
    """A JSON, JSONL or Parquet file of the data set, in place of `config` and `split`."""


class PromptColumns(Spec):
    """Which column holds what. Left open: the usual names are looked for."""

    instruction: str | None = None
    input: str | None = None
    system: str | None = None
    dataset: str | None = None
    output: str | None = None
    """A given answer; only the judge held_out_loss needs one."""
    messages: str | None = None
    """Of conversations: the last user turn is answered, after the turns before it; the turn after it
    is the answer."""


class PromptSet(Spec):
    """Instructions to answer: exactly one of file, files, hub.

    JSON (a list), JSONL or Parquet. Understood as they are: AlpacaEval's files, the test sets of
    AlpaGasus (Koala, Self-Instruct, Vicuna, WizardLM), conversations such as FineTome's.
    """

    file: Data | None = None
    files: Annotated[dict[Name, Data], Field(min_length=1)] | None = None
    """Several sets by name; scores are told for each of them too."""
    hub: HubPrompts | None = None
    columns: PromptColumns = PromptColumns()
    first: Count | None = None
    """Only the first so many; of each of `files`."""
    sample: Sample | None = None
    """A seeded subset, in the set's order; of each of `files`."""

    @model_validator(mode="after")
    def _one_place(self) -> "PromptSet":
        if sum(s is not None for s in (self.file, self.files, self.hub)) != 1:
            raise ValueError(
                "give exactly one of file, files, hub (one that an extended file gives goes with null)"
            )
        if self.first is not None and self.sample is not None:
            raise ValueError("give either first or sample, not both")
        return self


def _not_next_to_zero(temperature: float | None) -> float | None:
    if temperature is not None and 0 < temperature < LEAST_TEMPERATURE:
        raise ValueError(f"a temperature below {LEAST_TEMPERATURE:g} is greedy decoding: write 0")
    return temperature


class Decoding(Spec):
    max_new_tokens: Count | None = 2048
    """null: as many as the model has room for. An endpoint is then sent no limit, and has its own:
    of text completions that is often 16."""
    temperature: Annotated[
        Annotated[float, Field(ge=0)] | None, AfterValidator(_not_next_to_zero)
    ] = 0.0
    """0: greedy. null, for an endpoint that takes none: neither this nor top_p is sent."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed = 42
    """Each prompt's own random numbers are drawn from this and the prompt."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Texts that end an answer, beside the template's."""


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


Reasoning = Literal["keep", "strip"]


class Answer(Spec):
    prompts: PromptSet
    template: Template | None = None
    """Left open: the row's own template. Given where the published evaluation used another prompt
    than the training; what differs is then found and said."""
    engine: Engine = TransformersEngine()
    decoding: Decoding = Decoding()
    strip: bool | None = None
    """Whether white space at an answer's ends goes before it is judged and measured. Left open: of
    what a model generates, as in alpaca_eval's evaluate_from_model (is_strip_output); given outputs
    stay as they are, as in its evaluate."""
    reasoning: Reasoning = "keep"
    """What becomes of <think>...</think> in an answer: `keep` shows it to the judge, as alpaca_eval
    does, and is found; `strip` judges the rest alone, nothing where the answer ended within it."""
    quantization: BaseWeights = "as_trained"
    """Of a QLoRA row's base: quantised as it was trained on, where the device can; or none, which is
    another model. What was done stands beside the number. A merged adapter's base is not quantised."""

    @property
    def is_stripped(self) -> bool:
        return self.decodes if self.strip is None else self.strip

    @model_validator(mode="after")
    def _has_a_temperature(self) -> "Answer":
        if self.decoding.temperature is None and self.uses_model:
            raise ValueError(
                "decoding.temperature: null is for endpoints: give the row's model one"
            )
        return self

    @property
    def uses_model(self) -> bool:
        """Whether the row's model answers."""
        return isinstance(self.engine, LocalEngine)

    @property
    def uses_template(self) -> bool:
        engine = self.engine
        by_text = isinstance(engine, EndpointEngine) and engine.api == "completion"
        return self.uses_model or by_text

    @property
    def decodes(self) -> bool:
        """Whether anything is decoded: the outputs of a control depend on no setting of it."""
        return not isinstance(self.engine, NullEngine | ReferenceEngine)

    @property
    def is_sampled(self) -> bool:
        """Whether another sampling seed could give other outputs."""
        return self.decodes and self.decoding.temperature != 0
