"""Each example turned into several."""

from typing import Annotated, Literal

from harness.artefact.keys import Files
from harness.gen.spec import Taught
from harness.llm.estimate import TOKENS_PER_TASK, Estimate, count_tokens, estimate_calls
from harness.spec.base import Sampling, Spec, TextFile, with_fields


class ExpandExample(Spec):
    """The worked example in prompt 4."""

    name: str
    instruction: str
    input: str = ""
    output: str
    expanded: str


class ExpandGen(Taught):
    """Outputs rewritten to be longer: seeds/003, section 2.2, prompt 4.

    The study prints the prompt, not its worked example nor the sampling.
    """

    recipe: Literal["expand"] = "expand"
    prompt: Annotated[TextFile, with_fields("instr", "output")]
    """Template with {name}, {instr}, {input}, {output} and, of the worked example, {ex_name},
    {ex_instr}, {ex_input}, {ex_output}, {ex_expanded}."""
    example: ExpandExample
    sampling: Sampling = Sampling()
    on_failure: Literal["keep", "drop"] = "keep"
    """What becomes of an example whose rewriting failed: it stays as it was, or goes. Counted."""


TOKENS_PER_EXPANDED = 200


def estimate_expand(gen: ExpandGen, files: Files, examples: int) -> Estimate:
    return estimate_calls(
        examples, count_tokens(gen.prompt) + 2 * TOKENS_PER_TASK, TOKENS_PER_EXPANDED, examples
    )
