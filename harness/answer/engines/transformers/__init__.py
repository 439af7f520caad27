"""The row's own model in the stage's process."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from harness.answer.engine import Answered, AnswerTask, BaseEngine, vllm_cannot
from harness.artefact.needs import Needs
from harness.spec.base import Count
from harness.spec.train import Quantization

VLLM_FOR_MANY = (
    "vLLM (engine: {kind: vllm}) is made for many prompts on a GPU; here the CPU starts every kernel "
    "of every step"
)
"""Advice, and no more: what vLLM answers is another artefact, and never takes the place of this one."""
DONE = "outputs.jsonl"
"""The answers as they ended, from which an interrupted run goes on."""


class TransformersEngine(BaseEngine):
    """The row's model in this stage's own process."""

    code_version: ClassVar[int] = 5
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    uses_model: ClassVar[bool] = True
    kind: Literal["transformers"] = "transformers"
    batching: Literal["continuous", "sorted"] = "sorted"
    """`continuous`: a prompt takes the place of each answer that ended; `sorted`: batches of like
    length, each as long as its longest answer."""
    batch_size: Count | None = None
    """Answers in the making at a time. Left open: on a GPU as many as its free memory holds, up to 512,
    and 16 on a CPU; which, stands in the manifest."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the weights and of the arithmetic."""
    threads: Count | None = None
    """On a CPU: threads of one operation. Left open: as many as the stage's share of the machine
    has."""

    @property
    def dtype(self) -> str:
        return self.precision

    def needs(self) -> Needs:
        return Needs(gpus=1)

    def advice(self, quantization: Quantization | None) -> str:
        return "" if quantization is not None and vllm_cannot(quantization) else VLLM_FOR_MANY

    def twin(self, smoke: Path) -> BaseEngine:
        return self.model_copy(update={"precision": "float32", "threads": 1})

    def replaced(self) -> Iterator[str]:
        if self.precision != "float32":
            yield f"answers in float32 for {self.precision}"

    def answer(self, task: AnswerTask) -> Answered:
        if task.call.replay:
            from harness.answer.engines.transformers.recorded import recorded_answers

            return recorded_answers(task)
        from harness.answer.engines.transformers.engine import answer_here

        return answer_here(task, self)
