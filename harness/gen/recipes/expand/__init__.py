"""Each example turned into several."""

from typing import Annotated, ClassVar, Literal

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data.dataset import DatasetExample
from harness.gen.recipe import RecipeResult, Taught
from harness.llm.estimate import TOKENS_PER_TASK, Estimate, count_tokens, estimate_calls
from harness.spec.base import Sampling, Spec, TextFile, with_fields

TOKENS_PER_EXPANDED = 200


class ExpandExample(Spec):
    """The worked example in prompt 4."""

    name: str
    """The task's name."""
    instruction: str
    """The task's instruction."""
    input: str = ""
    """The task's input; may be empty."""
    output: str
    """The short output."""
    expanded: str
    """The output as it should be rewritten."""


class ExpandGen(Taught):
    """Outputs rewritten to be longer: seeds/003, section 2.2, prompt 4.

    The study prints the prompt, not its worked example nor the sampling.
    """

    code_version: ClassVar[int] = 1
    recipe: Literal["expand"] = "expand"
    prompt: Annotated[TextFile, with_fields("instr", "output")]
    """Template with {name}, {instr}, {input}, {output} and, of the worked example, {ex_name},
    {ex_instr}, {ex_input}, {ex_output}, {ex_expanded}."""
    example: ExpandExample
    """The worked example that every prompt shows."""
    sampling: Sampling = Sampling()
    """Decoding parameters of the teacher's replies."""
    on_failure: Literal["keep", "drop"] = "keep"
    """What becomes of an example whose rewriting failed: it stays as it was, or goes. Counted."""

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        from harness.gen.recipes.expand.recipe import make

        return make(call, self, input_examples)

    def estimate(self, files: Files, examples: int) -> Estimate:
        prompt = count_tokens(self.prompt) + 2 * TOKENS_PER_TASK
        return estimate_calls(examples, prompt, TOKENS_PER_EXPANDED, examples)
