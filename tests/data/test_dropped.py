"""One tally of a step's candidates gives every count, list and sentence about them."""

from collections import Counter

from harness.data.dropped import Tally


def tally() -> Tally:
    result = Tally("tasks", "rows", kept=5)
    for rule in ("wrong_type", "cut", "wrong_type"):
        result.drop(rule, id="a")
    return result


def test_what_is_dropped_is_counted_and_listed_once() -> None:
    assert (tally().proposed, tally().dropped) == (8, Counter(wrong_type=2, cut=1))
    assert tally().rows[1] == {"step": "tasks", "rule": "cut", "id": "a"}
    assert list(tally().counts("dropped").items()) == [
        ("dropped_cut", 1),
        ("dropped_wrong_type", 2),
    ]


def test_the_rules_stand_by_their_number_or_by_their_name() -> None:
    assert tally().in_words() == "2 wrong type, 1 cut"
    assert tally().in_words(by_name=True) == "1 cut, 2 wrong type"
    assert Tally("tasks", "rows", 5).in_words() == "nothing"
    assert (tally().share(), tally().share("records")) == ("3 of 8 rows", "3 of 8 records")


def test_only_rules_that_dropped_some_have_a_sentence() -> None:
    reasons = {"empty": "are empty", "cut": "were cut"}
    assert tally().sentences(reasons) == ["1 of 8 rows were left out: they were cut"]
