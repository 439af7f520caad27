"""How a number is written: its digits, its error or interval, and what it was counted over."""

import math
from typing import Literal


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """Empty where there is none, as all that follow are."""
    return "" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def clear_of(limit: float, value: float, form: str, digits: int) -> str:
    """A number in a form of so many digits (`+.{}f`), or as many as it takes to be read on the side of
    the limit, or of the limit with the other sign, that it is on: 3.04 is beyond 3.0, `+3.04`."""
    for more in range(digits, 18):
        text = format(value, form.format(more))
        told = abs(float(text))
        if (told < limit, told > limit) == (abs(value) < limit, abs(value) > limit):
            return text
    return text


def error(value: float | None, digits: int = 2) -> str:
    """` ± 1.20`, which stands behind a number."""
    return "" if value is None else f" ± {value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 2, signed: bool = False) -> str:
    """`26.00 to 37.40`."""
    if low is None or high is None:
        return ""
    return f"{number(low, digits, signed)} to {number(high, digits, signed)}"


def bracketed(low: float | None, high: float | None, digits: int = 2) -> str:
    """`[26.00, 37.40]`."""
    return "" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def out_of(
    count: int | None, total: int | None, sign: str = " of ", grouping: Literal["", ","] = ""
) -> str:
    """`713 of 805`; `?` for what is not known. `grouping`: between thousands."""
    return sign.join("?" if n is None else f"{n:{grouping}}" for n in (count, total))


def percent(part: float, total: float = 1, digits: int = 1) -> str:
    """`12.5 %`; a dash for a share of nothing."""
    return f"{100 * part / total:.{digits}f} %" if total else "–"


def dollars(usd: float) -> str:
    """To the cent, and what is less than one with two significant digits: `$0.0034`. Only nothing at
    all is `$0.00`."""
    digits = 1 - math.floor(math.log10(usd)) if 0 < usd < 0.01 else 2
    return f"${usd:,.{digits}f}"


SIZES = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}


def byte_size(size: float) -> str:
    """`7.9 GiB`, `512 bytes`: every size that a person reads is so written, of memory, disks and files
    alike: in units of 1024, with one decimal, so that one can be held against another."""
    return " ".join(in_unit_of(size, size))


def in_unit_of(total: float, size: float) -> tuple[str, str]:
    """A size's number in the unit that suits `total`, and that unit."""
    for unit, count in SIZES.items():
        # What would be written as 1024.0 of a unit is 1.0 of the next.
        if round(1024 * total / count, 1) >= 1024:
            return f"{size / count:.1f}", unit
    return f"{size:.0f}", "byte" if round(total) == 1 else "bytes"


def share(part: int, total: int) -> str:
    """`1,003 of 4,012 (25.0 %)`."""
    text = out_of(part, total, grouping=",")
    return f"{text} ({percent(part, total)})" if total else text
