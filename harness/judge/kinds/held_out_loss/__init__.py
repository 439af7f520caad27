"""The loss on held-out text."""

from typing import Annotated, Literal

from pydantic import Field

from harness.answer.engine import BaseWeights
from harness.spec.base import Count, Spec
from harness.spec.prompts import PromptSet
from harness.spec.template import Template


class LossJudge(Spec):
    """The model's loss on given answers, in nats per token and bits per byte."""

    kind: Literal["held_out_loss"] = "held_out_loss"
    examples: PromptSet
    """Instructions with their answers (`output`, or the last answer of a conversation)."""
    template: Template | None = None
    """Left open: the row's own."""
    cutoff_length: Annotated[int, Field(ge=2)] = 2048
    """Tokens of an example; what is longer is cut, as in training."""
    batch_size: Count = 8
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count | None = None
    quantization: BaseWeights = "as_trained"
    """Of a QLoRA row's base, as eval.answer.quantization."""
