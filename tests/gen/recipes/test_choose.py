"""Which examples a selection and its controls keep, and what is said of the others."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from harness.artefact.call import StageCall
from harness.data.dataset import DatasetExample, Lineage
from harness.errors import InputError
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.union import Gen


def pick(given: list[DatasetExample], **gen: Any) -> RecipeResult:
    spec: Any = TypeAdapter(Gen).validate_python(gen)
    made = spec.make(StageCall("gen", "k", {}, {}, "."), given)
    [step] = made.filters
    assert (step.proposed, step.kept) == (len(given), len(made.examples))
    assert Counter(row["rule"] for row in made.dropped) == step.dropped
    ids = [e.id for e in made.examples]
    assert sorted(ids + [row["id"] for row in made.dropped]) == sorted(e.id for e in given)
    assert ids == [e.id for e in given if e.id in set(ids)]  # in the order of the data set
    return made


def ids(made: RecipeResult) -> list[str]:
    return [example.id for example in made.examples]


def examples(*outputs: str) -> list[DatasetExample]:
    return [DatasetExample(f"e{i}", "Say it.", output=output) for i, output in enumerate(outputs)]


def rated(*ratings: float | None) -> list[DatasetExample]:
    return [DatasetExample(f"e{i}", "Say it.", output="x", rating=r) for i, r in enumerate(ratings)]


def test_an_example_exactly_at_the_threshold_is_kept() -> None:
    made = pick(rated(4.5, 4.499, 5.0, None, 0.0), recipe="select")
    assert ids(made) == ["e0", "e2"]
    assert made.filters[0].dropped == {"below_threshold": 2, "unrated": 1}
    assert [(row["id"], row["rating"]) for row in made.dropped] == [
        ("e1", 4.499),
        ("e3", None),
        ("e4", 0.0),
    ]
    assert made.dropped[0]["instruction"] == "Say it."


def test_a_rating_of_zero_is_a_rating() -> None:
    assert ids(pick(rated(0.0, None), recipe="select", threshold=0)) == ["e0"]


def test_select_without_any_rating_says_to_rate_first() -> None:
    with pytest.raises(InputError) as caught:
        pick(rated(None, None), recipe="select")
    assert "Put a `rate` step before it" in caught.value.hint


def test_the_step_is_added_to_the_lineage() -> None:
    before = Lineage("rate", "rate", (3,))
    given = [DatasetExample("a", "q", output="x", rating=5.0, lineage=(before,))]
    for recipe, rest in (("select", {}), ("random_k", {"k": 1}), ("longest_k", {"k": 1})):
        [example] = pick(given, recipe=recipe, **rest).examples
        assert example.lineage == (before, Lineage(recipe, recipe))


def test_a_random_subset_is_drawn_with_its_own_seed() -> None:
    given = examples(*map(str, range(50)))
    made = pick(given, recipe="random_k", k=7, seed=5)
    assert ids(made) == [f"e{i}" for i in sorted(random.Random(5).sample(range(50), 7))]
    assert made.seeds == {"gen": 5}
    random.seed(99)
    assert pick(given, recipe="random_k", k=7, seed=5) == made
    assert ids(pick(given, recipe="random_k", k=7, seed=6)) != ids(made)


def test_the_longest_outputs_are_kept_and_of_equals_the_earlier() -> None:
    made = pick(examples("bb", "cccc", "aa", "d", "ee"), recipe="longest_k", k=3)
    assert ids(made) == ["e0", "e1", "e2"]
    assert [(row["id"], row["rule"], row["characters"]) for row in made.dropped] == [
        ("e3", "shorter", 1),
        ("e4", "shorter", 2),
    ]
    assert made.used == {"fewest_characters": 2}


def test_length_is_counted_in_characters_or_words() -> None:
    given = examples("a b c", "abcdefgh")
    assert ids(pick(given, recipe="longest_k", k=1)) == ["e1"]
    assert ids(pick(given, recipe="longest_k", k=1, unit="words")) == ["e0"]


def test_the_length_of_any_part_can_count() -> None:
    given = [
        DatasetExample("output", "q", "", "a long output"),
        DatasetExample("instruction", "an instruction", "with an input", ""),
        DatasetExample(
            "example", "short", "input", "output", system="sys", history=[["more", "than that"]]
        ),
    ]
    for of in ("output", "instruction", "example"):
        assert ids(pick(given, recipe="longest_k", k=1, of=of)) == [of]


def test_of_preference_data_the_chosen_output_counts() -> None:
    given = [
        DatasetExample("a", "q", chosen="short", rejected="a very long answer"),
        DatasetExample("b", "q", chosen="longer", rejected=""),
    ]
    assert ids(pick(given, recipe="longest_k", k=1)) == ["b"]
    assert ids(pick(given, recipe="longest_k", k=1, of="example")) == ["b"]


@pytest.mark.parametrize("recipe", ["random_k", "longest_k"])
def test_more_than_there_are_is_refused_with_both_numbers(recipe: str) -> None:
    given = examples("a", "b")
    assert ids(pick(given, recipe=recipe, k=2)) == ["e0", "e1"]
    with pytest.raises(InputError, match="asks for 3 examples, and the data set holds 2"):
        pick(given, recipe=recipe, k=3)


def test_the_longest_of_real_outputs_are_those_that_sorting_finds(shared_data: Path) -> None:
    rows = json.loads((shared_data / "alpagasus" / "claude_t45.json").read_text())
    outputs = [row["output"] for row in rows]
    made = pick(examples(*outputs), recipe="longest_k", k=1000)
    lengths = sorted(map(len, outputs), reverse=True)
    assert sorted((len(e.output) for e in made.examples), reverse=True) == lengths[:1000]
