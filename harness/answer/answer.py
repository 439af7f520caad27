"""What the answer stage is told: prompts, decoding, and what answers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.answer.engine import BaseWeights
from harness.answer.engines.transformers import TransformersEngine
from harness.answer.engines.union import Engine
from harness.spec.base import Count, Seed, Spec, if_set
from harness.spec.prompts import PromptSet
from harness.spec.template import Template

LEAST_TEMPERATURE = 1e-3
"""Below it logits overflow when they are divided."""


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
    """Only the likeliest tokens that together have this probability; 1: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = if_set(0.0)
    """Only tokens with at least this share of the likeliest one's probability (arXiv 2407.01082), of
    those that top_p leaves (vLLM: before top_p), at the temperature. Of endpoints, servers of open
    models alone take it."""
    seed: Seed = 42
    """Each prompt's own random numbers are drawn from this and the prompt."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Texts that end an answer, beside the template's."""


Reasoning = Literal["keep", "strip"]


class Answer(Spec):
    prompts: PromptSet
    """What is asked."""
    template: Template | None = None
    """Left open: the row's own template. Given where the published evaluation used another prompt
    than the training; what differs is then found and said."""
    engine: Engine = TransformersEngine()
    """What answers: the row's model by `transformers` or `vllm`, another behind an `endpoint`, or a
    control."""
    decoding: Decoding = Decoding()
    """How an answer's tokens are chosen, and how long it may be."""
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
        return self.engine.decodes if self.strip is None else self.strip

    @model_validator(mode="after")
    def _has_a_temperature(self) -> "Answer":
        if self.decoding.temperature is None and self.engine.uses_model:
            raise ValueError(
                "decoding.temperature: null is for endpoints: give the row's model one"
            )
        if self.decoding.min_p and not self.decoding.temperature:
            raise ValueError("decoding.min_p has no effect without a temperature above 0")
        if self.decoding.min_p and not self.engine.takes_min_p:
            raise ValueError(
                "OpenAI's own API takes no decoding.min_p: leave it out, or name a server of open "
                "models in eval.answer.engine.endpoint.base_url"
            )
        return self

    @property
    def is_sampled(self) -> bool:
        """Whether another sampling seed could give other outputs."""
        return self.engine.decodes and self.decoding.temperature != 0
