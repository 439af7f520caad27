"""A rating for each example."""

from typing import Annotated, Literal

from pydantic import model_validator

from harness.artefact.keys import Files
from harness.llm.estimate import TOKENS_PER_TASK, Estimate, count_tokens, estimate_calls
from harness.spec.base import Data, Endpoint, Sampling, Spec, TextFile, with_fields


class RateGen(Spec):
    """Ratings by a judge, as AlpaGasus (arXiv 2307.08701; gpt4life/alpagasus 95ad3e52): a score
    from 0 to 5 on the reply's first line. Every example stays; `select` chooses by the rating.

    Upstream's judge was gpt-3.5-turbo-0301.
    """

    recipe: Literal["rate"] = "rate"
    judge: Endpoint
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the judge, which is not called."""
    dimension: Literal["accuracy", "helpfulness"] = "accuracy"
    prompt: Annotated[TextFile, with_fields("instruction", "output")]
    """Template with {instruction}, {input}, {output} and {dimension}."""
    lowest: float = 0.0
    highest: float = 5.0
    """A score outside of these is no rating."""
    sampling: Sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=256)

    @model_validator(mode="after")
    def _in_order(self) -> "RateGen":
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self


TOKENS_PER_RATING = 80


def estimate_rate(gen: RateGen, files: Files, examples: int) -> Estimate:
    return estimate_calls(
        examples, count_tokens(gen.prompt) + TOKENS_PER_TASK, TOKENS_PER_RATING, examples
    )
