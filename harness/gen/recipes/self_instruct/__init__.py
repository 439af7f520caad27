"""Self-Instruct's four steps."""

from math import ceil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data.dataset import DatasetExample
from harness.errors import InputError
from harness.gen.filters import InstructionFilter
from harness.gen.recipe import RecipeResult, ReplySource, Seeded, Taught
from harness.gen.seeds import SeedTask, check_count
from harness.llm.estimate import (
    TOKENS_PER_INSTRUCTION,
    TOKENS_PER_TASK,
    Estimate,
    count_records,
    count_tokens,
    estimate_calls,
)
from harness.spec.base import (
    Count,
    Data,
    Endpoint,
    Sampling,
    Seed,
    Spec,
    TextFile,
    if_set,
    with_fields,
)
from harness.spec.twin import EXAMPLES, simulated, smoke_data

Api = Literal["chat", "completion"]


class Instructions(Spec):
    """Self-Instruct's first step: new instructions from examples of old ones."""

    count: Count | None = None
    """Machine-made instructions to reach; the last round's are all kept. Or give gen.examples."""
    prompt: Annotated[TextFile, with_fields("examples", "next")]
    """Template with {examples} (a numbered list) and {next} (the number that comes next)."""
    shown: Count = 8
    """Instructions in a prompt."""
    machine_shown: Annotated[int, Field(ge=0)] = 2
    """At most so many of them machine-made; the rest are seeds."""
    requests_per_round: Count = 5
    """Requests that are out at a time; their replies are taken in order."""
    max_requests: Count | None = None
    """Where to stop when too few replies hold anything new; left open: 20 + 4 times the ideal."""
    filter: InstructionFilter = InstructionFilter()
    """Which of the new instructions are dropped."""
    sampling: Sampling = Sampling(
        temperature=0.7,
        top_p=0.5,
        max_tokens=1024,
        frequency_penalty=0.0,
        presence_penalty=2.0,
        stop=["\n\n", "\n16", "16.", "16 ."],
    )
    """Decoding parameters of the teacher's replies."""
    seed: Seed = 42
    """Of the draw of the instructions that a prompt shows."""


class OwnTeacher(Spec):
    """Of a step that may have another teacher than the recipe."""

    teacher: Endpoint | None = if_set(None)
    """null: the recipe's."""
    api: Api | None = if_set(None)
    """How this step's teacher is asked; null: as the recipe's `api` says."""


class Classification(OwnTeacher):
    """Self-Instruct's second step: is a task a classification task?"""

    prompt: Annotated[TextFile, with_fields("instruction")]
    """Template with {instruction}; the reply says whether it is a classification task."""
    sampling: Sampling = Sampling(temperature=0.0, top_p=0.0, max_tokens=3, stop=["\n", "Task"])
    """Decoding parameters of the teacher's replies."""


class Instances(OwnTeacher):
    """Self-Instruct's third step: inputs and outputs for each instruction.

    Classification tasks are asked for their labels first, so that these are not all the same.
    """

    output_first: Annotated[TextFile, with_fields("instruction")]
    """For classification tasks."""
    input_first: Annotated[TextFile, with_fields("instruction")]
    """For all others."""
    batch: Count = 5
    """Tasks in file order that share a limit: upstream's requests held several prompts."""
    max_tokens: Count | None = 350
    """null: no limit is sent."""
    max_tokens_classification: Count | None = 300
    """For each task of a batch that holds a classification task."""
    sampling: Sampling = Sampling(
        temperature=0.0, top_p=0.0, presence_penalty=1.5, stop=["Example 6", "Task:"]
    )
    """Decoding parameters of the teacher's replies."""
    tasks: Literal["all", "classification", "generation"] = "all"
    """Which of the instructions are given instances."""


class Encodings(Spec):
    """Prompt forms, one of which is drawn for each example; they are written to prompts.jsonl."""

    with_input: Annotated[
        list[Annotated[TextFile, with_fields("instruction", "input")]], Field(min_length=1)
    ]
    """Templates with {instruction} and {input}, for examples that have an input."""
    without_input: Annotated[
        list[Annotated[TextFile, with_fields("instruction")]], Field(min_length=1)
    ]
    """Templates with {instruction}, for examples without one."""


class Prepare(Spec):
    """Self-Instruct's fourth step: replies taken apart, filtered, sampled, shuffled."""

    max_instances: Count = 5
    """Instances kept of one task, drawn from those that passed the filters."""
    encodings: Encodings | None = None
    """Prompt forms; left open: none are written."""
    seed: Seed = 123
    """Of the draws and of the order of the data set."""


INSTRUCTIONS_PER_REPLY = 8
"""Of Self-Instruct's requests, before its filters."""
SMOKE_SEEDS = 20
"""Of specs/smoke/seeds.jsonl, each with one example."""
KEPT_SHARE = 0.5
"""Of new instructions, after the filters."""


