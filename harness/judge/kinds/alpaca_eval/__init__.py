"""The alpaca_eval package's annotators."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from harness.artefact.call import StageCall, StageResult
from harness.artefact.needs import Needs
from harness.errors import blamed
from harness.judge.judge import PairwiseJudge, Reference
from harness.spec.base import Data, Spec
from harness.spec.hub import HubData
from harness.spec.prompts import PromptSet

if TYPE_CHECKING:
    from harness.answer.prompts import Prompt

ANNOTATOR_CHARACTERS = 1200
"""Of an annotator's prompt."""


class LengthControl(Spec):
    """What AlpacaEval's length-controlled win rate is computed with beside the annotations: each
    instruction's difficulty, and the annotations of gamed models that regularise the fit. Both stand
    in `df_gamed.csv` of the hub's data set tatsu-lab/alpaca_eval. Exactly one of folder, hub."""

    folder: Data | None = None
    """A local folder that has the file; or the file, which can be given by address."""
    hub: HubData | None = None
    """The data set on the hub, at a fixed revision."""

    @model_validator(mode="after")
    def _one_place(self) -> "LengthControl":
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give exactly one of folder, hub")
        return self


class AlpacaEvalJudge(PairwiseJudge):
    """The alpaca-eval package itself, its calls made by the harness's client."""

    code_version = 3
    packages = ("alpaca-eval",)
    identity = ("annotator", "judge")
    shows_kind = False
    tokens_per_call = 10
    kind: Literal["alpaca_eval"] = "alpaca_eval"
    annotator: str = "chatgpt"
    """One of the package's annotator configurations."""
    reference: Reference
    """The baseline's outputs, which the row's are compared with: a file, another row's, or files with a
    column of outputs."""
    length_control: LengthControl | None = None
    """Given: the length-controlled win rate beside the raw one. Defined for AlpacaEval's own 805
    instructions alone."""

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        length_controlled = ["length_controlled_win_rate"] if self.length_control else []
        return [*super().metrics(prompts), *length_controlled]

    def needs(self) -> Needs:
        hub = self.length_control.hub if self.length_control else None
        return replace(super().needs(), hub={"length_control": hub} if hub else {})

    def fixed_characters(self) -> int:
        return ANNOTATOR_CHARACTERS

    def shows_model_first(self, instruction: str, replicate: int) -> bool:
        from harness.judge.kinds.alpaca_eval.readings import shows_model_first

        return shows_model_first(self.annotator, instruction, replicate)

    def check_settings(self) -> None:
        from harness.judge.kinds.alpaca_eval.readings import check_annotator

        with blamed("annotator"):
            check_annotator(self.annotator)

    def check(self, prompts: "Sequence[Prompt]", snapshots: Mapping[str, str]) -> None:
        from harness.judge.kinds.alpaca_eval import length_control

        control = self.length_control
        if control is not None and prompts:
            folder = control.folder.path if control.folder else snapshots.get("length_control")
            if folder is not None:
                with blamed("length_control"):
                    length_control.check(Path(folder), [prompt.instruction for prompt in prompts])
        super().check(prompts, snapshots)

    def twin(self, smoke: Path) -> Self:
        # Defined for AlpacaEval's own 805 instructions alone.
        return super().twin(smoke).model_copy(update={"length_control": None})

    def _replaced_beside(self) -> Iterator[str]:
        if self.length_control is not None:
            yield "no length control"

    def run(self, call: StageCall) -> StageResult:
        from harness.judge.kinds.alpaca_eval.judge import run

        return run(call, self)
