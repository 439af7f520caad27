"""Tables laid out as their study has them: `_tables.yaml` beside a study's specs says how.

    tables:
      TABLE:                          # Row.table
        caption: what stands above it
        source: where the study has it
        list:                         # a line for each row, in the order of source.line
          - {heading: win rate, metric: win_rate}
          - {heading: prompt, varied: prompt}
      OTHER:
        grid: {rows: model, columns: training, metric: win_rate, row_order: [...], column_order: [...]}
      THIRD:
        grid: {metrics: {ARC: arc_challenge, MMLU: mmlu}, columns: size}

`rows` and `columns` are names of Row.varied. `metrics`, what the table calls each of several metrics,
stands in the place of one of the two, and of `metric`.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from harness.common import numbers
from harness.common.grouping import grouped
from harness.report.sheet import Cell, Notes, Sheet, notes_of, reasons, settled, warning
from harness.results.line import MatrixLine, bounds, in_study, marks
from harness.row.load import NO_MAPPING, SpecFaults, load_usable
from harness.row.row import Row
from harness.row.twin import SUFFIX
from harness.spec.base import Name, Spec
from harness.spec.source import Fault, Node, parse

FILE = "_tables.yaml"
HIGHEST = "specs"
"""The folder above which no layout is looked for."""
READING = (
    "In a cell: the reported value, over judged of expected prompts where the study tells it; after "
    "the arrow ours, with its 95 % interval, over judged of expected, summed over replicates."
)
NO_LAYOUT = "The study gives no layout for this table: these are the harness's own columns."


class Column(Spec):
    """A column of a list: what the row varies, or a metric."""

    heading: str
    varied: str | None = None
    metric: str | None = None

    @model_validator(mode="after")
    def _one_content(self) -> "Column":
        if (self.varied is None) == (self.metric is None):
            raise ValueError("give exactly one of varied, metric")
        return self


class Grid(Spec):
    rows: str | None = None
    columns: str | None = None
    metric: str | None = None
    metrics: dict[str, str] = Field(default_factory=dict)
    row_order: tuple[str | int | float, ...] = ()
    column_order: tuple[str | int | float, ...] = ()

    @model_validator(mode="after")
    def _two_sides(self) -> "Grid":
        sides = [side for side in (self.rows, self.columns) if side is not None]
        if len(set(sides)) < len(sides):
            raise ValueError("rows and columns are two things")
        if len(sides) + bool(self.metrics) != 2:
            raise ValueError("give two of rows, columns, metrics")
        if (self.metric is None) != bool(self.metrics):
            raise ValueError("give metric, or metrics in place of rows or columns")
        return self

    @property
    def metric_names(self) -> dict[str, str]:
        """Metric -> what the table calls it."""
        return {metric: name for name, metric in self.metrics.items()} or {self.metric or "": ""}


class Layout(Spec):
    """How a study lays out one table."""

    caption: str
    source: str
    columns: Annotated[list[Column], Field(min_length=1)] | None = Field(default=None, alias="list")
    grid: Grid | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "Layout":
        if (self.columns is None) == (self.grid is None):
            raise ValueError("give exactly one of list, grid")
        return self


class Layouts(Spec):
    tables: dict[Name, Layout]


def layouts_of(lines: Sequence[MatrixLine]) -> dict[str, Layout]:
    """Table -> its layout, from the files beside the specs of the lines' rows.

    Raises:
        SpecFaults: one of the files is faulty.
    """
    layouts: dict[str, Layout] = {}
    by_folder: dict[Path, Mapping[str, Layout]] = {}
    for line in lines:
        if line.cells.table not in layouts:
            folder = line.loaded.path.parent
            if folder not in by_folder:
                by_folder[folder] = layouts_beside(folder)
            folder_layouts = by_folder[folder]
            is_twin = line.row.scale == "tiny"
            name = table_of(line.row)
            if name in folder_layouts:
                caption = folder_layouts[name].caption + ", scaled down" * is_twin
                layouts[line.cells.table] = folder_layouts[name].model_copy(
                    update={"caption": caption}
                )
    return layouts


def layouts_beside(folder: Path) -> Mapping[str, Layout]:
    """Of the nearest `_tables.yaml` in the folder and those above it, up to specs/.

    Raises:
        SpecFaults: it is faulty, or names what none of the rows beside it has.
    """
    for place in (folder, *folder.parents):
        if (place / FILE).is_file():
            return read_layouts(place / FILE, place)
        if place.name == HIGHEST:
            break
    return {}


def read_layouts(path: Path, rows: Path | None = None) -> dict[str, Layout]:
    """The layouts of one file; with `rows`, the folder of its rows, its names are looked up there.

    Raises:
        SpecFaults: with every fault, its file, line and column.
    """
    faults: list[Fault] = []
    tree = parse(path, faults)
    if tree is None:
        raise SpecFaults(faults)
    try:
        layouts = Layouts.model_validate(tree.plain())
    except ValidationError as error:
        raise SpecFaults([*faults, *(_fault(item, tree) for item in error.errors())]) from None
    if rows is not None and not faults:
        faults += _unknown_names(tree, layouts.tables, rows)
    if faults:
        raise SpecFaults(faults)
    return layouts.tables


def _fault(item: Any, tree: Node) -> Fault:
    node, mark = tree.at(item["loc"])
    name = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return Fault(mark, f"{name}: unknown key")
    if item["type"] == "missing":
        return Fault(mark, f"{name}: is missing")
    here = "" if isinstance(node.value, dict | list) else f" (here: {node.value!r})"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in NO_MAPPING:
        message = "a mapping of keys to values is wanted"
    return Fault(mark, f"{name}: {message}{here}")


def _unknown_names(tree: Node, layouts: dict[str, Layout], folder: Path) -> Iterator[Fault]:
    """Tables without a row below the folder, and what no row of its table varies or measures.

    Nothing where one of the specs is faulty: what its row has is not known, and its faults are told
    where it is read.
    """
    if not any(_specs(folder)):
        return
    specs = load_usable([folder])
    if specs.faulty:
        return
    rows = grouped((loaded.row for loaded in specs.rows), table_of)
    for table, layout in layouts.items():
        table_rows = rows.get(table, [])
        if not table_rows:
            yield _unknown(
                tree, ("tables", table), "no row here is of the table", table, list(rows)
            )
            continue
        varied = list(dict.fromkeys(name for row in table_rows for name in row.varied))
        metrics = list(
            dict.fromkeys(m for row in table_rows for m in [*row.metrics(), *row.reported])
        )
        for path, kind, name in _names(layout):
            known_names, verb = (varied, "varies") if kind == "varied" else (metrics, "measures")
            if name not in known_names:
                what = f"no row of the table {verb}"
                yield _unknown(tree, ("tables", table, *path), what, name, known_names)


def table_of(row: Row) -> str:
    """The table that the study lays out: a twin's has another name."""
    return row.table.removesuffix(SUFFIX) if row.scale == "tiny" else row.table


