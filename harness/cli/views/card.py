"""A data card at the terminal. All text is escaped: rules and names may come from anywhere."""

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.common.commands import harness
from harness.common.hanging import print_hanging
from harness.common.progress import plain
from harness.errors import HarnessError
from harness.gen.card.record import Card
from harness.gen.card.text import SIMULATED, Section, sections

BAR_WIDTH = 24
DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of rendering a card whose values are missing or of another kind."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def show_card(console: Console, card: Card, row: str = "") -> None:
    """Print what card.json says; `row`: the one that made the data set.

    Raises:
        HarnessError: the card has a format that this version does not read, or is damaged.
    """
    try:
        parts = list(_parts(card, row))
    except DAMAGE:
        raise HarnessError(
            "the data card is damaged: card.json does not hold what its format says",
            f"Remove its artefact with `{harness('gc', '--yes gen/KEY')}`, then run the row again to "
            "make it anew.",
        ) from None
    for part in parts:
        if isinstance(part, Text):
            print_hanging(console, part)
        else:
            console.print(part, highlight=False)


def _parts(card: Card, row: str) -> Iterator[Text | Table]:
    parts = sections(card, row)
    if card["simulated"]:
        yield Text(SIMULATED, "yellow")
    for part in parts:
        yield Text()
        yield Text(part.title, "bold")
        for line in part.lines:
            yield Text(f"  {plain(line)}")
        if part.rows:
            yield _table(part)


def _table(part: Section) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 0, 0, 2))
    for place, heading in enumerate(part.headings):
        is_text = any(_is_text(row[place]) for row in part.rows)
        table.add_column(escape(heading), justify="left" if is_text else "right", overflow="fold")
    if part.bars:
        table.add_column("", no_wrap=True, min_width=BAR_WIDTH)
    for place, row in enumerate(part.rows):
        bar = [f"[cyan]{_bar(part.bars[place])}[/]"] if part.bars else []
        table.add_row(*(escape(plain(cell)) for cell in row), *bar)
    return table


def _is_text(cell: str) -> bool:
    return not cell[:1].isdigit() and cell != "–"


def _bar(share: float) -> str:
    """A bar of at most BAR_WIDTH characters; what is there at all shows at least a line."""
    if not 0 <= share <= 1:
        raise ValueError("a part is larger than its whole")
    eighths = round(share * BAR_WIDTH * 8)
    if share > 0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
