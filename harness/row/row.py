"""What a row says. Every default stands here, where it can be seen, and is part of the row's keys.

The parts have modules of their own: recipes (gen), train, answer, judges, template, model_source; and
base for what all share.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.answer.answer import Answer
from harness.gen.recipes.union import Gen
from harness.judge.kinds.union import Judge
from harness.row.reported import LARGEST, ReportedNumbers
from harness.row.settings import STUDIED, check_studied
from harness.row.sources import Valued, in_use, noted, settings_of
from harness.spec.base import NO_KEY, NOT_KEY, Data, Name, Seed, Spec
from harness.spec.model_source import ModelSource
from harness.spec.provenance import Provenance
from harness.spec.template import Template
from harness.spec.train import Train


class Eval(Spec):
    """How the row's model is scored: by its answers to prompts, or (lm_eval, held_out_loss) itself."""

    answer: Answer | None = None
    """The prompts, and what answers them."""
    judge: Judge | None = None
    """What scores the answers, or the model itself."""
    checkpoint: Annotated[int, Field(ge=1)] | None = None
    """The step whose weights are scored, one of train.keep; left open: the last."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Eval":
        if self.answer is None and (self.judge is None or self.judge.judges_outputs):
            raise ValueError("answer is missing: this judge reads the model's answers to prompts")
        if self.answer is not None and self.judge is not None and not self.judge.judges_outputs:
            raise ValueError(
                f"a judge of kind {self.judge.kind} scores the model itself: leave answer out, or "
                "write a row of its own (both rows share the trained model)"
            )
        return self


class Source(Spec):
    """Where the published number stands."""

    document: str
    """The publication's name."""
    table: str | None = None
    """Which of its tables."""
    line: Annotated[int, Field(ge=1)] | None = None
    """Which line of the table, from 1; tables here have their rows in this order."""
    url: str | None = None
    """Where the document can be read."""


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed given twice makes the same replicate twice")
    return seeds


class Replicates(Spec):
    """The same row again. Every combination of these is run."""

    train_seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)] | None = None
    """A training for each seed, in place of train.seed."""
    sampling_seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)] | None = (
        None
    )
    """Answers sampled once for each seed, in place of eval.answer.decoding.seed."""
    judge: Annotated[int, Field(ge=1)] = 1
    """How often the same answers are judged."""


class Budget(Spec):
    """Stops a stage, cleanly and before the limit is passed. The same command with more goes on.

    Each stage (and each step of a chain in gen) has the whole of it."""

    calls: Annotated[int, Field(ge=0)] | None = None
    """Requests to a teacher or judge."""
    tokens: Annotated[int, Field(ge=0)] | None = None
    """Of prompts and replies together."""
    usd: Annotated[float, Field(ge=0)] | None = None
    """US dollars, at the prices in specs/prices.yaml."""


_SHIFTS = {"k": 10, "m": 20, "g": 30}


class Limits(Spec):
    """What a stage may use: of GPUs anywhere, of all else in a container."""

    gpus: Annotated[int, Field(ge=1)] | None = None
    """A stage that works on more is refused; left open: as many as it works on."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """Of a container; left open: the stage's share of the machine."""
    memory: Annotated[str, Field(pattern="^[0-9]+[kmg]$")] | None = None
    """For example 8g."""
    shm: Annotated[str, Field(pattern="^[0-9]+[kmg]$")] = "1g"
    """Shared memory of a container (/dev/shm)."""
    pids: Annotated[int, Field(ge=16)] = 4096
    """Processes and threads of a container."""

    @property
    def memory_bytes(self) -> int | None:
        return int(self.memory[:-1]) << _SHIFTS[self.memory[-1]] if self.memory else None


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
        if number == 0 and not step.makes_examples:
            raise ValueError(
                f"gen: {step.recipe} works on a data set: put a step that makes one before it, "
                "such as {recipe: import, file: ...}"
            )
        if number > 0 and step.makes_examples:
            raise ValueError(
                f"gen: {step.recipe} makes a data set of its own, so it can only be the first step"
            )


