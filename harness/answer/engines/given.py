"""Engines without a model: a constant, and given outputs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from harness.answer.engine import Answered, AnswerTask, BaseEngine
from harness.spec.base import DataPath
from harness.spec.prompts import GivenOutputs, OutputFiles
from harness.spec.twin import smoke_data

if TYPE_CHECKING:
    from harness.answer.prompts import Prompt


class NullEngine(BaseEngine):
    """A control: the same constant answer to every prompt."""

    code_version: ClassVar[int] = 2
    decodes: ClassVar[bool] = False
    kind: Literal["null"] = "null"
    output: str = ""
    """The answer."""

    @property
    def constant(self) -> str:
        return self.output

    def answer(self, task: AnswerTask) -> Answered:
        from harness.answer.outputs import Output

        return Answered(
            [Output(i, self.output, "stop", None, None) for i in range(len(task.prompts))],
            notes=["a control: the same constant answer to every prompt"],
        )


class ReferenceEngine(BaseEngine):
    """Given outputs in place of a model's: the baseline's own as a control, whose win rate must be
    50 %; or a published model_outputs.json, to be judged again."""

    code_version: ClassVar[int] = 2
    decodes: ClassVar[bool] = False
    kind: Literal["reference"] = "reference"
    outputs: GivenOutputs
    """In alpaca_eval's format, matched by instruction; or files with a column of outputs."""

    @property
    def given_outputs(self) -> DataPath | OutputFiles:
        return self.outputs

    def check(self, prompts: "Sequence[Prompt]") -> None:
        from harness.answer.outputs import given_outputs

        given_outputs(self.outputs, prompts)

    def twin(self, smoke: Path) -> BaseEngine:
        return ReferenceEngine(outputs=smoke_data(smoke / "prompts.jsonl"))

    def replaced(self) -> Iterator[str]:
        yield "specs/smoke's outputs for the given ones"

    def answer(self, task: AnswerTask) -> Answered:
        from harness.answer.outputs import given_outputs

        return Answered(
            given_outputs(self.outputs, task.prompts),
            notes=["the answers are given outputs, and no model's of this row"],
        )
