"""What a row says. Every default stands here, where it can be seen, and is part of the row's keys.

The recipes of the gen stage are in harness.spec.recipes, what all share in harness.spec.base.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.spec.base import (
    HUB_ID,
    REVISION,
    Data,
    Endpoint,
    Name,
    Sampling,
    Seed,
    Spec,
    TextFile,
    with_fields,
)
from harness.spec.recipes import MAKERS, Gen
from harness.spec.template import Template
from harness.spec.train import Train


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise ValueError(f"a configuration holds what JSON can hold: {e}") from None
    return value


class RandomModel(Spec):
    """A model with random weights: real architecture, no training. Marked in manifests and tables."""

    config: Annotated[dict[str, Any], AfterValidator(_as_json)]
    """A transformers configuration with `model_type`, as in config.json."""
    tokenizer: Literal["bytes"] | Data = "bytes"
    """`bytes`: one token a byte, made on the spot; or a folder that holds a tokenizer."""
    seed: Seed = 0


class HubModel(Spec):
    id: Annotated[str, Field(pattern=HUB_ID)]
    revision: Annotated[str, Field(pattern=REVISION)]
    """The full commit hash; a branch name would let the row change under its key."""


class ModelSource(Spec):
    """Where the base model comes from: exactly one of these."""

    random: RandomModel | None = None
    path: Data | None = None
    """A local folder with config.json, safetensors weights and a tokenizer."""
    hub: HubModel | None = None
    trust_remote_code: bool = False
    """Run the Python code that stands beside the weights. Shows as a deviation."""

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSource":
        if sum(s is not None for s in (self.random, self.path, self.hub)) != 1:
            raise ValueError("give exactly one of random, path, hub")
        return self


class PromptSet(Spec):
    """Instructions to answer: a JSON list or JSONL with `instruction` and, where there, `input`."""

    file: Data
    first: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many."""


class Decoding(Spec):
    max_new_tokens: Annotated[int, Field(ge=1)] = 2048
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0: greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed = 42


class Answer(Spec):
    prompts: PromptSet
    template: Template | None = None
    """Left open: the row's own template."""
    decoding: Decoding = Decoding()
    batch_size: Annotated[int, Field(ge=1)] = 16
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Annotated[int, Field(ge=1)] | None = None


class PreferenceJudge(Spec):
    """The harness's own pairwise judge: one call a prompt, the order of the two outputs drawn per
    instruction, win rate and standard error as AlpacaEval defines them."""

    kind: Literal["preference"] = "preference"
    judge: Endpoint
    prompt: Annotated[TextFile, with_fields("instruction", "output_a", "output_b")]
    """Template with {instruction}, {output_a} and {output_b}; the reply must start with `a` or `b`,
    or `tie`."""
    reference: Data
    """The baseline's outputs, in alpaca_eval's format, one for each instruction."""
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=50)


class AlpacaEvalJudge(Spec):
    """The alpaca-eval package itself, its calls passing through the harness's recorder."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    judge: Endpoint
    annotator: str = "chatgpt"
    """One of the package's annotator configurations."""
    reference: Data
    metric: Literal["get_winrate"] = "get_winrate"


Judge = Annotated[PreferenceJudge | AlpacaEvalJudge, Field(discriminator="kind")]


class Eval(Spec):
    answer: Answer
    judge: Judge | None = None


class Source(Spec):
    """Where the published number stands."""

    document: str
    table: str | None = None
    line: Annotated[int, Field(ge=1)] | None = None
    url: str | None = None


class Reported(Spec):
    """A published metric. Counts are of prompts."""

    value: float
    standard_error: Annotated[float, Field(ge=0)] | None = None
    judged: Annotated[int, Field(ge=0)] | None = None
    expected: Annotated[int, Field(ge=1)] | None = None


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed given twice makes the same replicate twice")
    return seeds


class Replicates(Spec):
    """The same row again. Every combination of these is run."""

    train_seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)] | None = None
    sampling_seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)] | None = (
        None
    )
    judge: Annotated[int, Field(ge=1)] = 1


class Budget(Spec):
    """Stops a stage, cleanly and before the limit is passed. The same command with more goes on.

    Each stage (and each step of a chain in gen) has the whole of it."""

    calls: Annotated[int, Field(ge=0)] | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None
    usd: Annotated[float, Field(ge=0)] | None = None
    """US dollars, at the prices in specs/prices.yaml."""


class Limits(Spec):
    """What a stage's container may use."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    memory: Annotated[str, Field(pattern="^[0-9]+[kmg]$")] | None = None
    """For example 8g."""
    shm: Annotated[str, Field(pattern="^[0-9]+[kmg]$")] = "1g"
    pids: Annotated[int, Field(ge=16)] = 4096


def _steps(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Chain = Annotated[
    list[Gen],
    Field(min_length=1),
    BeforeValidator(_steps, json_schema_input_type=Gen | list[Gen]),
]


def _check_chain(steps: list[Gen]) -> None:
    """The first step makes examples, every later one works on them."""
    for number, step in enumerate(steps):
        if number == 0 and not isinstance(step, MAKERS):
            raise ValueError(
                f"gen: {step.recipe} works on a data set: put a step that makes one before it, "
                "such as {recipe: import, file: ...}"
            )
        if number > 0 and isinstance(step, MAKERS):
            raise ValueError(
                f"gen: {step.recipe} makes a data set of its own, so it can only be the first step"
            )


class Row(Spec):
    """One line of a results table."""

    row: Name
    """The row's id, unique among all specs."""
    table: Name
    title: str
    varied: dict[str, str | int | float | bool] = {}
    """What sets this row apart from the others of its table."""
    source: Source | None = None
    reported: dict[str, Reported] = {}
    model: ModelSource | None = None
    """The base model. A row that only makes data can do without it."""
    template: Template | None = None
    gen: Chain | None = None
    """One recipe, or a chain of them: each works on what the one before it made."""
    data: Data | None = None
    """A given data set in place of gen: JSON or JSONL with instruction, input, output."""
    train: Train | None = None
    eval: Eval | None = None
    replicates: Replicates = Replicates()
    budget: Budget = Budget()
    limits: Limits = Limits()
    deviations: list[str] = []
    """Stated differences between the published set-up and this one."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Row":
        if self.gen is not None and self.data is not None:
            raise ValueError("give either gen or data, not both")
        _check_chain(self.gen or [])
        if self.model is None and (self.train or self.eval):
            raise ValueError("model is missing: train and eval need one")
        if self.template is None and (
            self.train or (self.eval and self.eval.answer.template is None)
        ):
            raise ValueError("template is missing: train and eval need one")
        if self.train is not None and self.gen is None and self.data is None:
            raise ValueError("train needs a data set: give gen or data")
        if self.replicates.train_seeds and self.train is None:
            raise ValueError("replicates.train_seeds needs train")
        if (self.replicates.sampling_seeds or self.replicates.judge > 1) and self.eval is None:
            raise ValueError("these replicates need eval")
        if (
            self.replicates.sampling_seeds
            and self.eval
            and not self.eval.answer.decoding.temperature
        ):
            raise ValueError(
                "replicates.sampling_seeds needs a temperature over 0: greedy answers are all the same"
            )
        return self
