"""What a README claims: its tables, line by line, and the counts of training examples in its text."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from harness.audit.model import UNFORESEEN
from harness.audit.parse.files import AuditSource, Unreadable, read_text, up_to

if TYPE_CHECKING:
    from markdown_it.utils import EnvType

LARGEST_README = 2 * 2**20
"""Characters; in what lies behind them, nobody looks for what a result is said to be."""
LONGEST_CELL = 2_000
"""Characters, in a longer one no link is looked for: that takes the square of its length."""
MOST_EMPTY_CELLS = 2**16
"""That lines shorter than a table's heading may lack, as in markdown-it: else few lines make many."""
_LINE_END = re.compile(r"\r\n?|\n")
_BETWEEN_CELLS = re.compile(r"(?<!\\)\|")
_HAS_LINK_OR_CODE = re.compile(r"[\[`<]")
_PLAIN_LINK = re.compile(r"\[([^\[\]`<>&\\]*)\]\(([A-Za-z0-9_./%#-]+)\)")
"""In which a parser would see no more; most cells with a link are one."""
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
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

    @property
    def where(self) -> str:
        return f"{self.path.name}, line {self.number}"

    @property
    def first(self) -> str:
        return next(iter(self.cells.values()), "")


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
    for place in up_to(folder, top):
        if place != top and top not in place.parents:
            break
        try:
            paths += sorted(p for p in place.iterdir() if p.name.lower() == "readme.md")
        except OSError:
            break
    return paths


def read_claims(path: Path, source: AuditSource) -> tuple[list[ReadmeLine], str]:
    """The lines of a README's tables, and its text. One that cannot be read claims nothing; what is
    passed by of a long one is noted."""
    try:
        text = read_text(path)
        if len(text) > LARGEST_README:
            cut = text.rfind("\n", 0, LARGEST_README) + 1 or LARGEST_README
            line = text.count("\n", 0, cut) + 1
            source.skip(path, f"from line {line:,} on, for it has {len(text):,} characters")
            text = text[:cut]
        return table_lines(path, text), text
    except Unreadable:
        return [], ""
    except UNFORESEEN as e:
        source.skip(path, f"its markdown could not be read ({type(e).__name__})")
        return [], ""


@lru_cache(maxsize=8)
def table_lines(path: Path, text: str) -> list[ReadmeLine]:
    """Every line of every table of a markdown text, as GitHub reads it.
    Cached, for many results may have one README."""
    lines: list[ReadmeLine] = []
    if "|" not in text:
        return lines
    source, blocks, env = _parsed(text)
    for table in (block for block in blocks if block.type == "table"):
        headings, *rows = table.meta["rows"]
        headings, empty = [_shown(heading, env)[0] for heading in _cells(headings)], 0
        for number, row in enumerate(rows, start=table.map[0] + 2):
            cells = _cells(row)[: len(headings)]
            empty += len(headings) - len(cells)
            if empty > MOST_EMPTY_CELLS:
                break
            # A text right below a table is a line of it on GitHub, and is none here.
            if "|" in row:
                shown = [_shown(cell, env) for cell in cells]
                texts = dict(zip_longest(headings, (text for text, _ in shown), fillvalue=""))
                targets = tuple(unquote(target) for _, links in shown for target in links)
                lines.append(ReadmeLine(path, number + 1, source[number].strip(), texts, targets))
    return lines


@lru_cache(maxsize=1)
def _markdown() -> Any:
    """A parser of blocks alone, to which a table is one block. Of what stands within a line it knows
    what shows a link, or keeps one from being one."""
    from markdown_it import MarkdownIt
    from markdown_it.rules_block.table import getLine, table

    def table_block(state: Any, start: int, end: int, silent: bool) -> bool:
        # markdown-it's own goes through each row letter by letter, and makes a token of each cell.
        starts = table(state, start, end, True)
        if silent or not starts:
            return starts
        ends = state.md.block.ruler.getRules("blockquote")
        line = start + 2
        while (
            line < end
            and state.sCount[line] >= state.blkIndent
            and not state.isEmpty(line)
            and not state.is_code_block(line)
            and not any(rule(state, line, end, True) for rule in ends)
        ):
            line += 1
        token = state.push("table", "", 0)
        token.map = [start, line]
        token.meta = {"rows": [getLine(state, n) for n in (start, *range(start + 2, line))]}
        state.line = line
        return True

    markdown = MarkdownIt("commonmark").enable("table").disable("inline")
    markdown.block.ruler.at("table", table_block, {"alt": ["paragraph", "reference"]})
    markdown.inline.ruler.enableOnly(
        ["text", "escape", "backticks", "link", "image", "autolink", "html_inline"]
    )
    return markdown


