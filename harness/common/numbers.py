"""How a number is written: its digits, its error or interval, and what it was counted over."""

from typing import Literal


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """Empty where there is none, as all that follow are."""
    return "" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


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
    """To the cent, and smaller sums to a hundredth of one."""
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def share(part: int, total: int) -> str:
    """`1,003 of 4,012 (25.0 %)`."""
    text = out_of(part, total, grouping=",")
    return f"{text} ({percent(part, total)})" if total else text
