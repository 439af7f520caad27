"""The row's model served by vLLM, beside the stage or elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from harness.answer.engine import Answered, AnswerTask, BaseEngine
from harness.artefact.needs import Needs
from harness.errors import InputError
from harness.spec.base import NOT_KEY, Count
from harness.spec.model_source import ModelSource
from harness.spec.train import Train

VLLM_IMAGE = (
    "vllm/vllm-openai:v0.14.0"
    "@sha256:1d6866b87630d94f5e0cdae55ab5abb4ce0b03fcb84d9d10612f9d518d19d4fd"
)
"""vLLM's own image. Also in compose.yaml."""


def serving_needs_a_folder(where: str) -> InputError:
    """The error of a model with random weights; `where`: the beginning of its message."""
    return InputError(
        f"{where}vLLM serves a model from a folder, and this one has random weights that are drawn "
        "anew for each stage",
        "Use the engine transformers, or a model from a folder or the hub.",
    )


class VllmEngine(BaseEngine):
    """The row's model served by vLLM, which is given the template's tokens.

    The docker executor starts the server beside the stage and stops it after. Elsewhere, name a
    running one: `base_url`, or HARNESS_VLLM_URL.
    """

    code_version: ClassVar[int] = 2
    packages: ClassVar[tuple[str, ...]] = ("vllm",)
    uses_model: ClassVar[bool] = True
    kind: Literal["vllm"] = "vllm"
    image: str = VLLM_IMAGE
    """vLLM's image, by tag and digest, that the executor starts."""
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of the weights and of the arithmetic (vLLM's --dtype)."""
    max_model_length: Count | None = None
    """Tokens of a prompt with its answer; left open: the model's own limit."""
    base_url: str | None = Field(default=None, json_schema_extra=NOT_KEY)
    """A running server that has the row's model. Left open: one is started, or HARNESS_VLLM_URL names
    it."""
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = Field(default=0.9, json_schema_extra=NOT_KEY)
    """Share of a GPU's memory that the server may take."""
    tensor_parallel: Count = Field(default=1, json_schema_extra=NOT_KEY)
    """On how many GPUs the model's matrices lie, each in as many parts (vLLM's
    --tensor-parallel-size); the server gets so many and no more."""
    concurrency: Count = Field(default=64, json_schema_extra=NOT_KEY)
    """Requests at a time."""
    start_timeout_s: Annotated[float, Field(gt=0)] = Field(default=900.0, json_schema_extra=NOT_KEY)
    """Seconds that the server may take to start."""

    @property
    def dtype(self) -> str:
        return self.precision

    @property
    def longest_text(self) -> int | None:
        return self.max_model_length

    def needs(self) -> Needs:
        return Needs(server=self)

    def check_model(self, source: ModelSource | None, train: Train | None, where: str) -> None:
        """Random weights that no training leaves in a folder, an adapter to weights in float32, which
        vLLM's LoRA kernels do not take, and tokens of a chat format that stand in no folder's
        embeddings. What a server that the spec names serves is not known."""
        is_adapter = train is not None and train.lora is not None and not train.lora.merge
        if source is not None and source.random is not None and (train is None or is_adapter):
            raise serving_needs_a_folder(where)
        if is_adapter and self.base_url is None and self.precision == "float32":
            raise InputError(
                f"{where}vLLM serves adapters in bfloat16 and float16 alone, not in float32",
                "Take another precision, train.lora: {merge: true}, or the engine transformers.",
            )
        is_whole = train is not None and not is_adapter
        if source is not None and source.chat_format and not is_whole and self.base_url is None:
            raise InputError(
                f"{where}vLLM serves a base with the vocabulary that its folder has, without the "
                f"tokens of model.chat_format: {source.chat_format}",
                "Take the engine transformers"
                + (", or train.lora: {merge: true}, which leaves a whole model." if train else "."),
            )

    def twin(self, smoke: Path) -> BaseEngine:
        from harness.answer.engines.transformers import TransformersEngine

        return TransformersEngine(threads=1)

    def replaced(self) -> Iterator[str]:
        yield "transformers for vLLM"
        if self.precision != "float32":
            yield f"answers in float32 for {self.precision}"

    def answer(self, task: AnswerTask) -> Answered:
        from harness.answer.engines.vllm.engine import answer_by_vllm

        return answer_by_vllm(task, self)
