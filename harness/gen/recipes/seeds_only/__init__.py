"""The seed tasks themselves."""

from typing import Literal

from harness.artefact.keys import Files
from harness.llm.estimate import Estimate, count_records
from harness.spec.base import Data, Spec


class SeedsGen(Spec):
    """A control: the seed tasks alone, each with its first instance (or with all)."""

    recipe: Literal["seeds_only"] = "seeds_only"
    seeds: Data
    all_instances: bool = False


def estimate_seeds(gen: SeedsGen, files: Files, examples: int) -> Estimate:
    return Estimate(examples=count_records(gen.seeds, files))
