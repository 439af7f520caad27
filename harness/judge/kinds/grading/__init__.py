"""Pairwise grading with scores."""

from typing import Annotated, Literal

from pydantic import model_validator

from harness.artefact.call import StageCall, StageResult
from harness.judge.judge import PairwiseJudge, Reference
from harness.spec.base import Sampling, TextFile, with_fields
from harness.spec.prompts import PromptSet


class GradingJudge(PairwiseJudge):
    """AlpaGasus's pairwise grading: two responses scored 1 to 10, once in each order. Win, tie or
    lose is the sign of the sum of the two orders' verdicts (arXiv 2307.08701)."""

    code_version = 2
    calls_per_prompt = 2
    tokens_per_call = 150
    kind: Literal["grading"] = "grading"
    system: TextFile
    """The system message."""
    prompt: Annotated[TextFile, with_fields("question", "answer_1", "answer_2")]
    """Template with {question}, {answer_1} and {answer_2}; the reply's first line must hold the two
    scores."""
    reference: Reference
    """The baseline's outputs, which the row's are compared with: a file, another row's, or files with a
    column of outputs."""
    lowest: float = 1.0
    """A score below is none."""
    highest: float = 10.0
    """A score outside of these is none."""
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=256)
    """Decoding parameters of the judge's replies."""

    @model_validator(mode="after")
    def _in_order(self) -> "GradingJudge":
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        return [*super().metrics(prompts), "winning_score"]

    def fixed_characters(self) -> int:
        return len(self.prompt.text)

    def run(self, call: StageCall) -> StageResult:
        from harness.judge.kinds.grading.judge import run

        return run(call, self)
