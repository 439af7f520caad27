"""Which of two answers a judge prefers, by a prompt of the spec's."""

from typing import Annotated, Literal

from harness.judge.judge import AskingJudge, Reference
from harness.spec.base import Sampling, TextFile, with_fields


class PreferenceJudge(AskingJudge):
    """The harness's own pairwise judge: one call a prompt, the order of the two outputs drawn per
    instruction, win rate and standard error as AlpacaEval defines them."""

    kind: Literal["preference"] = "preference"
    prompt: Annotated[TextFile, with_fields("instruction", "output_a", "output_b")]
    """Template with {instruction}, {output_a} and {output_b}; the reply must start with `a` or `b`,
    or `tie`."""
    reference: Reference
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=50)


TOKENS_PER_VERDICT = 10
