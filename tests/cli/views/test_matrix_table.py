"""The matrix at a wide terminal is the table that rich would lay out."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.views.terminal import TABLE_HEADINGS, _show_table


def by_rich(console: Console, rows: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in TABLE_HEADINGS:
        table.add_column(heading, overflow="fold")
    for cells in rows:
        table.add_row(*map(Text, cells))
    console.print(table)


@pytest.mark.parametrize("width", [130, 190, 300])
@pytest.mark.parametrize(
    "cell", ["a", "", "[bold]markup[/]", "語の幅 wide", "x" * 40, "two\nlines", ":smile: 50.0"]
)
def test_a_table_is_as_rich_lays_it_out_whether_or_not_cells_are_folded(
    width: int, cell: str
) -> None:
    rows = [[f"row-{n}", *[cell] * (len(TABLE_HEADINGS) - 2), "end"] for n in range(3)]
    shown = []
    for show in (_show_table, by_rich):
        console = Console(file=io.StringIO(), width=width)
        show(console, rows)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        shown.append([line.rstrip() for line in lines])
    assert shown[0] == shown[1]


def test_piped_a_wide_table_is_not_folded() -> None:
    console = Console(file=io.StringIO(), width=200, soft_wrap=True)
    _show_table(console, [["x" * 300, *[""] * (len(TABLE_HEADINGS) - 2), "end"]])
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 2
    assert lines[1].startswith("x" * 300)
