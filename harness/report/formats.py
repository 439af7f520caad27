"""Tables as markdown, CSV, LaTeX and HTML, in one text or as files. All text is escaped: it may be a
model's or a stranger's."""

import errno
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.artefact.store import write_atomically
from harness.common.escape import as_html, csv_table, csv_text, latex, markdown
from harness.common.grouping import grouped
from harness.errors import InputError
from harness.report import layout
from harness.report.sheet import Cell, Sheet, matrix_sheet, ranges
from harness.results import agreement
from harness.results.line import MatrixLine
from harness.results.matrix import COLUMNS, EXPLANATION, with_results

NOT_IN_LATEX = ("cost", "environment", "artefacts")
"""Columns of the matrix that no page is wide enough for; what is empty throughout goes, too."""
ALL = "Of every result"
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def render(
    lines: Sequence[MatrixLine],
    agreements: Sequence[agreement.Agreement],
    form: str,
    layout_name: str,
    every_row: bool = True,
) -> str:
    """All tables of the lines, each by itself, in one text. The same lines give the same bytes.

    Rows without a result are left out where `every_row` is false, but not from a table that its study
    lays out: that has the study's empty lines too.

    `form`: md, csv, latex or html; `layout_name`: `matrix`, the harness's own columns, or `study`, as
    the study lays its table out (harness.report.layout). A table whose study gives no layout has the
    matrix's in both, and says so.

    Raises:
        SpecFaults: a study's `_tables.yaml` is faulty.
    """
    if form == "csv" and layout_name == "matrix":
        listed = lines if every_row else with_results(lines)[0]
        return to_csv(listed, COLUMNS if lines else [])
    write = WRITERS[form]
    text = "\n".join(write(sheet) for sheet in sheets_of(lines, layout_name, every_row))
    if form == "md" and layout_name == "matrix":
        text += agreement.to_markdown(agreements)
    return text


def sheets_of(lines: Sequence[MatrixLine], layout_name: str, every_row: bool = True) -> list[Sheet]:
    """One for each table that has something to show, in the lines' order; `every_row`: see `render`."""
    layouts = layout.layouts_of(lines) if layout_name == "study" else {}
    sheets = []
    for name, table_lines in grouped(lines, lambda line: line.cells.table).items():
        table_layout = layouts.get(name)
        if table_layout is not None:
            sheets.append(layout.study_sheet(name, table_layout, lines))
            continue
        listed, left_out = (table_lines, "") if every_row else with_results(table_lines)
        if not listed:
            continue
        sheet = matrix_sheet(listed, name, f"Table {name}", left_out)
        if layout_name == "study":
            sheet = layout.without(sheet)
        sheets.append(sheet)
    return sheets


def to_csv(lines: Sequence[MatrixLine], columns: Sequence[str] = ()) -> str:
    """The matrix with all its columns, in full precision. `columns`: what they are where there is no
    line."""
    rows = (
        [csv_text(v) if isinstance(v, str) else v for v in vars(line.cells).values()]
        for line in lines
    )
    return csv_table(COLUMNS if lines else columns, rows)


def sheet_to_csv(sheet: Sheet) -> str:
    """A sheet as it is read; the notes of a line stand in a last column."""
    rows = []
    for row in sheet.rows:
        numbers = dict.fromkeys(n for cell in row for n in cell.notes)
        noted = "; ".join([*(sheet.notes[n - 1] for n in numbers), *sheet.general])
        rows.append([csv_text(text) for text in (*(cell.text for cell in row), noted)])
    return csv_table([csv_text(h) for h in (*sheet.headings, "notes")], rows)


def to_markdown(lines: Sequence[MatrixLine], title: str, left_out: str = "") -> str:
    """A page of the matrix of these lines; `left_out`: what is said of rows that have none."""
    return sheet_to_markdown(matrix_sheet(lines, "matrix", title, left_out))


