"""Names in a study's `_tables.yaml` that none of its rows has: a misspelt one gives an empty column."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.row.load import load_usable
from harness.row.row import Row
from harness.row.twin import SUFFIX
from harness.spec.source import Fault, Node

if TYPE_CHECKING:
    from harness.report.layout import Layout


def unknown_names(tree: Node, layouts: "dict[str, Layout]", folder: Path) -> Iterator[Fault]:
    """Tables without a row below the folder, and what no row of its table varies or measures.

    Nothing where one of the specs is faulty: what its row has is not known, and its faults are told
    where it is read.
    """
    if not any(_specs(folder)):
        return
    specs = load_usable([folder])
    if specs.faulty:
        return
    rows: dict[str, list[Row]] = {}
    for loaded in specs.rows:
        rows.setdefault(table_of(loaded.row), []).append(loaded.row)
    for table, layout in layouts.items():
        table_rows = rows.get(table, [])
        if not table_rows:
            yield _fault(tree, ("tables", table), "no row here is of the table", table, list(rows))
            continue
        varied = list(dict.fromkeys(name for row in table_rows for name in row.varied))
        metrics = list(
            dict.fromkeys(m for row in table_rows for m in [*row.metrics(), *row.reported])
        )
        for path, kind, name in _names(layout):
            known_names, verb = (varied, "varies") if kind == "varied" else (metrics, "measures")
            if name not in known_names:
                what = f"no row of the table {verb}"
                yield _fault(tree, ("tables", table, *path), what, name, known_names)


def table_of(row: Row) -> str:
    """The table that the study lays out: a twin's has another name."""
    return row.table.removesuffix(SUFFIX) if row.scale == "tiny" else row.table


def _specs(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.yaml") if not path.name.startswith("_"))


def _names(layout: "Layout") -> Iterator[tuple[tuple[Any, ...], str, str]]:
    """Where a name stands in the table's layout, whether it is `varied` or a `metric`, and the name."""
    for number, column in enumerate(layout.columns or []):
        if column.varied is not None:
            yield ("list", number, "varied"), "varied", column.varied
        if column.metric is not None:
            yield ("list", number, "metric"), "metric", column.metric
    grid = layout.grid
    if grid is None:
        return
    for side, name in (("rows", grid.rows), ("columns", grid.columns)):
        if name is not None:
            yield ("grid", side), "varied", name
    if grid.metric is not None:
        yield ("grid", "metric"), "metric", grid.metric
    for heading, metric in grid.metrics.items():
        yield ("grid", "metrics", heading), "metric", metric


def _fault(
    tree: Node, path: tuple[Any, ...], what: str, name: str, known_names: Sequence[str]
) -> Fault:
    _, mark = tree.at(path)
    near = difflib.get_close_matches(name, known_names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if not near:
        hint = f"; known here: {', '.join(known_names)}" if known_names else ""
    return Fault(mark, f"{'.'.join(map(str, path))}: {what} {name!r}{hint}")