def _specs(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.yaml") if not path.name.startswith("_"))


def _names(layout: Layout) -> Iterator[tuple[tuple[Any, ...], str, str]]:
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


def _unknown(
    tree: Node, path: tuple[Any, ...], what: str, name: str, known_names: Sequence[str]
) -> Fault:
    _, mark = tree.at(path)
    near = difflib.get_close_matches(name, known_names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if not near:
        hint = f"; known here: {', '.join(known_names)}" if known_names else ""
    return Fault(mark, f"{'.'.join(map(str, path))}: {what} {name!r}{hint}")


def without(sheet: Sheet) -> Sheet:
    """The matrix of a table whose study gives no layout."""
    return replace(sheet, about=[NO_LAYOUT, *sheet.about])


def study_sheet(name: str, layout: Layout, lines: Sequence[MatrixLine]) -> Sheet:
    """The table as the study has it, of those of the lines that are its own."""
    table_lines = [line for line in lines if line.cells.table == name]
    notes = Notes()
    alike = _marks_of_all(table_lines)
    if layout.grid is not None:
        headings, rows, after = _grid(layout.grid, table_lines, notes, not alike)
    else:
        headings, rows, after = _list(layout.columns or [], table_lines, notes, not alike)
    title = f"{layout.caption} ({layout.source})"
    about = [READING, *[f"Every number of ours in this table: {alike}."] * bool(alike)]
    sheet = Sheet(name, title, headings, rows, about, warning(table_lines), notes.texts, (), after)
    if layout.grid is None:
        return settled(sheet, rows)
    return settled(sheet, [[cell] for row in rows for cell in row[1:] if cell.text])


def _marks_of_all(lines: Sequence[MatrixLine]) -> str:
    """What makes ours simulated where it is the same for several results and all there are."""
    reproduced = [line.cells for line in lines if line.cells.ours is not None]
    of_each = [marks(cells) for cells in reproduced]
    return of_each[0].strip(" ()") if len(of_each) > 1 and len(set(of_each)) == 1 else ""


_Parts = tuple[list[str], list[list[Cell]], list[str]]
"""Headings, rows, sentences below."""


def _list(
    columns: Sequence[Column], table_lines: Sequence[MatrixLine], notes: Notes, marked: bool
) -> _Parts:
    # In the columns' order: a set's would differ from process to process.
    metrics = list(dict.fromkeys(c.metric for c in columns if c.metric is not None))
    rows = []
    for lines in grouped(table_lines, lambda line: line.cells.row).values():
        by_metric = {line.cells.metric: line for line in lines}
        # A row whose judge never ran has one line without a metric.
        metric_lines = {metric: by_metric.get(metric, by_metric.get("")) for metric in metrics}
        cells = [
            _result(metric_lines[column.metric], notes, marked)
            if column.metric is not None
            else Cell(_varied(lines[0], column.varied or ""))
            for column in columns
        ]
        result_lines = [line for line in metric_lines.values() if line is not None]
        verdicts = list(dict.fromkeys(line.cells.verdict for line in result_lines))
        kinds = (", ".join(line.finding_kinds) for line in result_lines)
        finding_kinds = list(dict.fromkeys(filter(None, kinds)))
        rows.append(
            [*cells, Cell(", ".join(verdicts + finding_kinds), notes.add(reasons(result_lines)))]
        )
    return (
        [*(column.heading for column in columns), "verdict"],
        rows,
        _left_out(table_lines, metrics),
    )


def _grid(grid: Grid, table_lines: Sequence[MatrixLine], notes: Notes, marked: bool) -> _Parts:
    placed: dict[tuple[str, str], list[MatrixLine]] = {}
    beside: list[MatrixLine] = []
    for line in table_lines:
        if line.cells.metric not in ("", *grid.metric_names):
            continue
        # A row whose judge never ran has one line without a metric: it stands for each.
        metrics = [line.cells.metric] if line.cells.metric else list(grid.metric_names)
        for metric in metrics:
            metric_name = grid.metric_names[metric]
            place = tuple(metric_name if side is None else _varied(line, side)
                          for side in (grid.rows, grid.columns))  # fmt: skip
            if all(place):
                placed.setdefault((place[0], place[1]), []).append(line)
            elif line not in beside:
                beside.append(line)
    named_rows = grid.metrics if grid.rows is None else grid.row_order
    named_columns = grid.metrics if grid.columns is None else grid.column_order
    down = _in_order([row for row, _ in placed], tuple(named_rows))
    across = _in_order([column for _, column in placed], tuple(named_columns))

    def cell(row: str, column: str) -> Cell:
        lines = placed.get((row, column), [])
        return _joined([_result(line, notes, marked, True) for line in lines])

    rows = [[Cell(row), *(cell(row, column) for column in across)] for row in down]
    after = [f"Beside the grid: {line.cells.row}: {in_study(line, marked)}." for line in beside]
    return (
        [grid.rows or "metric", *across],
        rows,
        after + _left_out(table_lines, grid.metric_names),
    )


def _varied(line: MatrixLine, name: str) -> str:
    return str(line.row.varied.get(name, ""))


def _in_order(names: Sequence[str], order: Sequence[Any]) -> list[str]:
    """What the study names, whether it is there or not, then the others as they come."""
    return list(dict.fromkeys([*map(str, order), *names]))


def _result(line: MatrixLine | None, notes: Notes, marked: bool, verdict: bool = False) -> Cell:
    if line is None:
        return Cell("")
    suffix = ""
    if verdict:
        words = [line.cells.verdict] if line.cells.ours is not None else []
        suffix = "".join(f", {word}" for word in (*words, *line.finding_kinds))
    numbers = notes.add([*_unjudged(line), *notes_of(line)])
    if verdict:
        numbers += notes.add(reasons([line]))
    return Cell(in_study(line, marked) + suffix, numbers)


def _joined(cells: Sequence[Cell]) -> Cell:
    numbers = dict.fromkeys(n for cell in cells for n in cell.notes)
    return Cell("; ".join(cell.text for cell in cells), tuple(numbers))


def _unjudged(line: MatrixLine) -> list[str]:
    extremes = bounds(line)
    if not extremes:
        return []
    c = line.cells
    count = numbers.out_of(c.judged, c.expected)
    return [f"{count} judged; the others all lost, and all won: {extremes}"]


def _left_out(table_lines: Sequence[MatrixLine], metrics: Iterable[str]) -> list[str]:
    """Metrics that the study's table has no place for; they stand in the matrix."""
    other_metrics = sorted({line.cells.metric for line in table_lines} - {*metrics, ""})
    return (
        [f"Not in the study's table, but in the matrix: {', '.join(other_metrics)}."]
        if other_metrics
        else []
    )
