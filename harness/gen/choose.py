"""Choosing among the examples of the step before: by rating (`select`), at random (`random_k`), by
length (`longest_k`). The last two are controls: what a selection has to beat.

What is chosen keeps its order. The list of what was not names each example by its id.
"""

import random
from typing import Any

from harness.call import StageCall
from harness.errors import InputError
from harness.gen.dataset import Example, Filter, Lineage
from harness.gen.made import Made
from harness.spec.recipes import LongestGen, RandomGen, SelectGen


def make(call: StageCall, gen: SelectGen | RandomGen | LongestGen, given: list[Example]) -> Made:
    """The chosen of the given examples.

    Raises:
        InputError: more are wanted than there are, or `select` finds no rating at all.
    """
    if isinstance(gen, SelectGen):
        return _select(gen, given)
    check_size(gen, len(given))
    return _random(gen, given) if isinstance(gen, RandomGen) else _longest(gen, given)


def check_size(gen: RandomGen | LongestGen, examples: int) -> None:
    """Raises InputError where there are fewer examples than the step is to choose."""
    if gen.k > examples:
        raise InputError(
            f"{gen.recipe} asks for {gen.k} examples, and the data set holds {examples}",
            "Lower k, or give a larger data set.",
        )


def length(example: Example, gen: LongestGen) -> int:
    """Of the texts that `gen.of` names; of preference data, the chosen output counts."""
    asked = [example.instruction, example.input]
    answer = example.output if example.chosen is None else example.chosen
    texts = {
        "output": [answer],
        "instruction": asked,
        "example": [example.system, *(t for turn in example.history for t in turn), *asked, answer],
    }[gen.of]
    return sum(len(text) if gen.unit == "characters" else len(text.split()) for text in texts)


def _select(gen: SelectGen, given: list[Example]) -> Made:
    if all(example.rating is None for example in given):
        raise InputError(
            "select chooses by rating, and no example of the data set has one",
            "Put a `rate` step before it, or import a file with ratings (columns: {rating: ...}).",
        )
    rules = [_rating_fault(example, gen.threshold) for example in given]
    return _chosen(gen.recipe, given, rules, [{"rating": e.rating} for e in given])


def _rating_fault(example: Example, threshold: float) -> str | None:
    if example.rating is None:
        return "unrated"
    return None if example.rating >= threshold else "below_threshold"


def _random(gen: RandomGen, given: list[Example]) -> Made:
    drawn = set(random.Random(gen.seed).sample(range(len(given)), gen.k))
    rules = [None if number in drawn else "not_drawn" for number in range(len(given))]
    made = _chosen(gen.recipe, given, rules, [{}] * len(given))
    made.seeds = {"gen": gen.seed}
    return made


def _longest(gen: LongestGen, given: list[Example]) -> Made:
    lengths = [length(example, gen) for example in given]
    longest = sorted(range(len(given)), key=lambda number: (-lengths[number], number))[: gen.k]
    kept = set(longest)
    rules = [None if number in kept else "shorter" for number in range(len(given))]
    made = _chosen(gen.recipe, given, rules, [{gen.unit: n} for n in lengths])
    made.used = {f"fewest_{gen.unit}": lengths[longest[-1]]}
    return made


def _chosen(
    recipe: str, given: list[Example], rules: list[str | None], why: list[dict[str, Any]]
) -> Made:
    """The examples without a rule against them."""
    step = Filter(recipe, "examples", proposed=len(given))
    step.dropped.update(rule for rule in rules if rule is not None)
    lineage = Lineage(recipe, recipe)
    kept = [e.after(lineage) for e, rule in zip(given, rules, strict=True) if rule is None]
    step.kept = len(kept)
    dropped = [
        {"step": recipe, "rule": rule, "id": e.id, **reason, "instruction": e.instruction}
        for e, rule, reason in zip(given, rules, why, strict=True)
        if rule is not None
    ]
    return Made(kept, [step], dropped)
