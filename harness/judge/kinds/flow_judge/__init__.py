"""Rubrics, by Flow-Judge's prompts."""

import difflib
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.answer.engine import EndpointEngine, Engine, LocalEngine, TransformersEngine
from harness.spec.base import Count, Sampling, Seed, Spec
from harness.spec.model_source import ModelSource
from harness.spec.template import Template

PRESETS = {
    f"response_{what}_{points}": scale
    for what in ("correctness", "faithfulness", "relevance")
    for points, scale in (("binary", (0, 1)), ("3point", (1, 3)), ("5point", (1, 5)))
}
"""Flow Judge's own rubrics, and the lowest and highest score of each."""


def _preset(value: str) -> str:
    if value.lower() not in PRESETS:
        near = difflib.get_close_matches(value.lower(), PRESETS, n=1)
        did_you_mean = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"there is no rubric of this name; {did_you_mean}known here: {', '.join(PRESETS)}; or "
            "write one of your own: name, criteria, scores, inputs"
        )
    return value.lower()


class RubricLine(Spec):
    score: int
    description: Annotated[str, Field(min_length=1)]


class Rubric(Spec):
    """What Flow Judge is asked: criteria, what each score means, and what it is shown."""

    name: str
    criteria: Annotated[str, Field(min_length=1)]
    scores: Annotated[list[RubricLine], Field(min_length=2)]
    inputs: list[str] = []
    """Names of the inputs that the judge is shown, such as query, context, reference_answer."""

    @model_validator(mode="after")
    def _distinct_scores(self) -> "Rubric":
        if len({line.score for line in self.scores}) < len(self.scores):
            raise ValueError("each score needs one description")
        return self


class RubricJudge(Spec):
    """Flow Judge: each output scored on a rubric, by a local model or a served one."""

    kind: Literal["flow_judge"] = "flow_judge"
    model: ModelSource | None = None
    """The judge model, for the engines transformers and vllm."""
    template: Template | None = None
    """Of the judge model; left open: the one that its tokenizer brings."""
    engine: Engine = TransformersEngine()
    rubric: Annotated[str, AfterValidator(_preset)] | Rubric
    """A name of the package's (`response_faithfulness_5point`), or a rubric of one's own."""
    fields: dict[str, str] = {}
    """Input's name -> field of the prompt set's records. Left open: `query` is the instruction with
    its input; any other input is the field of its own name."""
    sampling: Sampling = Sampling(temperature=0.1, top_p=0.95, max_tokens=1000)
    seed: Seed = 42
    asks: Count = 2
    on_model_change: Literal["flag", "stop"] = "flag"

    @property
    def scale(self) -> tuple[int, int]:
        """The rubric's lowest and highest score."""
        if isinstance(self.rubric, str):
            return PRESETS[self.rubric]
        scores = [line.score for line in self.rubric.scores]
        return min(scores), max(scores)

    @model_validator(mode="after")
    def _fits_together(self) -> "RubricJudge":
        if isinstance(self.engine, LocalEngine) != (self.model is not None):
            raise ValueError(
                "the engines transformers and vllm need the judge's model; the others take none"
            )
        if self.engine.kind in ("null", "reference"):
            raise ValueError("a judge needs an engine that answers: transformers, vllm or endpoint")
        if isinstance(self.engine, EndpointEngine) and self.engine.api != "chat":
            raise ValueError("a served judge is asked by chat: leave out api: completion")
        return self


TOKENS_PER_FEEDBACK = 200


RUBRIC_CHARACTERS = 3000
