"""What the judge stage is told: every way in which the studies scored their models."""

import difflib
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.spec.answer import (
    BaseWeights,
    Count,
    EndpointEngine,
    Engine,
    LocalEngine,
    PromptSet,
    TransformersEngine,
)
from harness.spec.base import (
    NOT_KEY,
    Data,
    Endpoint,
    Sampling,
    Seed,
    Spec,
    SpecFile,
    TextFile,
    with_fields,
)
from harness.spec.model_source import ModelSource
from harness.spec.recipes import HubData
from harness.spec.template import Template


class RowOutputs(Spec):
    """Another row's outputs: those of its first replicate."""

    spec: Annotated[SpecFile, Field(json_schema_extra=NOT_KEY)]
    """The other row's file. Its outputs' key, not its name, is in the key."""


Reference = Data | RowOutputs
"""A baseline's outputs in alpaca_eval's format, one for each instruction; or another row's."""


class AskingJudge(Spec):
    """What judges that ask a model have in common."""

    judge: Endpoint
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the judge, which is not called."""
    asks: Count = 2
    """How often a prompt is asked at most while no reply to it can be read."""
    on_model_change: Literal["flag", "stop"] = "flag"
    """What to do when the server answers with another model than before."""


class PreferenceJudge(AskingJudge):
    """The harness's own pairwise judge: one call a prompt, the order of the two outputs drawn per
    instruction, win rate and standard error as AlpacaEval defines them."""

    kind: Literal["preference"] = "preference"
    prompt: Annotated[TextFile, with_fields("instruction", "output_a", "output_b")]
    """Template with {instruction}, {output_a} and {output_b}; the reply must start with `a` or `b`,
    or `tie`."""
    reference: Reference
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=50)


class LengthControl(Spec):
    """What AlpacaEval's length-controlled win rate is computed with beside the annotations: each
    instruction's difficulty, and the annotations of gamed models that regularise the fit. Both stand
    in `df_gamed.csv` of the hub's data set tatsu-lab/alpaca_eval. Exactly one of folder, hub."""

    folder: Data | None = None
    """A local folder that has the file."""
    hub: HubData | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "LengthControl":
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give exactly one of folder, hub")
        return self


class AlpacaEvalJudge(AskingJudge):
    """The alpaca-eval package itself, its calls made by the harness's client."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    annotator: str = "chatgpt"
    """One of the package's annotator configurations."""
    reference: Reference
    length_control: LengthControl | None = None
    """Given: the length-controlled win rate beside the raw one. Defined for AlpacaEval's own 805
    instructions alone."""


class GradingJudge(AskingJudge):
    """AlpaGasus's pairwise grading: two responses scored 1 to 10, once in each order. Win, tie or
    lose is the sign of the sum of the two orders' verdicts (arXiv 2307.08701)."""

    kind: Literal["grading"] = "grading"
    system: TextFile
    """The system message."""
    prompt: Annotated[TextFile, with_fields("question", "answer_1", "answer_2")]
    """Template with {question}, {answer_1} and {answer_2}; the reply's first line must hold the two
    scores."""
    reference: Reference
    lowest: float = 1.0
    highest: float = 10.0
    """A score outside of these is none."""
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=256)

    @model_validator(mode="after")
    def _in_order(self) -> "GradingJudge":
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self


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


class TaskData(Spec):
    """Where a task's questions come from: exactly one of these."""

    folder: Data | None = None
    """A local folder of the data set's files, as on the hub."""
    hub: HubData | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "TaskData":
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give exactly one of folder, hub")
        return self


Task = Literal["arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2"]


class TasksJudge(Spec):
    """Open LLM Leaderboard's tasks by lm-eval, with the leaderboard's shots and metrics. It needs no
    outputs: the model itself is scored."""

    kind: Literal["lm_eval"] = "lm_eval"
    tasks: Annotated[dict[Task, TaskData], Field(min_length=1)]
    first: Count | None = None
    """Only the first so many questions of each task (of each subject of mmlu)."""
    batch_size: Count = 16
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count | None = None
    quantization: BaseWeights = "as_trained"
    """Of a QLoRA row's base, as eval.answer.quantization."""


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


OutputJudge = PreferenceJudge | AlpacaEvalJudge | GradingJudge | RubricJudge
"""Judges of outputs."""
ModelJudge = TasksJudge | LossJudge
"""Judges of a model itself."""
Judge = Annotated[OutputJudge | ModelJudge, Field(discriminator="kind")]
