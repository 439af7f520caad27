"""Examples chosen by rating, at random or by length."""

from typing import Literal

from harness.artefact.keys import Files
from harness.llm.estimate import Estimate
from harness.spec.base import Count, Seed, Spec


class SelectGen(Spec):
    """The examples whose rating reaches a threshold; AlpaGasus's is 4.5. Unrated ones go."""

    recipe: Literal["select"] = "select"
    threshold: float = 4.5


class RandomGen(Spec):
    """A control: so many examples drawn at random."""

    recipe: Literal["random_k"] = "random_k"
    k: Count
    seed: Seed = 42


class LongestGen(Spec):
    """A control: so many examples with the longest texts; of equals, the earlier one."""

    recipe: Literal["longest_k"] = "longest_k"
    k: Count
    of: Literal["output", "instruction", "example"] = "output"
    """Which text; `instruction` counts the input too, `example` everything."""
    unit: Literal["characters", "words"] = "characters"


def estimate_chosen(gen: RandomGen | LongestGen, files: Files, examples: int) -> Estimate:
    return Estimate(examples=gen.k)
