"""What a README claims: its tables, line by line, and the counts of training examples in its text."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from harness.audit.parse.files import Unreadable, read_text

_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_COUNT = re.compile(r"^[~≈]?\s*(\d{1,3}(?:,\d{3})+|\d+)(?![\d.,%]*[.%\d])")
_COUNTED = re.compile(
    r"\b(rows?|examples?|samples?|instances?|records?|instructions?|sum|count|data ?set size)\b",
    re.IGNORECASE,
)
_NOT_ROWS = re.compile(
    r"\b(batch|token|tokens|step|steps|epoch|epochs|param\w*|seed|seeds only|per|eval\w*|test|judged?|"
    r"prompts?|rate|win|loss|score|length|link|model|s|second|seconds|hours?)\b",
    re.IGNORECASE,
)
_COUNT_IN_TEXT = re.compile(
    r"(?P<about>about|around|approximately|approx\.?|roughly|nearly|almost|over|some|~|≈|circa|ca\.)?"
    r"\s*(?<![\w.,/$-])(?P<count>\d{1,3}(?:,\d{3})+|\d{2,7})\s*(?P<thousand>k\b)?\+?\s+"
    r"(?:[a-z-]+\s+){0,3}?(?:rows|examples|samples|instances|records|instructions|entries|pairs|"
    r"data points|instruction data)\b",
    re.IGNORECASE,
)
_ON_TRAINING = re.compile(
    r"\b(train\w*|fine-?tun\w*|sft|data ?set|generated?|instruction data)\b", re.IGNORECASE
)
_ON_OTHER = re.compile(
    r"\b(eval\w*|test|tests|tested|benchmark\w*|validat\w*|held.?out|seeds?|filter\w*|from|out of|"
    r"subset|judge\w*|prompts|alpaca_?eval|original\w*|per)\b",
    re.IGNORECASE,
)
ROUGH = 0.1
"""How far a count may be off that is said to be about so many."""
_COUNT_IN_NAME = re.compile(r"^([1-9]\d{1,5})[-_. ]+([A-Za-z]+)")
"""Not `01_sft`: an order, or a date."""
_NO_COUNT = frozenset(
    """
    b m k x steps step epoch epochs ep shot shots len length bs lr batch tokens tok bit bits layers gpu
    gpus h hours days jan feb mar apr may jun jul aug sep oct nov dec run seed th st nd rd v checkpoint
    ckpt dim rank r warmup warm max min percent pct char chars words
    """.split()  # noqa: SIM905
)
"""What a number at the beginning of a name may be about instead."""


@dataclass(frozen=True)
class ReadmeLine:
    """A line of a table: heading -> cell's text; `links`: where its cells point to."""

    path: Path
    number: int
    text: str
    cells: dict[str, str]
    links: tuple[str, ...]


@dataclass(frozen=True)
class Count:
    """So many training examples are claimed; `low` to `high` where it is a rough number."""

    low: float
    high: float
    where: str
    """`README.md, line 12`"""
    quote: str


def readmes(folder: Path, root: Path) -> list[Path]:
    """The READMEs from a folder up to `root`, the nearest first."""
    paths: list[Path] = []
    top = root if root.is_dir() else root.parent
    for place in (folder, *folder.parents):
        if place != top and top not in place.parents:
            break
        try:
            paths += sorted(p for p in place.iterdir() if p.name.lower() == "readme.md")
        except OSError:
            break
    return paths


def read_claims(path: Path) -> tuple[list[ReadmeLine], str]:
    """The lines of a README's tables, and its text. One that cannot be read claims nothing."""
    try:
        text = read_text(path)
    except Unreadable:
        return [], ""
    return table_lines(path, text), text


def table_lines(path: Path, text: str) -> list[ReadmeLine]:
    """Every line of every table of a markdown text, as GitHub reads it."""
    source, root = _parsed(text)
    lines: list[ReadmeLine] = []
    for table in (node for node in root.walk() if node.type == "table"):
        head, *rows = (node for node in table.walk() if node.type == "tr")
        for row in rows:
            written = source[row.map[0]].strip()
            # A text right below a table is a line of it on GitHub, and is none here.
            if "|" in written:
                cells = {_shown(h): _shown(cell) for h, cell in zip(head, row, strict=True)}
                links = [node.attrs.get("href") or node.attrs.get("src") for node in row.walk()]
                targets = tuple(unquote(link) for link in links if link)
                lines.append(ReadmeLine(path, row.map[0] + 1, written, cells, targets))
    return lines


