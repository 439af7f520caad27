"""A table as people read it, before it is markdown, LaTeX or HTML: cells, and notes by number."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from harness.results.line import HEADINGS, MatrixLine, display
from harness.results.matrix import EXPLANATION, LOSSES, lowest

SIMULATED = (
    "Rows marked simulated come from the harness's own simulated teacher or judge, or are scaled down. "
    "They show that the pipeline works, and say nothing about any real model."
)


@dataclass(frozen=True)
class Cell:
    text: str
    notes: tuple[int, ...] = ()
    """Numbers of the sheet's notes, from 1."""


@dataclass(frozen=True)
class Sheet:
    """One table; nothing in it is escaped."""

    name: str
    """Of letters, digits and `-_.`: what links to it are made of."""
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    about: Sequence[str] = ()
    """How the columns are to be read."""
    warning: str = ""
    """What must not be overlooked."""
    notes: Sequence[str] = ()
    general: Sequence[str] = ()
    """Notes that hold for every result of the table."""
    after: Sequence[str] = ()
    """Sentences below."""


@dataclass
class Notes:
    """Collects notes; the same text has one number."""

    texts: list[str] = field(default_factory=list)

    def add(self, texts: Iterable[str]) -> tuple[int, ...]:
        numbers = []
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
            numbers.append(self.texts.index(text) + 1)
        return tuple(dict.fromkeys(numbers))


def notes_of(line: MatrixLine) -> list[str]:
    """What must stand with a line's numbers: findings, deviations, assumptions."""
    return [
        *[line.elsewhere[:1].upper() + line.elsewhere[1:]] * bool(line.elsewhere),
        *(f"Finding: {finding}" for finding in line.findings),
        *(f"Deviation: {deviation}" for deviation in line.deviations),
        *(f"Assumption: {assumption}" for assumption in line.row.stated("assumption")),
    ]


def reasons(lines: Sequence[MatrixLine]) -> list[str]:
    """What the verdicts are founded on."""
    return [
        f"{line.cells.verdict.capitalize()}: {line.cells.verdict_reason}"
        for line in lines
        if line.cells.verdict_reason and line.cells.verdict != "simulated"
    ]


def settled(sheet: Sheet, units: Sequence[Sequence[Cell]]) -> Sheet:
    """The sheet with notes that every unit has told once and without a number, and the others numbered
    as they come. `units`: the cells of each result."""
    of_each = [{n for cell in unit for n in cell.notes} for unit in units]
    shared = set.intersection(*of_each) if of_each else set()
    order = list(dict.fromkeys(n for row in sheet.rows for cell in row for n in sorted(cell.notes)))
    numbered = [n for n in order if n not in shared]
    number = {old: new for new, old in enumerate(numbered, start=1)}
    rows = [
        [replace(c, notes=tuple(sorted(number[n] for n in c.notes if n in number))) for c in row]
        for row in sheet.rows
    ]
    return replace(
        sheet,
        rows=rows,
        notes=[sheet.notes[n - 1] for n in numbered],
        general=[note for n, note in enumerate(sheet.notes, start=1) if n in shared],
    )


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as runs: [1, 3, 4, 5] -> [(1, 1), (3, 5)]."""
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n - 1:
            runs[-1] = runs[-1][0], n
        else:
            runs.append((n, n))
    return runs


def matrix_sheet(lines: Sequence[MatrixLine], name: str, title: str, left_out: str = "") -> Sheet:
    """The harness's own columns, a line each. `left_out`: what is said of rows that have no line."""
    notes = Notes()
    rows = []
    for line in lines:
        cells = dict(zip(HEADINGS, map(Cell, display(line)), strict=True))
        cells["verdict"] = Cell(line.cells.verdict, notes.add(reasons([line])))
        cells["notes"] = Cell(", ".join(line.finding_kinds), notes.add(notes_of(line)))
        rows.append(list(cells.values()))
    about = [EXPLANATION]
    if any(line.cells.measure.is_loss for line in lines):
        about.append(LOSSES)
    after = [*lowest(lines), *[f"{left_out}."] * bool(left_out)]
    sheet = Sheet(name, title, HEADINGS, rows, about, warning(lines), notes.texts, (), after)
    return settled(sheet, rows)


def warning(lines: Sequence[MatrixLine]) -> str:
    return SIMULATED if any(line.cells.simulated for line in lines) else ""
