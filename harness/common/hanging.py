"""Long lines at the terminal, broken so that they stay below their column."""

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

LEAST = 20
"""Columns that a hanging text has at least; on a terminal too narrow for that it hangs below NEAR."""
NEAR = 4


def hanging(console: Console, line: Text, column: int, cut_words: bool = True) -> Text:
    """The line, broken at spaces where the console is narrower, but for one that breaks none (what is
    piped); all but the first part are indented by `column`, also those behind a line break of its own.
    `cut_words`: a word that is longer than a part
    is cut too; else it stays whole, as what is to be copied has to."""
    column = column if console.width >= column + LEAST else NEAR
    first, *others = line.split("\n", allow_blank=True)
    if others:
        below = (Text(" " * column) + other if other else other for other in others)
        lines = (hanging(console, part, column, cut_words) for part in (first, *below))
        return Text("\n").join(lines)
    if console.soft_wrap or line.cell_len <= console.width:
        return line
    body = line[column:]
    width = max(console.width - column, LEAST)
    parts = body.divide(_breaks(body.plain, width, cut_words))
    for part in parts:
        part.rstrip()
    return Text("\n" + " " * column).join([line[:column] + parts[0], *parts[1:]])


def print_hanging(console: Console, line: str | Text, column: int = NEAR) -> None:
    """Print the line as it is (nothing in it is markup), broken as `hanging` breaks it; words that are
    longer than a part stay whole."""
    text = Text(line) if isinstance(line, str) else line
    text = hanging(console, text, column, cut_words=False)
    console.print(text, highlight=False, soft_wrap=True)


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row of cells, of one line each; a column is as wide as its widest cell."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(c + " " * (w - cell_len(c)) for c, w in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]


def _breaks(text: str, width: int, cut_words: bool) -> Iterator[int]:
    """Where parts after the first begin."""
    used = len(text) - len(text.lstrip())
    for word in re.finditer(r"\S+\s*", text):
        cells = cell_len(word[0].rstrip())
        if used and used + cells > width:
            yield word.start()
            used = 0
        begin = word.start()
        pieces = chop_cells(word[0].rstrip(), width) if cut_words and cells > width else []
        for piece in pieces[:-1]:
            begin += len(piece)
            yield begin
            used = 0
        used += cell_len(text[begin : word.end()])