def _null_as_a_word(value: Any) -> Any:
    """YAML reads `answers: null` as no value; here the word is meant."""
    if not isinstance(value, dict):
        return value
    return {name: "null" if entry is None else entry for name, entry in value.items()}


Stated = Literal["assumption", "deviation"]


def _part_of_a_spec(path: str) -> str:
    return check_studied(Row, STUDIED, path)


class Row(Spec):
    """One line of a results table."""

    row: Annotated[Name, NO_KEY]
    """The row's id, unique among all specs."""
    table: Annotated[Name, NO_KEY]
    """The results table that the row is a line of; rows of one table are compared."""
    title: Annotated[str, NO_KEY]
    """What a reader sees."""
    varied: Annotated[
        dict[
            Annotated[str, NO_KEY],
            Annotated[str, NO_KEY] | int | float | bool,
        ],
        BeforeValidator(_null_as_a_word),
    ] = {}
    """What sets this row apart from the others of its table."""
    studied: list[Annotated[str, AfterValidator(_part_of_a_spec)]] | None = None
    """Parts of the spec, as dotted paths (`train`, `eval.answer.template`), that the table's rows are
    meant to differ in. What differs beside them is marked as confounded. Left open: everything but
    eval."""
    scale: Literal["full", "tiny"] = "full"
    """`tiny`: the scaled-down twin that `--scale tiny` makes of a row. It decides no key."""
    source: Source | None = None
    """Where the published number stands."""
    sources: dict[Annotated[str, NO_KEY], Provenance] = {}
    """Dotted path of a setting, or the beginning of several (the longest counts), such as `train` and
    `train.steps` -> where its value comes from. It decides no key."""
    reported: ReportedNumbers = Field(default=ReportedNumbers(), json_schema_extra=NOT_KEY)
    """Metric -> what the study published of it; and judge, outputs, annotations: what that rests on."""
    margins: dict[str, Annotated[float, Field(gt=0, le=LARGEST)]] = {}
    """Metric -> the largest difference within which two numbers count as the same, in the metric's own
    units. Left open: 3 points for percentages; other metrics have none."""
    model: ModelSource | None = None
    """The base model. A row that only makes data can do without it."""
    template: Template | None = None
    """How an instruction becomes the text that the model sees: the name of a template, or its parts."""
    gen: Chain | None = None
    """One recipe, or a chain of them: each works on what the one before it made."""
    data: Data | None = None
    """A given data set in place of gen: JSON or JSONL with instruction, input, output."""
    train: Train | None = None
    """How the model is trained. Left open: the row scores the base model as it is."""
    eval: Eval | None = None
    """How the row is scored. Left open: it is trained, or makes data, alone."""
    replicates: Replicates = Replicates()
    """How often the row is trained, sampled and judged."""
    budget: Budget = Budget()
    """What a stage may spend at most."""
    limits: Limits = Limits()
    """What a stage may use of the machine."""
    deviations: list[str] = []
    """Stated differences between the published set-up and this one."""
    assumptions: list[str] = []
    """What the document leaves unsaid, and what stands for it here."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Row":
        if self.gen is not None and self.data is not None:
            raise ValueError("give either gen or data, not both")
        _check_chain(self.gen or [])
        needs = self._needing_model()
        if self.model is None and needs:
            raise ValueError(f"model is missing: {needs} needs one")
        needs = self._needing_template()
        if self.template is None and needs:
            raise ValueError(f"template is missing: {needs} needs one")
        if self.train is not None and self.gen is None and self.data is None:
            raise ValueError("train needs a data set: give gen or data")
        self._check_layout()
        self._check_checkpoint()
        if self.replicates.train_seeds and self.train is None:
            raise ValueError("replicates.train_seeds needs train")
        if self.replicates.sampling_seeds and not (self.answer and self.answer.is_sampled):
            raise ValueError(
                "replicates.sampling_seeds needs answers sampled at a temperature over 0: others are "
                "all the same"
            )
        if self.replicates.judge > 1 and not (self.judge and self.judge.judges_outputs):
            raise ValueError("replicates.judge needs a judge of outputs; others say the same again")
        return self

    @property
    def answer(self) -> Answer | None:
        return self.eval.answer if self.eval else None

    @property
    def judge(self) -> Judge | None:
        return self.eval.judge if self.eval else None

    @property
    def checkpoint(self) -> int | None:
        """The step whose weights are scored, where it is not the training's last."""
        step = self.eval.checkpoint if self.eval else None
        return None if self.train is None or step == self.train.steps else step

    def _check_checkpoint(self) -> None:
        step, train = self.eval.checkpoint if self.eval else None, self.train
        if step is None:
            return
        if train is None:
            raise ValueError("eval.checkpoint needs train, which keeps it (train.keep)")
        if self.answer is not None and not self.answer.engine.uses_model:
            raise ValueError(
                f"eval.checkpoint has no effect with the engine {self.answer.engine.kind}, which is "
                "not the row's model"
            )
        if self.checkpoint is not None and step not in train.keep:
            if train.steps is None:
                raise ValueError(
                    f"eval.checkpoint: the training keeps no step {step}: give train.steps, and the "
                    "step in train.keep"
                )
            if step > train.steps:
                raise ValueError(
                    f"eval.checkpoint: step {step} is beyond the training's last, {train.steps}"
                )
            steps = ", ".join(map(str, [*train.keep, train.steps]))
            raise ValueError(
                f"eval.checkpoint: the training keeps the weights of step {steps} and not of {step}: "
                "put it into train.keep, with which the model is trained anew"
            )

    def _check_layout(self) -> None:
        """Raises ValueError for data that the training's objective cannot read."""
        if self.train is None or self.gen is None:
            return
        has_pairs = any(step.makes_preferences for step in self.gen)
        if self.train.objective == "orpo" and not has_pairs:
            raise ValueError(
                "objective: orpo takes preference data, and gen makes none: "
                "gen: {recipe: import, kind: preference, ...}"
            )
        if has_pairs and self.train.objective != "orpo":
            raise ValueError(
                f"gen imports preference data, and objective: {self.train.objective} takes one "
                "answer each: import it as instruction data (columns.output), or train with "
                "objective: orpo"
            )

    def _needing_model(self) -> str:
        if self.train:
            return "train"
        answer, judge = self.answer, self.judge
        if answer is not None and answer.engine.uses_model:
            return f"eval.answer with the engine {answer.engine.kind}"
        if judge is not None and not judge.judges_outputs:
            return f"the judge {judge.kind}"
        by_text = answer is not None and answer.engine.uses_template
        template = (answer.template if answer is not None else None) or self.template
        is_tokenizers = by_text and template is not None and template.from_tokenizer
        return "the tokenizer of a text prompt" if is_tokenizers else ""

    def _needing_template(self) -> str:
        if self.train:
            return "train"
        answer, judge = self.answer, self.judge
        if answer is not None and answer.engine.uses_template and answer.template is None:
            return "eval.answer"
        if judge is not None and judge.uses_template and judge.template_of(None) is None:
            return f"the judge {judge.kind}"
        return ""

    def settings(self) -> list[Valued]:
        """All that decide what its stages make, each with its source where it has one."""
        return settings_of(self, self.sources)

    def stated(self, kind: Stated) -> list[str]:
        """Its assumptions, or deviations: its own, and those of its sources, named by setting."""
        sources = in_use(self.sources, self.settings()) if self.sources else {}
        return noted(sources, kind, getattr(self, f"{kind}s"))

    def metrics(self) -> list[str]:
        """The names of the row's metrics, which `reported` and `margins` may use; NAME/SET is that of
        one of several prompt sets."""
        judge = self.judge
        names = judge.metrics(self.answer.prompts if self.answer else None) if judge else []
        # A training's own losses are those of its last step.
        if self.train is not None and not (self.checkpoint or (judge and judge.gives_losses)):
            is_held_out = self.train.validation is not None
            names += [*["held_out_loss", "bits_per_byte"] * is_held_out, "train_loss"]
        return names
