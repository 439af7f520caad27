"""How numbers are written, wherever they stand."""

import re
from pathlib import Path

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


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (2**20 - 1, "1.0 MiB"),
        (110_890, "108.3 KiB"), (80 * 2**30, "80.0 GiB"), (14_000_000_000, "13.0 GiB"),
        (2**50, "1024.0 TiB"),
    ],
)  # fmt: skip
def test_a_size_is_in_units_of_1024(size: int, text: str) -> None:
    assert numbers.byte_size(size) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0.00"), (0.0034, "$0.0034"), (0.00341, "$0.0034"), (0.009, "$0.0090"), (0.01, "$0.01"),
        (0.000012, "$0.000012"), (0.974, "$0.97"), (1234.5, "$1,234.50"),
    ],
)  # fmt: skip
def test_only_nothing_costs_nothing(usd: float, text: str) -> None:
    assert numbers.dollars(usd) == text


def test_no_size_and_no_sum_is_written_by_hand() -> None:
    """A unit in the code, in other places than comments and docstrings, is one that a message has."""
    by_hand = re.compile(
        r"\} ?[KMGTk]i?B\b|rich\.filesize|/ ?1e[69]\b|/ 2 ?\*\* ?[1234]0:|\$\{[^}]*:,?\.\df"
    )
    package = Path(numbers.__file__).parents[1]
    places = {
        f"{path.name}: {line.strip()}"
        for path in package.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if by_hand.search(line)
    }
    assert places == set()


def test_a_share_has_its_counts_and_a_share_of_nothing_has_no_percent() -> None:
    assert numbers.share(1003, 4012) == "1,003 of 4,012 (25.0 %)"
    assert numbers.share(0, 0) == "0 of 0"
    assert numbers.percent(0, 0) == "–"
    assert numbers.percent(2, 3, digits=0) == "67 %"


@pytest.mark.parametrize(
    ("limit", "value", "form", "digits", "text"),
    [
        (3, -3.04, "+.{}f", 1, "-3.04"),
        (3, 2.9996, "+.{}f", 1, "+2.9996"),
        (3, 3.0, "+.{}f", 1, "+3.0"),
        (3, -5.04, "+.{}f", 1, "-5.0"),
        (0.05, 0.0502, ".{}g", 2, "0.0502"),
        (1e300, -1e-300, "+.{}f", 1, "-0.0"),
    ],
)
def test_a_number_is_read_on_the_side_of_a_limit_that_it_is_on(
    limit: float, value: float, form: str, digits: int, text: str
) -> None:
    assert numbers.clear_of(limit, value, form, digits) == text
