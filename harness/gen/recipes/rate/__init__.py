"""A rating for each example."""

from typing import Annotated, ClassVar, Literal

from pydantic import model_validator

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data.dataset import DatasetExample
from harness.gen.recipe import Recipe, RecipeResult, ReplySource
from harness.llm.estimate import TOKENS_PER_TASK, Estimate, count_tokens, estimate_calls
from harness.spec.base import Data, Endpoint, Sampling, TextFile, with_fields

TOKENS_PER_RATING = 80


class RateGen(Recipe):
    """Ratings by a judge, as AlpaGasus (arXiv 2307.08701; gpt4life/alpagasus 95ad3e52): a score
    from 0 to 5 on the reply's first line. Every example stays; `select` chooses by the rating.

    Upstream's judge was gpt-3.5-turbo-0301.
    """

    code_version: ClassVar[int] = 1
    recipe: Literal["rate"] = "rate"
    judge: Endpoint
    """The model that rates."""
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the judge, which is not called."""
    dimension: Literal["accuracy", "helpfulness"] = "accuracy"
    """What is rated, {dimension} in the prompt."""
    prompt: Annotated[TextFile, with_fields("instruction", "output")]
    """Template with {instruction}, {input}, {output} and {dimension}."""
    lowest: float = 0.0
    """The lowest score that is a rating."""
    highest: float = 5.0
    """A score outside of these is no rating."""
    sampling: Sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=256)
    """Decoding parameters of the judge's replies."""

    @model_validator(mode="after")
    def _in_order(self) -> "RateGen":
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self

    @property
    def reply_source(self) -> ReplySource:
        return ReplySource("judge", self.judge, self.transcript)

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        from harness.gen.recipes.rate.recipe import make

        return make(call, self, input_examples)

    def estimate(self, files: Files, examples: int) -> Estimate:
        prompt = count_tokens(self.prompt) + TOKENS_PER_TASK
        return estimate_calls(examples, prompt, TOKENS_PER_RATING, examples)
