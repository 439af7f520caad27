"""How numbers are written, wherever they stand."""

import pytest

from harness.common import numbers


def test_what_is_not_known_leaves_nothing_behind() -> None:
    assert numbers.number(None) == numbers.error(None) == ""
    assert numbers.interval(1.0, None) == numbers.interval(None, 1.0) == ""
    assert numbers.bracketed(None, 2.0) == ""


def test_a_number_its_error_and_its_interval_have_the_same_digits() -> None:
    text = numbers.number(28.9, 2) + numbers.error(1.2) + " " + numbers.bracketed(26.1, 31.704)
    assert text == "28.90 ± 1.20 [26.10, 31.70]"
    assert numbers.interval(-0.00004, 1, 4, signed=True) == "-0.0000 to +1.0000"


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [(713, 805, "713 of 805"), (713, None, "713 of ?"), (0, 0, "0 of 0")],
)
def test_a_count_stands_with_what_it_is_of(count: int, total: int | None, text: str) -> None:
    assert numbers.out_of(count, total) == text


def test_a_share_has_its_counts_and_a_share_of_nothing_has_no_percent() -> None:
    assert numbers.share(1003, 4012) == "1,003 of 4,012 (25.0 %)"
    assert numbers.share(0, 0) == "0 of 0"
    assert numbers.percent(0, 0) == "–"
    assert numbers.percent(2, 3, digits=0) == "67 %"