@lru_cache(maxsize=8)
def _parsed(text: str) -> tuple[list[str], list[Any], "EnvType"]:
    """A markdown text's lines, its blocks, which know from which to which they go, and the addresses
    that its links refer to."""
    env: EnvType = {}
    return _LINE_END.split(text), _markdown().parse(text, env), env


def _cells(row: str) -> list[str]:
    cells = _BETWEEN_CELLS.split(row.strip())
    cells = cells[1:] if cells[0] == "" else cells
    cells = cells[:-1] if cells and cells[-1] == "" else cells
    return [cell.strip().replace("\\|", "|") for cell in cells]


def _shown(cell: str, env: "EnvType") -> tuple[str, list[str]]:
    """A table's cell as it is written, but of links and code what is shown; and the links' targets."""
    if len(cell) > LONGEST_CELL or not _HAS_LINK_OR_CODE.search(cell):
        return cell, []
    if match := _PLAIN_LINK.fullmatch(cell):
        return match[1], [match[2]]
    tokens: list[Any] = []
    markdown = _markdown()
    markdown.inline.parse(cell, markdown, env, tokens)
    links = [str(token.attrs.get("href") or token.attrs.get("src") or "") for token in tokens]
    return "".join(token.content for token in tokens), [link for link in links if link]


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


def only_lines_of(target: Path, names: Iterable[str], source: AuditSource) -> list[ReadmeLine]:
    """Of each README above a folder or file the line that is about it: by a link, else by its name,
    that of a folder above it, or one of `names`. None of one with several, and no telling which."""
    folder = target if target.is_dir() else target.parent
    places = [place.name for place in up_to(folder, source.root) if place != source.root]
    lower_names = {name.lower() for name in [*names, *places]} - {""}
    only_lines = []
    for readme in readmes(folder, source.root):
        lines, _ = read_claims(readme, source)
        of_name = [line for line in lines if line.first.strip("*_` ").lower() in lower_names]
        about = lines_about(lines, target) or of_name
        only_lines += about if len(about) == 1 else []
    return only_lines


def count_in(line: ReadmeLine) -> Count | None:
    """The number of examples in a table's line, where one of its headings says that it is one."""
    for heading, cell in line.cells.items():
        if not _COUNTED.search(heading) or _NOT_ROWS.search(re.sub(r"\(.*?\)", "", heading)):
            continue
        match = _COUNT.match(cell.strip("*_` "))
        if match:
            value = int(match[1].replace(",", ""))
            return Count(value, value, line.where, line.text)
    return None


def counts_in_text(path: Path, text: str) -> list[Count]:
    """Numbers of training examples that the text speaks of, outside tables, code and comments."""
    counts: list[Count] = []
    if not any(map(_ON_TRAINING.search, _LINE_END.split(text))):
        return counts
    for number, line in enumerate(_prose(text), start=1):
        if line.count("|") > 1 or not _ON_TRAINING.search(line):
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


def _prose(text: str) -> list[str]:
    """A text's lines, those of code and of comments empty."""
    source, blocks, _ = _parsed(text)
    lines = list(source)
    for block in blocks:
        # Of a comment that begins a block and never ends, all that follows is part.
        is_open = block.content.lstrip().startswith("<!--") and "-->" not in block.content
        if block.type in ("fence", "code_block") or (is_open and block.type == "html_block"):
            lines[slice(*block.map)] = [""] * (block.map[1] - block.map[0])
    # Behind the last end there is no comment: so each search finds an end, and all are linear together.
    before, end, after = "\n".join(lines).rpartition("-->")
    commented = _COMMENT.sub(lambda match: "\n" * match[0].count("\n"), before + end)
    return (commented + after).split("\n")


def count_in_name(folder: Path, root: Path) -> Count | None:
    """A count at the beginning of the folder's name, or of one above it up to `root`, such as
    `1735-default-prompt`."""
    for place in up_to(folder, root):
        match = _COUNT_IN_NAME.match(place.name)
        if match and match[2].lower() not in _NO_COUNT and not _is_order_or_date(match, place):
            value = int(match[1])
            return Count(value, value, "the folder's name", place.name)
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