def sheet_to_markdown(sheet: Sheet, level: int = 1) -> str:
    parts = [f"{'#' * level} {markdown(sheet.title)}"]
    parts += [part for sentence in sheet.about for part in ("", markdown(sentence))]
    if sheet.warning:
        parts += ["", f"**{markdown(sheet.warning)}**"]
    parts += ["", _pipes(map(markdown, sheet.headings)), "|" + " --- |" * len(sheet.headings)]
    parts += [_pipes(map(_markdown_cell, row)) for row in sheet.rows]
    parts += [part for sentence in sheet.after for part in ("", markdown(sentence))]
    if sheet.notes or sheet.general:
        parts += ["", f"{'#' * (level + 1)} Notes"]
    if sheet.notes:
        parts += ["", *(f"{n}. {markdown(note)}" for n, note in enumerate(sheet.notes, 1))]
    if sheet.general:
        parts += ["", f"{ALL}:", "", *(f"- {markdown(note)}" for note in sheet.general)]
    return "\n".join(parts) + "\n"


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell) -> str:
    return _noted(markdown(cell.text), cell, lambda n: f"<sup>{n}</sup>")


def _noted(
    text: str,
    cell: Cell,
    mark: Callable[[str], str],
    dash: str = "–",
    number: Callable[[int], str] = str,
) -> str:
    """The text with the numbers of its notes; alone they stand behind a word."""
    runs = [dash.join(map(number, dict.fromkeys(run))) for run in ranges(cell.notes)]
    numbers = ", ".join(runs)
    if not numbers:
        return text
    return text + mark(numbers) if text else f"note{'s' * (len(cell.notes) > 1)} {numbers}"


def sheet_to_latex(sheet: Sheet) -> str:
    """A table for pdflatex with booktabs and no other package, in as many parts as it takes pages. The
    notes stand below the last part, or, where its page has no room for them, in the text after it."""
    columns = [
        n
        for n, heading in enumerate(sheet.headings)
        if heading not in NOT_IN_LATEX and any(row[n].text or row[n].notes for row in sheet.rows)
    ]
    below = [latex(sentence) for sentence in (*sheet.after, *sheet.about)]
    if sheet.warning:
        below.insert(0, f"\\textbf{{{latex(sheet.warning)}}}")
    below += [f"\\textsuperscript{{{n}}} {latex(note)}" for n, note in enumerate(sheet.notes, 1)]
    if sheet.general:
        below.append(f"{ALL}: {'; '.join(map(latex, sheet.general))}")
    listed = [f"\\par\\noindent {paragraph}" for paragraph in below]
    widths = _widths(sheet, columns)
    parts = _pages(sheet, columns, widths)
    label = f"\\label{{tab:{sheet.name}}}"
    text = ["% Needs \\usepackage{booktabs} and nothing else."]
    for number, (rows, _) in enumerate(parts):
        text += _tabular(sheet, columns, widths, rows, "" if number else label)
        if number < len(parts) - 1:
            text.append("\\end{table}")
    small = "{\\scriptsize\\raggedright"
    if parts[-1][1] + sum(math.ceil(len(paragraph) / LINE) for paragraph in below) <= PAGE:
        text += [f"\\par\\medskip{small}", *listed, "\\par}", "\\end{table}"]
    else:
        notes_heading = f"\\par\\noindent\\textbf{{Notes to Table~\\ref{{tab:{sheet.name}}}}}"
        text += ["\\end{table}", small, notes_heading, *listed, "\\par}"]
    return "\n".join(text) + "\n"


LINE = 95
"""Characters of the smallest type that a line of the page holds, roughly."""
PAGE = 52
"""Lines of it that a page holds beside a caption."""


def _widths(sheet: Sheet, columns: Sequence[int]) -> list[float]:
    """Each column's share of the line: its longest word, and of what is left by its longest text.
    Empty where all fit as they are."""
    texts = [[sheet.headings[n], *(row[n].text for row in sheet.rows)] for n in columns]
    longest = [min(max(map(len, column)), 60) + 2 for column in texts]
    if sum(longest) <= 80:
        return []
    words = [
        2.5 + 1.1 * max(len(word) for text in column for word in re.split(r"[\s/=_-]", text))
        for column in texts
    ]
    left = max(LINE - sum(words), 0.0)
    demands = [max(text - word, 0.0) for text, word in zip(longest, words, strict=True)]
    shares = [w + left * a / max(sum(demands), 1) for w, a in zip(words, demands, strict=True)]
    return [0.94 * share / sum(shares) for share in shares]


