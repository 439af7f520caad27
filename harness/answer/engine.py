"""What answers: what every engine says of itself. The kinds stand in harness.answer.engines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from harness.artefact.call import Account, StageCall
from harness.artefact.keys import Files
from harness.artefact.needs import Needs
from harness.errors import InputError
from harness.llm.estimate import Estimate
from harness.spec.base import NOT_KEY, DataPath, Spec
from harness.spec.model_source import ModelSource
from harness.spec.prompts import OutputFiles
from harness.spec.train import Quantization, Train

if TYPE_CHECKING:
    from harness.answer.answer import Answer
    from harness.answer.outputs import Output
    from harness.answer.prompts import Prompt

NO_ANSWER = "no_answer"
"""The count, and the finding, of replies without any text; an empty text is an answer."""
QUANTIZATION = "quantization"
"""Of a stage's parameters: how it quantises the base of an adapter that QLoRA trained."""


BaseWeights = Annotated[
    Literal["as_trained", "none"],
    # What it comes to is a parameter of the stage, and in its key, where QLoRA trained an adapter.
    Field(json_schema_extra=NOT_KEY),
]


@dataclass
class Answered(Account):
    """What an engine gives back: an output for each prompt, and what is to be said beside them."""

    outputs: "list[Output]"
    without_text: set[int] | None = None
    """Of a server's replies, those that hold no text at all; their outputs are empty."""


@dataclass(frozen=True)
class AnswerTask:
    """What an engine has to answer, and by what."""

    call: StageCall
    params: "Answer"
    prompts: "Sequence[Prompt]"
    """Distinct ones."""
    source: ModelSource | None
    """The row's model."""

    @property
    def model(self) -> ModelSource:
        """Raises InputError for an engine of the row's model, where the row has none."""
        if self.source is None:
            raise InputError(
                "the row has no model that could answer",
                "Name one in the spec (model), or an engine that needs none (endpoint).",
            )
        return self.source


class BaseEngine(Spec):
    """What all engines have in common, with what holds of most of them."""

    code_version: ClassVar[int]
    """Raised whenever its code comes to make other answers from the same call."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Whose versions can move its answers."""
    uses_model: ClassVar[bool] = False
    """Whether the row's model answers."""
    decodes: ClassVar[bool] = True
    """Whether anything is decoded: the outputs of a control depend on no setting of it."""
    model_field: ClassVar[str] = ""
    """The field that names the model, of an engine that brings another than the row's."""
    kind: str

    @property
    def uses_template(self) -> bool:
        """Whether the row's template makes the prompts."""
        return self.uses_model

    @property
    def takes_min_p(self) -> bool:
        """Whether it can leave out tokens by their share of the likeliest one's probability."""
        return True

    @property
    def constant(self) -> str | None:
        """The answer to every prompt, of an engine that has no other."""
        return None

    @property
    def given_outputs(self) -> DataPath | OutputFiles | None:
        """The file whose outputs stand for a model's."""
        return None

    @property
    def dtype(self) -> str:
        """What the model calculates in."""
        return "float32"

    @property
    def longest_text(self) -> int | None:
        """Tokens of a prompt with its answer that the engine takes at most, whatever the model does."""
        return None

    def needs(self) -> Needs:
        return Needs()

    def estimate(self, answer: "Answer", files: Files) -> Estimate:
        """The calls that it will take to answer, and their tokens; none where no endpoint is called."""
        return Estimate()

    def check(self, prompts: "Sequence[Prompt]") -> None:
        """Raises InputError where it could not answer these."""

    def check_model(self, source: ModelSource | None, train: Train | None, where: str) -> None:
        """Raises InputError where it cannot take this model, or what a training of it leaves. `where`:
        the beginning of its message."""

    def advice(self, quantization: Quantization | None) -> str:
        """What would answer sooner on a GPU; empty where nothing would. `quantization`: of the base."""
        return ""

    def twin(self, smoke: Path) -> "BaseEngine":
        """What stands for it at --scale tiny; `smoke`: the folder specs/smoke."""
        return self

    def replaced(self) -> Iterator[str]:
        """What the twin has in place of what, in words."""
        yield from ()

    def answer(self, task: AnswerTask) -> Answered:
        """An output for each of the prompts. Raises as harness.answer.run.run."""
        raise NotImplementedError


def vllm_cannot(quantization: Quantization) -> str:
    """Why vLLM cannot quantise a base so; empty where it can."""
    if quantization.type == "nf4" and quantization.double:
        return ""
    return "vLLM quantises to nf4 with double quantisation alone"
