"""Choosing among the examples of the step before: by rating (`select`), at random (`random_k`), by
length (`longest_k`). The last two are controls: what a selection has to beat.

What is chosen keeps its order. The list of what was not names each example by its id.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.data.dataset import DatasetExample, Lineage
from harness.data.dropped import Reason, Tally
from harness.errors import InputError
from harness.gen.recipe import Recipe, RecipeResult
from harness.llm.estimate import Estimate
from harness.spec.base import Count, Seed

TWIN_K = 6
"""Examples that a twin's control keeps: fewer than any step before it leaves."""


class SelectGen(Recipe):
    """The examples whose rating reaches a threshold; AlpaGasus's is 4.5. Unrated ones go."""

    code_version: ClassVar[int] = 1
    recipe: Literal["select"] = "select"
    threshold: float = 4.5
    """The lowest rating that stays."""

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        """Raises InputError where no example has a rating."""
        if all(example.rating is None for example in input_examples):
            raise InputError(
                "select chooses by rating, and no example of the data set has one",
                "Put a `rate` step before it, or import a file with ratings (columns: {rating: ...}).",
            )
        reasons = [self._fault(example.rating) for example in input_examples]
        return _chosen(self.recipe, input_examples, reasons)

    def _fault(self, rating: float | None) -> Reason | None:
        if rating is not None and rating >= self.threshold:
            return None
        return Reason("unrated" if rating is None else "below_threshold", {"rating": rating})


class Control(Recipe):
    """So many examples, whatever they are rated."""

    estimates_limit: ClassVar[bool] = True
    recipe: str
    k: Count
    """How many examples stay."""

    def check_size(self, examples: int) -> None:
        if self.k > examples:
            raise InputError(
                f"{self.recipe} asks for {self.k} examples, and the data set holds {examples}",
                "Lower k, or give a larger data set.",
            )

    def estimate(self, files: Files, examples: int) -> Estimate:
        return Estimate(examples=self.k)

    def twin(self, smoke: Path) -> Self:
        return self.model_copy(update={"k": min(self.k, TWIN_K)})


class RandomGen(Control):
    """A control: so many examples drawn at random."""

    code_version: ClassVar[int] = 1
    recipe: Literal["random_k"] = "random_k"
    seed: Seed = 42
    """Of the draw."""

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        """Raises InputError where more are wanted than there are."""
        self.check_size(len(input_examples))
        numbers = range(len(input_examples))
        drawn = set(random.Random(self.seed).sample(numbers, self.k))
        reasons = [None if number in drawn else Reason("not_drawn") for number in numbers]
        result = _chosen(self.recipe, input_examples, reasons)
        result.seeds = {"gen": self.seed}
        return result


class LongestGen(Control):
    """A control: so many examples with the longest texts; of equals, the earlier one."""

    code_version: ClassVar[int] = 1
    recipe: Literal["longest_k"] = "longest_k"
    of: Literal["output", "instruction", "example"] = "output"
    """Which text; `instruction` counts the input too, `example` everything."""
    unit: Literal["characters", "words"] = "characters"
    """What a text's length is counted in."""

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        """Raises InputError where more are wanted than there are."""
        self.check_size(len(input_examples))
        lengths = [self.length(example) for example in input_examples]
        longest = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))[
            : self.k
        ]
        chosen = set(longest)
        reasons = [
            None if number in chosen else Reason("shorter", {self.unit: length})
            for number, length in enumerate(lengths)
        ]
        result = _chosen(self.recipe, input_examples, reasons)
        result.used = {f"fewest_{self.unit}": lengths[longest[-1]]}
        return result

    def length(self, example: DatasetExample) -> int:
        """Of the texts that `of` names; of preference data, the chosen output counts."""
        prompt_texts = [example.instruction, example.input]
        answer = example.output if example.chosen is None else example.chosen
        texts = {
            "output": [answer],
            "instruction": prompt_texts,
            "example": [
                example.system,
                *(t for turn in example.history for t in turn),
                *prompt_texts,
                answer,
            ],
        }[self.of]
        return sum(len(text) if self.unit == "characters" else len(text.split()) for text in texts)


def _chosen(
    recipe: str, examples: Sequence[DatasetExample], reasons: Sequence[Reason | None]
) -> RecipeResult:
    """The examples without a reason against them."""
    result = RecipeResult([], [Tally(recipe, "examples")])
    [tally] = result.filters
    for example, reason in zip(examples, reasons, strict=True):
        if reason is None:
            result.examples.append(example.after(Lineage(recipe, recipe)))
        else:
            about = {**reason.about, "instruction": example.instruction}
            tally.drop(reason.rule, id=example.id, **about)
    tally.kept = len(result.examples)
    return result
