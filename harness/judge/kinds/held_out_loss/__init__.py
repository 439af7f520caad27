"""The loss on held-out text."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from harness.answer.engine import BaseWeights
from harness.artefact.call import StageCall, StageResult
from harness.judge.judge import ModelJudge, with_sets
from harness.spec.base import Count, if_set
from harness.spec.prompts import PromptSet
from harness.spec.template import Template
from harness.spec.train import LossOver
from harness.spec.twin import CUTOFF, few_prompts


class LossJudge(ModelJudge):
    """The model's loss on given answers, in nats per token and bits per byte."""

    code_version = 3
    gives_losses = True
    uses_template = True
    few = "few held-out examples"
    kind: Literal["held_out_loss"] = "held_out_loss"
    examples: PromptSet
    """Instructions with their answers (`output`, or the last answer of a conversation)."""
    template: Template | None = None
    """Left open: the row's own."""
    over: LossOver = if_set("answers")
    """As train.validation.over: the last answers alone, or whole texts."""
    cutoff_length: Annotated[int, Field(ge=2)] = 2048
    """Tokens of an example; what is longer is cut, as in training."""
    batch_size: Count = 8
    """Examples that go through the model at a time."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the weights and of the arithmetic."""
    threads: Count | None = None
    """On a CPU: threads of one operation. Left open: as many as the stage's share of the machine
    has."""
    quantization: BaseWeights = "as_trained"
    """Of a QLoRA row's base, as eval.answer.quantization."""

    def prompts(self, answered: PromptSet | None) -> PromptSet:
        return self.examples

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        return with_sets(["held_out_loss", "bits_per_byte"], self.examples)

    def template_of(self, row_template: Template | None) -> Template | None:
        return self.template or row_template

    def filled(self, row_template: Template | None) -> Self:
        return self.model_copy(update={"template": self.template_of(row_template)})

    def twin(self, smoke: Path) -> Self:
        examples, cutoff = few_prompts(self.examples, smoke), min(self.cutoff_length, CUTOFF)
        few = {"examples": examples, "cutoff_length": cutoff}
        return super().twin(smoke).model_copy(update=few)

    def run(self, call: StageCall) -> StageResult:
        from harness.judge.kinds.held_out_loss.judge import run

        return run(call, self)
