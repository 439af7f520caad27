"""Which of two answers a judge prefers, by a prompt of the spec's."""

from typing import Annotated, Literal

from harness.artefact.call import StageCall, StageResult
from harness.judge.judge import PairwiseJudge, Reference
from harness.spec.base import Sampling, TextFile, with_fields


class PreferenceJudge(PairwiseJudge):
    """The harness's own pairwise judge: one call a prompt, the order of the two outputs drawn per
    instruction, win rate and standard error as AlpacaEval defines them."""

    code_version = 3
    tokens_per_call = 10
    kind: Literal["preference"] = "preference"
    prompt: Annotated[TextFile, with_fields("instruction", "output_a", "output_b")]
    """Template with {instruction}, {output_a} and {output_b}; the reply must start with `a` or `b`,
    or `tie`."""
    reference: Reference
    """The baseline's outputs, which the row's are compared with: a file, another row's, or files with a
    column of outputs."""
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=50)
    """Decoding parameters of the judge's replies."""

    def fixed_characters(self) -> int:
        return len(self.prompt.text)

    def run(self, call: StageCall) -> StageResult:
        from harness.judge.kinds.preference.judge import run

        return run(call, self)
