"""What a judge is: the base class of all kinds, that of those that ask a model, and what they need.

A kind's class owns all that is known of it; what is heavy it imports in its methods.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from harness.answer.engine import BaseEngine, BaseWeights
from harness.artefact.call import StageCall, StageResult
from harness.artefact.keys import Files
from harness.artefact.needs import Needs
from harness.errors import blamed
from harness.llm.estimate import Estimate, estimate_prompts, text_lengths
from harness.spec.base import NOT_KEY, Count, Data, DataPath, Endpoint, Spec, SpecFile
from harness.spec.prompts import OutputFiles, PromptSet
from harness.spec.template import Template
from harness.spec.twin import simulated, smoke_data

if TYPE_CHECKING:
    from harness.answer.prompts import Prompt

ANSWER_CHARACTERS = 1200
"""Of an answer that is not there to be counted."""
ERROR_RATE = 0.2
"""Share of a twin's judgements that are turned round: a tiny model's answers lose every right one."""


class RowOutputs(Spec):
    """Another row's outputs: those of its first replicate."""

    spec: Annotated[SpecFile, Field(json_schema_extra=NOT_KEY)]
    """The other row's file. Its outputs' key, not its name, is in the key."""


def _without_nulls(value: Any) -> Any:
    """A part that an extended file gives, and that goes with null, is not there."""
    is_mapping = isinstance(value, dict)
    return {n: v for n, v in value.items() if v is not None} if is_mapping else value


Reference = Annotated[
    Data | RowOutputs | OutputFiles,
    BeforeValidator(_without_nulls, json_schema_input_type=Data | RowOutputs | OutputFiles),
]
"""A baseline's outputs: a file in alpaca_eval's format, one for each instruction; another row's; or
files that have a column of them beside the prompts."""


class BaseJudge(Spec):
    """A kind of judge. Its configuration is its behaviour."""

    code_version: ClassVar[int]
    """Raised whenever its code comes to make other content from the same call."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Those whose version can move its results."""
    judges_outputs: ClassVar[bool] = True
    """Whether it judges a model's outputs, and not the model itself."""
    gives_losses: ClassVar[bool] = False
    """Whether its metrics are the losses that a training gives too; the row's are then the judge's."""
    uses_template: ClassVar[bool] = False
    """Whether it asks the row's model by its own field `template`, or where that is open the row's."""
    reads_turns: ClassVar[bool] = False
    """Whether it judges the answers to questions of several turns."""
    identity: ClassVar[tuple[str, ...]] = ()
    """Fields that, beside the kind, say who judges."""
    shows_kind: ClassVar[bool] = True
    """Whether who judges is called by the kind too."""
    if TYPE_CHECKING:
        kind: str

    @property
    def measure(self) -> str:
        """What rows must share to be compared at all."""
        return self.kind

    @property
    def baseline(self) -> Reference | None:
        """What outputs are compared with."""
        return None

    @property
    def baseline_row(self) -> str | None:
        """The spec of the row whose outputs are the baseline; None where that is a file, or nothing."""
        return None

    @property
    def base_weights(self) -> str:
        """How the base of a QLoRA row's adapter is read, by a judge of the model itself."""
        return "as_trained"

    @property
    def dtype(self) -> str:
        """What the judged model calculates in, of a judge of the model itself."""
        return ""

    def prompts(self, answered: PromptSet | None) -> PromptSet | None:
        """The prompt set that it reads; `answered`: the one whose outputs it judges."""
        return answered

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        """The names of what it gives; `prompts`: those that it reads. NAME/SET is that of one of
        several sets."""
        raise NotImplementedError

    def may_give(self, metric: str) -> bool:
        """Whether it may give a metric that `metrics` does not name, for only a run shows its names."""
        return False

    def range_of(self, metric: str) -> tuple[int, int] | None:
        """The lowest and the highest that a score of points can be, where the table of metrics
        (harness.artefact.metrics) leaves it open."""
        return None

    def deviations(self) -> list[str]:
        """What its settings alone say of how far it is from the published set-up."""
        return []

    def template_of(self, row_template: Template | None) -> Template | None:
        """The template that it asks the row's model by."""
        return None

    def filled(self, row_template: Template | None) -> Self:
        """With the row's template where it leaves its own open and reads one."""
        return self

    def shows_model_first(self, instruction: str, replicate: int) -> bool | None:
        """Whether the model's output was shown first, where annotations do not say so; None: they do,
        or nothing is shown beside it."""
        return None

    @property
    def asked_engine(self) -> BaseEngine | None:
        """What answers for the judge's own model, of a judge that asks an engine."""
        return None

    def needs(self) -> Needs:
        return Needs()

    def estimate(
        self, prompts: PromptSet | None, files: Files, answer: int | None = None
    ) -> Estimate:
        """Calls and tokens, roughly; none where recorded calls or a judge model answer. `answer`:
        characters of one, where the answers are there."""
        return Estimate()

    def check_settings(self) -> None:
        """Raises InputError for what its settings alone show to be impossible."""

    def check(self, prompts: "Sequence[Prompt]", snapshots: Mapping[str, str]) -> None:
        """Look at what is here of what it reads.

        `prompts`: empty where they are not here. `snapshots`: input's name -> the folder of what it
        reads from the hub, where that is here.

        Raises:
            InputError: the stage could only fail.
        """

    def twin_prompts(self, smoke: Path) -> PromptSet | None:
        """The prompts that its twin judges the answers to; None: as of any row."""
        return None

    def twin(self, smoke: Path) -> Self:
        """Its scaled-down form, of the files of specs/smoke."""
        raise NotImplementedError

    def replaced_in_twin(self) -> Iterator[str]:
        """In words, what that replaces."""
        raise NotImplementedError

    def run(self, call: StageCall) -> StageResult:
        """Judge, in the call's work folder.

        Raises:
            InputError: outputs and baseline do not fit the prompts, or the judge cannot be asked.
            HarnessError: a call failed for good, or no judgement could be read.
        """
        raise NotImplementedError


