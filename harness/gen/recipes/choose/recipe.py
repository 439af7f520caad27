"""Choosing among the examples of the step before: by rating (`select`), at random (`random_k`), by
length (`longest_k`). The last two are controls: what a selection has to beat.

What is chosen keeps its order. The list of what was not names each example by its id.
"""

import random
from typing import Any

from harness.artefact.call import StageCall
from harness.data.dataset import DatasetExample, Filter, Lineage
from harness.errors import InputError
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.choose import LongestGen, RandomGen, SelectGen


def make(
    call: StageCall, gen: SelectGen | RandomGen | LongestGen, input_examples: list[DatasetExample]
) -> RecipeResult:
    """The chosen of the given examples.

    Raises:
        InputError: more are wanted than there are, or `select` finds no rating at all.
    """
    if isinstance(gen, SelectGen):
        return _select(gen, input_examples)
    check_size(gen, len(input_examples))
    return (
        _random(gen, input_examples)
        if isinstance(gen, RandomGen)
        else _longest(gen, input_examples)
    )


def check_size(gen: RandomGen | LongestGen, examples: int) -> None:
    """Raises InputError where there are fewer examples than the step is to choose."""
    if gen.k > examples:
        raise InputError(
            f"{gen.recipe} asks for {gen.k} examples, and the data set holds {examples}",
            "Lower k, or give a larger data set.",
        )


def length(example: DatasetExample, gen: LongestGen) -> int:
    """Of the texts that `gen.of` names; of preference data, the chosen output counts."""
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
    }[gen.of]
    return sum(len(text) if gen.unit == "characters" else len(text.split()) for text in texts)


def _select(gen: SelectGen, examples: list[DatasetExample]) -> RecipeResult:
    if all(example.rating is None for example in examples):
        raise InputError(
            "select chooses by rating, and no example of the data set has one",
            "Put a `rate` step before it, or import a file with ratings (columns: {rating: ...}).",
        )
    rules = [_rating_fault(example, gen.threshold) for example in examples]
    return _chosen(gen.recipe, examples, rules, [{"rating": e.rating} for e in examples])


def _rating_fault(example: DatasetExample, threshold: float) -> str | None:
    if example.rating is None:
        return "unrated"
    return None if example.rating >= threshold else "below_threshold"


def _random(gen: RandomGen, examples: list[DatasetExample]) -> RecipeResult:
    drawn = set(random.Random(gen.seed).sample(range(len(examples)), gen.k))
    rules = [None if number in drawn else "not_drawn" for number in range(len(examples))]
    result = _chosen(gen.recipe, examples, rules, [{}] * len(examples))
    result.seeds = {"gen": gen.seed}
    return result


def _longest(gen: LongestGen, examples: list[DatasetExample]) -> RecipeResult:
    lengths = [length(example, gen) for example in examples]
    longest = sorted(range(len(examples)), key=lambda number: (-lengths[number], number))[: gen.k]
    chosen = set(longest)
    rules = [None if number in chosen else "shorter" for number in range(len(examples))]
    result = _chosen(gen.recipe, examples, rules, [{gen.unit: n} for n in lengths])
    result.used = {f"fewest_{gen.unit}": lengths[longest[-1]]}
    return result


def _chosen(
    recipe: str, examples: list[DatasetExample], rules: list[str | None], why: list[dict[str, Any]]
) -> RecipeResult:
    """The examples without a rule against them."""
    step = Filter(recipe, "examples", proposed=len(examples))
    step.dropped.update(rule for rule in rules if rule is not None)
    lineage = Lineage(recipe, recipe)
    chosen = [e.after(lineage) for e, rule in zip(examples, rules, strict=True) if rule is None]
    step.kept = len(chosen)
    dropped = [
        {"step": recipe, "rule": rule, "id": e.id, **reason, "instruction": e.instruction}
        for e, rule, reason in zip(examples, rules, why, strict=True)
        if rule is not None
    ]
    return RecipeResult(chosen, [step], dropped)
