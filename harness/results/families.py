"""Verdicts of a table taken together: with many of them, some are wrong by chance."""

from collections.abc import Sequence
from dataclasses import replace

from harness.common import numbers
from harness.common.grouping import grouped
from harness.common.progress import counted
from harness.results.line import DOES_NOT, MatrixLine
from harness.results.verdict.forecast import DECIDED, decide
from harness.results.verdict.verdict import Weighed
from harness.stats.intervals import LEVEL

ALPHA = 1 - LEVEL
HALVINGS = 20
"""Of an interval of ALPHA: to 5e-8."""
HOLDS = "holds"


def p_value(weighed: Weighed) -> float | None:
    """1 less the highest level at which the interval still gives the verdict, found by halving; None
    where nothing was compared, 1 for an inconclusive verdict. After the looks of `harness settle` the
    level is that of all looks together (Maurer and Bretz 2013, Multiple testing in group sequential
    trials using graphical approaches, Statistics in Biopharmaceutical Research 5)."""
    verdict, interval = weighed.verdict, weighed.interval
    if interval is None or verdict.margin is None:
        return None
    if verdict.name not in DECIDED:
        return 1.0
    low, high = 0.0, ALPHA
    if decide(*interval(LEVEL), verdict.margin) != verdict.name:
        return 1.0
    for _ in range(HALVINGS):
        p = (low + high) / 2
        ends = interval(1 - p)
        low, high = (low, p) if decide(*ends, verdict.margin) == verdict.name else (p, high)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for their number, in their order (Holm 1979, A simple sequentially rejective multiple
    test procedure, Scandinavian Journal of Statistics 6): the chance that any claim at or below the
    level is wrong is then at most the level, however the tests hang together."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def adjusted(lines: Sequence[MatrixLine]) -> list[MatrixLine]:
    """The lines, each verdict of which says whether it holds among its table's; all of a table's
    compared numbers count, the inconclusive too."""
    found = {
        index: (line.row.table, p)
        for index, line in enumerate(lines)
        if (p := p_value(line.weighed)) is not None
    }
    after = list(lines)
    for table in {table for table, _ in found.values()}:
        members = [index for index, (of, _) in found.items() if of == table]
        for index, p in zip(members, holm([found[i][1] for i in members]), strict=True):
            line = lines[index]
            name = ""
            if line.cells.verdict in DECIDED:
                name = HOLDS if p <= ALPHA else DOES_NOT
            cells = replace(line.cells, verdict_among=len(members), verdict_p=p, verdict_holm=name)
            after[index] = replace(line, cells=cells)
    return after


def sentences(lines: Sequence[MatrixLine]) -> list[str]:
    """One for each table with several numbers compared and a verdict: how many hold together."""
    among = [line for line in lines if line.cells.verdict_among]
    tables = grouped(among, lambda line: line.cells.table)
    return [
        _sentence(table, of)
        for table, of in tables.items()
        if len(of) > 1 and any(line.cells.verdict in DECIDED for line in of)
    ]


def _sentence(table: str, lines: Sequence[MatrixLine]) -> str:
    parts = []
    for name in DECIDED:
        given = [line for line in lines if line.cells.verdict == name]
        held = sum(line.cells.verdict_holm == HOLDS for line in given)
        parts.append(f"{len(given)} {name} ({held} after Holm's adjustment)")
    by_chance = ALPHA * len(lines)
    level, alpha = (numbers.percent(share, digits=0) for share in (LEVEL, ALPHA))
    return (
        f"Table {table}: of {counted(len(lines), 'number')} compared, {parts[0]}, {parts[1]}, the rest "
        f"open; at {level} each, so many give up to {by_chance:g} wrong verdicts on average by chance "
        f"alone, after the adjustment any with a chance of at most {alpha}."
    )
