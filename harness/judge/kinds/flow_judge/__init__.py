"""Rubrics, by Flow-Judge's prompts."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from harness.answer.engines.endpoint import EndpointEngine
from harness.answer.engines.transformers import TransformersEngine
from harness.answer.engines.union import Engine
from harness.artefact.call import StageCall, StageResult
from harness.artefact.keys import Files
from harness.artefact.needs import Needs
from harness.errors import blamed
from harness.judge.judge import ERROR_RATE, BaseJudge, with_answers, with_sets
from harness.llm.estimate import Estimate, estimate_prompts
from harness.spec.base import Count, Endpoint, Sampling, Seed, Spec, if_set
from harness.spec.model_source import ModelSource
from harness.spec.prompts import PromptSet
from harness.spec.template import Template
from harness.spec.twin import name_of, simulated

if TYPE_CHECKING:
    from harness.answer.prompts import Prompt

TOKENS_PER_FEEDBACK = 200
RUBRIC_CHARACTERS = 3000
INPUTS = {"correctness": ["query", "reference_answer"]}
OTHER_INPUTS = ["query", "context"]
"""What flow-judge's own rubrics show the judge, by the second word of their names."""
GROUNDS = "output"
"""The field of the smoke prompts that a twin's rubric is shown as context or reference answer."""

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
    """A score that the judge may give."""
    description: Annotated[str, Field(min_length=1)]
    """What it stands for."""


class Rubric(Spec):
    """What Flow Judge is asked: criteria, what each score means, and what it is shown."""

    name: str
    """What tables and reports call it."""
    criteria: Annotated[str, Field(min_length=1)]
    """The question that the score answers."""
    scores: Annotated[list[RubricLine], Field(min_length=2)]
    """What each score means, two at least."""
    inputs: list[str] = []
    """Names of the inputs that the judge is shown, such as query, context, reference_answer."""

    @model_validator(mode="after")
    def _distinct_scores(self) -> "Rubric":
        if len({line.score for line in self.scores}) < len(self.scores):
            raise ValueError("each score needs one description")
        return self


class RubricJudge(BaseJudge):
    """Flow Judge: each output scored on a rubric, by a local model or a served one."""

    code_version = 3
    identity = ("model", "rubric")
    kind: Literal["flow_judge"] = "flow_judge"
    model: ModelSource | None = None
    """The judge model, for the engines transformers and vllm."""
    template: Template | None = None
    """Of the judge model; left open: the one that its tokenizer brings."""
    engine: Engine = TransformersEngine()
    """What runs the judge model, as in eval.answer."""
    rubric: Annotated[str, AfterValidator(_preset)] | Rubric
    """A name of the package's (`response_faithfulness_5point`), or a rubric of one's own."""
    fields: dict[str, str] = {}
    """Input's name -> field of the prompt set's records. Left open: `query` is the instruction with
    its input; any other input is the field of its own name. Beside the columns there are instruction,
    input, system, output, and asked: of a conversation its last question alone."""
    empty: list[str] = if_set([])
    """Inputs of the rubric that the judge is shown without any text, as a study did it. What such a
    score measures is open: it is a finding of the row."""
    sampling: Sampling = Sampling(temperature=0.1, top_p=0.95, max_tokens=1000)
    """Decoding parameters of the judge's replies."""
    seed: Seed = 42
    """Of the judge's sampling."""
    asks: Count = 2
    """How often a prompt is asked at most while no reply to it can be read."""
    on_model_change: Literal["flag", "stop"] = "flag"
    """What to do when the server answers with another model than before."""

    @property
    def endpoint(self) -> EndpointEngine | None:
        """What serves the judge's model, where that is asked by chat."""
        return self.engine if isinstance(self.engine, EndpointEngine) else None

    @property
    def scale(self) -> tuple[int, int]:
        """The rubric's lowest and highest score."""
        if isinstance(self.rubric, str):
            return PRESETS[self.rubric]
        scores = [line.score for line in self.rubric.scores]
        return min(scores), max(scores)

    @model_validator(mode="after")
    def _fits_together(self) -> "RubricJudge":
        if self.engine.uses_model != (self.model is not None):
            raise ValueError(
                "the engines transformers and vllm need the judge's model; the others take none"
            )
        if not self.engine.decodes:
            raise ValueError("a judge needs an engine that answers: transformers, vllm or endpoint")
        if self.endpoint is not None and self.endpoint.api != "chat":
            raise ValueError("a served judge is asked by chat: leave out api: completion")
        return self

    def known_rubric(self) -> Rubric:
        """The rubric; of one of the package's only what it shows, as the package may not be here."""
        if isinstance(self.rubric, Rubric):
            return self.rubric
        inputs = INPUTS.get(self.rubric.split("_")[1], OTHER_INPUTS)
        lines = [RubricLine(score=score, description="the package's own") for score in self.scale]
        criteria = "the package's own"
        return Rubric(name=self.rubric, criteria=criteria, scores=lines, inputs=inputs)

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        return with_sets(["rubric_score"], prompts)

    def range_of(self, metric: str) -> tuple[int, int] | None:
        return self.scale if metric == "rubric_score" else None

    @property
    def asked_engine(self) -> Engine:
        return self.engine

    def needs(self) -> Needs:
        return replace(self.engine.needs(), model=self.model)

    def estimate(
        self, prompts: PromptSet | None, files: Files, answer: int | None = None
    ) -> Estimate:
        if prompts is None or not self.needs().endpoints:
            return Estimate()
        characters = partial(with_answers, fixed=RUBRIC_CHARACTERS, answer=answer)
        return estimate_prompts(prompts, files, TOKENS_PER_FEEDBACK, characters)

    def check_settings(self) -> None:
        with blamed("engine"):
            self.engine.check_model(self.model, None, "eval.judge.engine: ")

    def check(self, prompts: "Sequence[Prompt]", snapshots: Mapping[str, str]) -> None:
        from harness.judge.kinds.flow_judge.rubrics import inputs_for

        if prompts:
            with blamed("rubric"):
                inputs_for(self.known_rubric(), prompts, self.fields, self.empty)

    def twin(self, smoke: Path) -> Self:
        """A local judge model becomes a served one: a random one would give no score."""
        engine = self.endpoint or EndpointEngine(endpoint=Endpoint(model="judge"))
        served = simulated(engine.endpoint, ERROR_RATE)
        engine = engine.model_copy(update={"endpoint": served, "transcript": None})
        shown = [name for name in self.known_rubric().inputs if name not in ("query", *self.empty)]
        fields = dict.fromkeys(shown, GROUNDS)
        update = {"model": None, "template": None, "engine": engine, "fields": fields}
        return self.model_copy(update=update)

    def replaced_in_twin(self) -> Iterator[str]:
        if self.model is not None:
            name = name_of(self.model) or "the judge model"
            yield f"a simulated judge behind an endpoint for {name}"
        elif self.endpoint is not None and self.endpoint.endpoint.simulated is None:
            yield f"a simulated judge for {self.endpoint.endpoint.model}"
        if self.fields.keys() - {"query"}:
            yield "specs/smoke's outputs as what the rubric is shown"

    def run(self, call: StageCall) -> StageResult:
        from harness.judge.kinds.flow_judge.judge import run

        return run(call, self)
