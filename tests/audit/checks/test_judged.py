"""What size a bias must have before it is told, however sure it is; and how sure, whatever its size."""

import pytest

from harness.audit.checks.judged import check_length, check_position
from harness.audit.model import Result, agreeing_digits, compare
from harness.audit.parse.judged_pairs import JudgedPair


def placed(first: tuple[int, int], second: tuple[int, int]) -> list[JudgedPair]:
    """Rows with so many wins and losses in each place."""
    return [
        JudgedPair(f"{place} {won} {k}", "a", "b", preference, place)
        for place, counts in ((True, first), (False, second))
        for won, preference in ((0, 2.0), (1, 1.0))
        for k in range(counts[won])
    ]


@pytest.mark.parametrize(
    ("first", "second", "is_finding"),
    [
        ((600, 400), (400, 600), True),
        ((5300, 4700), (4700, 5300), False),  # sure, and 6 points
        ((545, 455), (455, 545), False),  # sure, and 9 points
        ((130, 870), (30, 970), True),  # 10 points
        ((90, 910), (20, 980), True),  # 7 points, but odds of 1 to 5
        ((40, 960), (10, 990), False),  # odds of 1 to 4, but 3 points
        ((12, 8), (6, 14), False),  # 30 points, and may be chance
    ],
)
def test_a_place_counts_where_it_is_sure_and_large(
    first: tuple[int, int], second: tuple[int, int], is_finding: bool
) -> None:
    result = Result("", "")
    check_position(result, placed(first, second), "")
    assert [f.kind for f in result.findings] == (["position_bias"] if is_finding else [])


def by_length(longer: tuple[int, int], shorter: tuple[int, int]) -> list[JudgedPair]:
    """Rows whose output is longer, or shorter, than the baseline's by a fixed length."""
    return [
        JudgedPair(f"{size} {won} {k}", "x" * size, "y" * 100, preference)
        for size, counts in ((150, longer), (50, shorter))
        for won, preference in ((0, 2.0), (1, 1.0))
        for k in range(counts[won])
    ]


@pytest.mark.parametrize(
    ("longer", "shorter", "is_finding"),
    [
        ((160, 40), (40, 160), True),  # 60 points between longer and shorter
        ((120, 80), (80, 120), False),  # 20 points, which even out in the score
        ((20, 5), (5, 20), True),
        ((320, 80), (20, 80), True),  # most are longer: at equal length the score is another
        ((395, 5), (1, 4), False),  # hardly one is shorter
        ((15, 8), (8, 15), False),  # under fifty judgements
    ],
)
def test_length_counts_where_it_is_sure_and_moves_the_score_or_decides_it(
    longer: tuple[int, int], shorter: tuple[int, int], is_finding: bool
) -> None:
    result = Result("", "")
    check_length(result, by_length(longer, shorter))
    assert [f.kind for f in result.findings] == (["length_bias"] if is_finding else [])


def test_outputs_of_the_baselines_own_length_say_nothing_of_length() -> None:
    result = Result("", "")
    check_length(result, [JudgedPair(str(k), "abc", "xyz", 1.0 + k % 2) for k in range(100)])
    assert result.findings == []


@pytest.mark.parametrize(
    ("published", "recomputed", "digits"),
    [(29.3, 29.312762973352037, 1), (29.3, 29.36, 0), (1.0, 1.0, 15), (29.0, 13.7, -1), (0.5, 1.0, 0),
     (29.312762973352037, 29.312762973352033, 15), (float("nan"), 1.0, -1)],
)  # fmt: skip
def test_numbers_agree_to_so_many_decimals(
    published: float, recomputed: float, digits: int
) -> None:
    assert agreeing_digits(published, recomputed) == digits


def test_nothing_to_compare_neither_matches_nor_not() -> None:
    result = Result("", "", {"a": 1.0, "b": None}, {"b": 2.0, "c": "x"})
    compare(result)
    assert (result.matches, result.digits) == (None, {})


def test_only_the_kinds_and_severities_that_are_known_exist() -> None:
    with pytest.raises(ValueError, match="no such finding"):
        Result("", "").add("other", "error", "")
    with pytest.raises(ValueError, match="no such finding"):
        Result("", "").add("confounded", "fatal", "")  # type: ignore[arg-type]