@lru_cache(maxsize=8)
def _parsed(text: str) -> tuple[list[str], Any]:
    """A markdown text's lines, and the tree of its blocks, which know from which to which they go.
    Cached, for many results may have one README."""
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

    source = text.splitlines()
    tokens = MarkdownIt("commonmark").enable("table").parse("\n".join(source))
    return source, SyntaxTreeNode(tokens)


def _shown(cell: Any) -> str:
    """A table's cell as it is written, but of links what is shown."""
    return _LINK.sub(r"\1", cell.children[0].content)


def lines_about(lines: Iterable[ReadmeLine], target: Path) -> list[ReadmeLine]:
    """The lines one of whose links leads to `target`, or to something below or around it."""
    resolved_target = target.resolve()
    matches = []
    for line in lines:
        for link in line.links:
            if "://" in link or link.startswith("#"):
                continue
            try:
                leads = (line.path.parent / link).resolve()
            except (OSError, ValueError, RuntimeError):
                continue
            if resolved_target == leads or resolved_target in leads.parents:
                matches.append(line)
                break
    return matches


def count_in(line: ReadmeLine) -> Count | None:
    """The number of examples in a table's line, where one of its headings says that it is one."""
    for heading, cell in line.cells.items():
        if not _COUNTED.search(heading) or _NOT_ROWS.search(re.sub(r"\(.*?\)", "", heading)):
            continue
        match = _COUNT.match(cell.strip("*_` "))
        if match:
            value = int(match[1].replace(",", ""))
            return Count(value, value, f"{line.path.name}, line {line.number}", line.text)
    return None


def counts_in_text(path: Path, text: str) -> list[Count]:
    """Numbers of training examples that the text speaks of, outside tables and code."""
    counts = []
    source, root = _parsed(text)
    code = {i for node in root.walk() if node.type == "fence" for i in range(*node.map)}
    for number, line in enumerate(source, start=1):
        if number - 1 in code or line.count("|") > 1 or not _ON_TRAINING.search(line):
            continue
        for match in _COUNT_IN_TEXT.finditer(line):
            near = line[max(0, match.start() - 40) : match.end() + 40]
            if _ON_OTHER.search(near):
                continue
            value = int(match["count"].replace(",", "")) * (1000 if match["thousand"] else 1)
            slack = ROUGH if match["about"] or match["thousand"] else 0.0
            counts.append(
                Count(value * (1 - slack), value * (1 + slack), f"{path.name}, line {number}",
                      line.strip())
            )  # fmt: skip
    return counts


def count_in_name(folder: Path, root: Path) -> Count | None:
    """A count at the beginning of the folder's name, or of one above it up to `root`, such as
    `1735-default-prompt`."""
    for place in (folder, *folder.parents):
        match = _COUNT_IN_NAME.match(place.name)
        if match and match[2].lower() not in _NO_COUNT and not _is_order_or_date(match, place):
            value = int(match[1])
            return Count(value, value, "the folder's name", place.name)
        if place == root:
            break
    return None


def _is_order_or_date(match: re.Match[str], place: Path) -> bool:
    """A year, `yymmdd`, `mmdd`, or a number of two digits such as a stage's; and the number before or
    after that of a folder beside it."""
    text, value = match[1], int(match[1])
    if _COUNTED.match(match[2]):
        return False
    if len(text) == 2 or (len(text) == 4 and 1990 <= value <= 2100):
        return True
    if len(text) in (4, 6) and 1 <= int(text[-4:-2]) <= 12 and 1 <= int(text[-2:]) <= 31:
        return True
    try:
        beside = [_COUNT_IN_NAME.match(p.name) for p in place.parent.iterdir() if p.is_dir()]
    except OSError:
        return False
    return any(other and abs(int(other[1]) - value) == 1 for other in beside)