class SelfInstructGen(Seeded, Taught):
    """Self-Instruct's four steps (arXiv 2212.10560); defaults from self-instruct 0b26ccaa, but the
    teacher and the wording of the prompts."""

    code_version: ClassVar[int] = 2
    recipe: Literal["self_instruct"] = "self_instruct"
    api: Api = "chat"
    """How the teacher is asked: chat completions, or text completions as upstream."""
    seeds: Data
    """Seed tasks in Self-Instruct's JSONL format."""
    classification_seeds_only: bool = False
    """Only classification tasks among the seeds are shown, and compared with."""
    instructions: Instructions
    """The first step."""
    classification: Classification
    """The second step."""
    instances: Instances
    """The third step."""
    prepare: Prepare = Prepare()
    """The fourth step."""
    include_seeds: bool = True
    """Whether the seed tasks themselves stand in the data set."""
    examples: Count | None = if_set(None)
    """Examples of the data set to reach, those of the seeds counted where they stand in it, in place of
    instructions.count: new instructions are asked for until their instances are enough; of the last
    ones those that are too many are left out."""

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if (self.instructions.count is None) == (self.examples is None):
            raise ValueError(
                "give either instructions.count or examples, and null for one that is inherited"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_each_model(self) -> Self:
        endpoints = self.reply_source.endpoints
        names = [(e.model, e.server, e.simulated) for e in endpoints]
        for endpoint, name in zip(endpoints, names, strict=True):
            if names.count(name) > 1:
                raise ValueError(
                    f"two steps ask {endpoint.model} at the same server with other settings (mode, "
                    "timeout_s, a slash at the end of base_url, ...): its calls are counted and priced "
                    "together, so give both the same"
                )
        return self

    @property
    def reply_source(self) -> ReplySource:
        others = [step.teacher for step in self._taught if step.teacher is not None]
        return super().reply_source._replace(others=tuple(others))

    @property
    def _taught(self) -> tuple[OwnTeacher, OwnTeacher]:
        """The steps that may have a teacher of their own."""
        return self.classification, self.instances

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        from harness.gen.recipes.self_instruct.recipe import make

        return make(call, self)

    def seed_tasks(self) -> list[SeedTask]:
        seeds = super().seed_tasks()
        which = "classification seeds" if self.classification_seeds_only else "seeds"
        count, candidates = self.instructions.shown, self.prompt_seeds(seeds)
        check_count("gen.instructions.shown", count, "instructions", candidates, which)
        if self.examples is not None and self.wanted(seeds) < 1:
            raise InputError(
                f"gen.examples: {self.examples} are no more than the seeds have by themselves",
                "It counts them, for they stand in the data set (include_seeds): give a larger number.",
            )
        return seeds

    def wanted(self, seeds: list[SeedTask]) -> int:
        """Machine-made examples to reach."""
        of_seeds = sum(len(list(seed.examples(self.recipe))) for seed in seeds)
        return (self.examples or 0) - of_seeds * self.include_seeds

    def prompt_seeds(self, seeds: list[SeedTask]) -> list[SeedTask]:
        """Those that are shown, and compared with."""
        if not self.classification_seeds_only:
            return seeds
        return [seed for seed in seeds if seed.is_classification]

    def estimate(self, files: Files, examples: int) -> Estimate:
        step = self.instructions
        seeds = count_records(self.seeds, files) if self.include_seeds else 0
        # About as many examples as instructions.
        count = step.count or max(1, (self.examples or 0) - seeds)
        rounds = ceil(count / (INSTRUCTIONS_PER_REPLY * KEPT_SHARE))
        listing = estimate_calls(
            rounds,
            count_tokens(step.prompt) + step.shown * TOKENS_PER_INSTRUCTION,
            INSTRUCTIONS_PER_REPLY * TOKENS_PER_INSTRUCTION,
        )
        kind = estimate_calls(
            count, count_tokens(self.classification.prompt) + TOKENS_PER_INSTRUCTION, 1
        )
        filled = estimate_calls(
            count,
            count_tokens(self.instances.input_first) + TOKENS_PER_INSTRUCTION,
            2 * TOKENS_PER_TASK,
            count + seeds,
        )
        if not self.reply_source.others:
            return listing + kind + filled
        return (
            listing.of(self.teacher)
            + kind.of(self.classification.teacher or self.teacher)
            + filled.of(self.instances.teacher or self.teacher)
        )

    def twin(self, smoke: Path) -> Self:
        changes: dict[str, Any] = {
            name: step.model_copy(update={"teacher": simulated(step.teacher)})
            for name, step in zip(("classification", "instances"), self._taught, strict=True)
            if step.teacher is not None
        }
        if self.instructions.count is not None:
            count = min(self.instructions.count, EXAMPLES)
            changes["instructions"] = self.instructions.model_copy(update={"count": count})
        else:
            # Enough for the small seeds too, which are fewer than a study's.
            changes["examples"] = SMOKE_SEEDS * self.include_seeds + EXAMPLES
        small = super().twin(smoke).model_copy(update=changes)
        if not self.classification_seeds_only:
            return small
        seeds = smoke_data(smoke / "twin" / "classification_seeds.jsonl")
        return small.model_copy(update={"seeds": seeds})
