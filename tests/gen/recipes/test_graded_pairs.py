"""Preference pairs out of answers that a judge scored."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.artefact.call import StageCall
from harness.errors import InputError
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.graded_pairs import GradedPairsGen
from tests.conftest import SHARED
from tests.helpers import ROOT

ORACLES = SHARED / "oracles" / "alpagasus2"
A, B = "alpaca2", "alpagasus2"


def review(prompt: str, score: Any, a: str = "A.", b: str = "B.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, A: a, B: b, "score": score, **more}


def make(tmp_path: Path, *files: tuple[tuple[str, str], list[dict[str, Any]]]) -> RecipeResult:
    reviews = []
    for number, (order, rows) in enumerate(files):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(rows))
        reviews.append({"file": {"path": str(path)}, "order": order})
    return take(reviews)


def take(reviews: list[dict[str, Any]]) -> RecipeResult:
    gen = GradedPairsGen.model_validate({"reviews": reviews})
    result = gen.make(StageCall("gen", "k", {}, {}, ""), [])
    [step] = result.filters
    assert step.kept == len(result.examples)
    return result


def pairs(result: RecipeResult) -> list[tuple[str, str | None, str | None]]:
    return [(e.instruction, e.chosen, e.rejected) for e in result.examples]


def test_the_answer_with_the_higher_score_is_chosen_whatever_its_place(tmp_path: Path) -> None:
    scored = [review("one", [8, 9.5]), review("two", [7, 3])]
    assert pairs(make(tmp_path, ((A, B), scored))) == [("one", "B.", "A."), ("two", "A.", "B.")]
    assert pairs(make(tmp_path, ((B, A), scored))) == [("one", "A.", "B."), ("two", "B.", "A.")]


def test_of_both_orders_the_verdicts_are_added_and_ties_dropped(tmp_path: Path) -> None:
    first = [review("place", [9, 1]), review("both", [9, 8]), review("once", [5, 5])]
    second = [review("place", [7, 6]), review("both", [2, 3]), review("once", [8, 7])]
    result = make(tmp_path, ((A, B), first), ((B, A), second))
    # "place": the first place won both times, by however much.
    assert pairs(result) == [("both", "A.", "B."), ("once", "B.", "A.")]
    assert result.filters[0].dropped == {"tie": 1}
    assert [(row["rule"], row["instruction"]) for row in result.dropped] == [("tie", "place")]


def test_what_teaches_nothing_is_dropped_by_a_rule(tmp_path: Path) -> None:
    rows = [
        review("unread", [-1, -1]),
        review("empty", [9, 1], b=" \n"),
        review("same", [9, 1], a="Yes.", b="\nYes. "),
        review("good", [9, 1], a="\nYes.", instances=[{"input": "Is it?", "output": ""}]),
    ]
    result = make(tmp_path, ((A, B), rows))
    assert result.filters[0].dropped == {
        "unread_score": 1,
        "empty_answer": 1,
        "identical_answers": 1,
    }
    [example] = result.examples
    # The newline that one model begins with would tell it apart.
    assert (example.input, example.chosen, example.origin) == ("Is it?", "Yes.", "imported")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p", A: "x", "score": [1, 2]}, "0.json:1: no text in `alpagasus2`"),
        ({A: "x", B: "y", "score": [1, 2]}, "0.json:1: no text in `instruction`"),
        (review("p", "8 9"), "0.json:1: `score` must be the two scores, not 8 9"),
        (review("p", [1]), "`score` must be the two scores"),
    ],
)
def test_a_faulty_record_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as e:
        make(tmp_path, ((A, B), [row]))
    assert said in e.value.message


def test_reviews_of_other_answers_to_one_prompt_are_refused(tmp_path: Path) -> None:
    first, second = [review("p", [1, 2])], [review("p", [1, 2], a="Another.")]
    with pytest.raises(InputError, match=r"1\.json:1: another review .* other answers"):
        make(tmp_path, ((A, B), first), ((B, A), second))
    with pytest.raises(ValidationError, match="order names alpaca2 twice"):
        GradedPairsGen.model_validate({"reviews": [{"file": {"path": "x"}, "order": [A, A]}]})


def test_alpagasus_own_reviews_give_as_many_pairs_as_were_published_as_won_and_lost() -> None:
    if not ORACLES.is_dir():
        pytest.skip("../shared/oracles is not beside the checkout")
    orders = [(A, B), (B, A)]
    result = take(
        [
            {"file": {"path": str(ORACLES / f"{a}-{b}-vicuna.json")}, "order": (a, b)}
            for a, b in orders
        ]
    )
    # vicuna_result.json: 40 won, 38 ties, 2 lost.
    assert result.counts == {"chosen_alpagasus2": 40, "chosen_alpaca2": 2}
    assert result.filters[0].dropped == {"tie": 38}
    assert result.notes == ["alpagasus2's answer is the chosen one in 40 of 42 pairs"]
    assert not any(text != text.strip() for e in result.examples for text in (e.chosen or "",))


def test_its_twin_makes_pairs_of_the_smoke_files() -> None:
    gen = GradedPairsGen.model_validate(
        {"reviews": [{"file": {"path": "elsewhere.json"}, "order": [A, B]}]}
    ).twin(ROOT / "specs" / "smoke")
    result = gen.make(StageCall("gen", "k", {}, {}, ""), [])
    assert ("Name the opposite of hot.", "tie") in {
        (row["instruction"], row["rule"]) for row in result.dropped
    }
    assert all(e.chosen != e.rejected for e in result.examples)
    assert next(e for e in result.examples if "Italy" in e.instruction).chosen == "Rome"