def _pages(
    sheet: Sheet, columns: Sequence[int], widths: Sequence[float]
) -> list[tuple[list[Sequence[Cell]], int]]:
    """The rows of each part, and how many lines they take."""
    parts: list[tuple[list[Sequence[Cell]], int]] = [([], 3)]
    for row in sheet.rows:
        lines = 1
        for n, width in zip(columns, widths, strict=bool(widths)):
            # A fifth more, for words are not cut to fill a line.
            lines = max(lines, math.ceil(1.2 * len(row[n].text) / (width * LINE)))
        rows, height = parts[-1]
        if rows and height + lines > PAGE:
            parts.append(([row], 3 + lines))
        else:
            parts[-1] = [*rows, row], height + lines
    return parts


def _tabular(
    sheet: Sheet,
    columns: Sequence[int],
    widths: Sequence[float],
    rows: Iterable[Sequence[Cell]],
    label: str,
) -> list[str]:
    """A table up to the end of its tabular."""
    alignment = "".join(f"p{{{width:.3f}\\linewidth}}" for width in widths) or "l" * len(columns)
    return [
        "\\begin{table}[!htbp]",
        f"\\centering\\{'scriptsize' if widths else 'footnotesize'}\\setlength{{\\tabcolsep}}{{2pt}}",
        f"\\caption{{{latex(sheet.title)}{'' if label else ' (continued)'}}}",
        *([label] if label else []),
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        _row((latex(sheet.headings[n]) for n in columns), bool(widths)),
        "\\midrule",
        *(_row((_latex_cell(row[n]) for n in columns), bool(widths)) for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]


def _row(cells: Iterable[str], is_paragraph: bool) -> str:
    # The glue sets a cell ragged and, unlike \raggedright, leaves the row's own \\ alone; \hspace lets
    # TeX break a first word. {} keeps a cell that begins with [ from being taken for an option.
    before = "\\rightskip=0pt plus 1fil\\hspace{0pt}" if is_paragraph else "{}"
    return " & ".join(before + cell if cell else "" for cell in cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    return _noted(latex(cell.text), cell, lambda n: f"\\textsuperscript{{{n}}}", "--")


def sheet_to_html(sheet: Sheet) -> str:
    """One `<table>` with caption, and notes in its foot; it refers to nothing outside itself."""
    name = as_html(sheet.name)
    heads = "".join(f'<th scope="col">{as_html(h)}</th>' for h in sheet.headings)
    parts = [f'<table class="results" id="table-{name}">']
    caption = f"<strong>{as_html(sheet.title)}</strong>"
    caption += f" <em>{as_html(sheet.warning)}</em>" if sheet.warning else ""
    parts += [f"<caption>{caption}</caption>", f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for row in sheet.rows:
        cells = [_html_cell(cell, name) for cell in row]
        first = f'<th scope="row">{cells[0]}</th>' if cells else ""
        parts.append(f"<tr>{first}{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>")
    parts.append("</tbody>")
    foot = [f"<p>{as_html(sentence)}</p>" for sentence in (*sheet.after, *sheet.about)]
    if sheet.notes:
        items = [
            f'<li id="table-{name}-note-{number}">{as_html(note)}</li>'
            for number, note in enumerate(sheet.notes, 1)
        ]
        foot += ["<ol>", *items, "</ol>"]
    if sheet.general:
        items = [f"<li>{as_html(note)}</li>" for note in sheet.general]
        foot += [f"<p>{ALL}:</p>", "<ul>", *items, "</ul>"]
    if foot:
        span = f'<td colspan="{len(sheet.headings)}">'
        parts += [f"<tfoot><tr>{span}", *foot, "</td></tr></tfoot>"]
    return "\n".join([*parts, "</table>"]) + "\n"


def _html_cell(cell: Cell, name: str) -> str:
    return _noted(
        as_html(cell.text),
        cell,
        lambda numbers: f"<sup>{numbers}</sup>",
        number=lambda n: f'<a href="#table-{name}-note-{n}">{n}</a>',
    )


WRITERS: dict[str, Callable[[Sheet], str]] = {
    "md": sheet_to_markdown,
    "csv": sheet_to_csv,
    "latex": sheet_to_latex,
    "html": sheet_to_html,
}

AGREEMENT = "agreement.csv"
ENDINGS = (".csv", ".tex", ".html")
"""Of a table's other files, beside its page of markdown."""


def write_all(
    lines: Sequence[MatrixLine],
    folder: Path,
    agreements: Sequence[agreement.Agreement] = (),
    every_row: bool = True,
) -> list[Path]:
    """Write matrix.{csv,md} and tables/TABLE.{csv,md,tex,html}, and, where a judge judged outputs
    again, agreement.csv and a section of matrix.md.

    LaTeX and HTML are laid out as the study has its table, where it is known how; the page of markdown
    then has both. Files this wrote for a table that no row names any more are removed: their numbers
    are stale.

    Rows without a result, and tables of none but them, are left out where `every_row` is false, and
    counted in the pages of markdown; the study's own layout keeps its empty lines.

    Raises:
        InputError: the folder cannot be written to.
        SpecFaults: a study's `_tables.yaml` is faulty.
    """
    matrix_lines, left_out = (lines, "") if every_row else with_results(lines)
    columns = COLUMNS if lines else []
    texts = {
        "matrix.csv": to_csv(matrix_lines, columns),
        "matrix.md": to_markdown(matrix_lines, "Results matrix", left_out),
    }
    texts["matrix.md"] += agreement.to_markdown(agreements)
    if agreements:
        texts[AGREEMENT] = agreement.to_csv(agreements)
    layouts = layout.layouts_of(lines)
    tables = {line.cells.table for line in matrix_lines}
    for name, table_lines in grouped(lines, lambda line: line.cells.table).items():
        if name not in tables:
            continue
        listed, absent = (table_lines, "") if every_row else with_results(table_lines)
        sheet = matrix_sheet(listed, name, f"Table {name}", absent)
        page = sheet_to_markdown(sheet)
        if name in layouts:
            sheet = layout.study_sheet(name, layouts[name], table_lines)
            page += "\n" + sheet_to_markdown(sheet, level=2)
        texts[f"tables/{name}.csv"] = to_csv(listed)
        texts[f"tables/{name}.md"] = page
        texts[f"tables/{name}.tex"] = sheet_to_latex(sheet)
        texts[f"tables/{name}.html"] = sheet_to_html(sheet)
    with written_to("folder"):
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_atomically(path, text)
        if not agreements and _is_agreement(folder / AGREEMENT):
            (folder / AGREEMENT).unlink()
        for path in (folder / "tables").glob("*.md"):
            is_generated = path.read_text(encoding="utf-8").startswith(_heading(path.stem))
            if is_generated and path.stem not in tables:
                path.unlink()
                for ending in ENDINGS:
                    path.with_suffix(ending).unlink(missing_ok=True)
    return [folder / name for name in texts]


@contextmanager
def written_to(what: str) -> Iterator[None]:
    """Say so where the folder or file that --out names cannot be written to."""
    try:
        yield
    except OSError as e:
        if e.errno not in UNWRITABLE:
            raise
        raise InputError(
            f"{e.filename} cannot be written: {e.strerror}", f"Name another {what} with --out."
        ) from None


def _heading(table: str) -> str:
    """What a table's file begins with, whichever version wrote it."""
    return f"# {markdown(f'Table {table}')}\n\n{EXPLANATION.partition('.')[0]}"


def _is_agreement(path: Path) -> bool:
    """Whether this is a file that `write_all` wrote."""
    heading = ",".join(agreement.COLUMNS)
    return path.is_file() and path.read_text(encoding="utf-8").startswith(heading)