class AskingJudge(BaseJudge):
    """What judges that ask a model behind an endpoint have in common."""

    identity: ClassVar[tuple[str, ...]] = ("judge",)
    calls_per_prompt: ClassVar[int] = 1
    tokens_per_call: ClassVar[int]
    """Of a reply."""
    judge: Endpoint
    """The model that judges."""
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the judge, which is not called."""
    asks: Count = 2
    """How often a prompt is asked at most while no reply to it can be read."""
    on_model_change: Literal["flag", "stop"] = "flag"
    """What to do when the server answers with another model than before."""

    def needs(self) -> Needs:
        return Needs.asking((self.judge,), self.transcript)

    def fixed_characters(self) -> int:
        """Of a prompt of the judge's, without what differs between prompts."""
        raise NotImplementedError

    def characters(self, lengths: Sequence[int], files: Files, answer: int | None) -> int:
        """Of the judge's prompts about prompts of these lengths, one each. `answer`: as `estimate`."""
        return with_answers(lengths, self.fixed_characters(), answer)

    def estimate(
        self, prompts: PromptSet | None, files: Files, answer: int | None = None
    ) -> Estimate:
        if prompts is None or self.transcript is not None:
            return Estimate()
        characters = partial(self.characters, files=files, answer=answer)
        times = self.calls_per_prompt
        return estimate_prompts(prompts, files, self.tokens_per_call, characters, times)

    def twin(self, smoke: Path) -> Self:
        update = {"judge": simulated(self.judge, ERROR_RATE), "transcript": None}
        return self.model_copy(update=update)

    def replaced_in_twin(self) -> Iterator[str]:
        if self.judge.simulated is None:
            yield f"a simulated judge for {self.judge.model}"


class PairwiseJudge(AskingJudge):
    """What judges that ask a model which of two outputs is better have in common."""

    if TYPE_CHECKING:
        reference: Reference

    @property
    def measure(self) -> str:
        return "win_rate"

    @property
    def baseline(self) -> Reference:
        return self.reference

    @property
    def baseline_row(self) -> str | None:
        return self.reference.spec if isinstance(self.reference, RowOutputs) else None

    @property
    def baseline_file(self) -> DataPath | OutputFiles | None:
        return None if isinstance(self.reference, RowOutputs) else self.reference

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        return with_sets(["win_rate"], prompts)

    def characters(self, lengths: Sequence[int], files: Files, answer: int | None) -> int:
        file = self.baseline_file
        if file is None:
            answers = with_answers(lengths)
        else:
            of_files = file.files.values() if isinstance(file, OutputFiles) else [file]
            texts = [n for data in of_files for n in text_lengths(files.locate(data))]
            answers = sum(texts[: len(lengths)])
        # Answers that are not there are taken to be as long as the baseline's.
        ours = answers if answer is None else len(lengths) * answer
        return len(lengths) * self.fixed_characters() + answers + ours

    def check(self, prompts: "Sequence[Prompt]", snapshots: Mapping[str, str]) -> None:
        from harness.judge.pairs import check_baselines

        if self.baseline_file is not None and prompts:
            with blamed("reference"):
                check_baselines(self.baseline_file, prompts)

    def twin(self, smoke: Path) -> Self:
        is_file = self.baseline_file is not None
        baseline = smoke_data(smoke / "prompts.jsonl") if is_file else self.reference
        return super().twin(smoke).model_copy(update={"reference": baseline})

    def replaced_in_twin(self) -> Iterator[str]:
        yield from super().replaced_in_twin()
        yield from self._replaced_beside()
        if self.baseline_file is not None:
            yield "specs/smoke's outputs as the baseline"

    def _replaced_beside(self) -> Iterator[str]:
        yield from ()


class ModelJudge(BaseJudge):
    """What judges of the model itself have in common."""

    judges_outputs = False
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    few: ClassVar[str]
    """What of its data a twin has, in words."""
    if TYPE_CHECKING:
        precision: Literal["float32", "bfloat16"]
        quantization: BaseWeights

    @property
    def base_weights(self) -> str:
        return self.quantization

    @property
    def dtype(self) -> str:
        return self.precision

    def needs(self) -> Needs:
        return Needs(gpus=1)

    def twin(self, smoke: Path) -> Self:
        return self.model_copy(update={"precision": "float32", "threads": 1})

    def replaced_in_twin(self) -> Iterator[str]:
        yield self.few
        if self.precision != "float32":
            yield f"judging in float32 for {self.precision}"


def prompts_of(call: StageCall) -> PromptSet:
    """Those whose outputs the stage judges."""
    return PromptSet.model_validate(call.params["prompts"])


def replicate_of(call: StageCall) -> int:
    return int(call.params.get("replicate", 0))


def with_answers(lengths: Sequence[int], fixed: int = 0, answer: int | None = None) -> int:
    """Characters of prompts of these lengths, each with an answer and with `fixed` more."""
    return sum(lengths) + len(lengths) * (fixed + (ANSWER_CHARACTERS if answer is None else answer))


def with_sets(names: list[str], prompts: PromptSet | None) -> list[str]:
    """The names, and those of each of several prompt sets."""
    sets = (prompts.files if prompts else None) or {}
    return [*names, *(f"{name}/{part}" for part in sets for name in names)]
