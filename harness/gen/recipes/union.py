"""The recipes of the gen stage: every way in which the studies made or chose their data."""

from typing import Annotated

from pydantic import Field

from harness.gen.recipes.alpaca import AlpacaGen
from harness.gen.recipes.choose import LongestGen, RandomGen, SelectGen
from harness.gen.recipes.expand import ExpandGen
from harness.gen.recipes.graded_pairs import GradedPairsGen
from harness.gen.recipes.importing import ImportGen
from harness.gen.recipes.naive import NaiveGen
from harness.gen.recipes.rate import RateGen
from harness.gen.recipes.seeds_only import SeedsGen
from harness.gen.recipes.self_instruct import SelfInstructGen

Gen = Annotated[
    AlpacaGen
    | SelfInstructGen
    | NaiveGen
    | ExpandGen
    | RateGen
    | SelectGen
    | RandomGen
    | LongestGen
    | SeedsGen
    | ImportGen
    | GradedPairsGen,
    Field(discriminator="recipe"),
]
