"""The matrix and the tables as files. What would not change stays untouched."""

from collections.abc import Sequence
from pathlib import Path

from harness.artefact.store import write_atomically
from harness.common.escape import markdown
from harness.errors import InputError
from harness.report.formats import (
    by_table,
    sheet_to_html,
    sheet_to_latex,
    sheet_to_markdown,
    to_csv,
    to_markdown,
)
from harness.report.layout import layouts_of, study_sheet
from harness.report.sheet import matrix_sheet
from harness.results import agreement
from harness.results.line import MatrixLine
from harness.results.matrix import COLUMNS, EXPLANATION, with_results

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
    layouts = layouts_of(lines)
    tables = {line.cells.table for line in matrix_lines}
    for name, table_lines in by_table(
        [line for line in lines if line.cells.table in tables]
    ).items():
        listed, absent = (table_lines, "") if every_row else with_results(table_lines)
        texts[f"tables/{name}.csv"] = to_csv(listed)
        texts[f"tables/{name}.md"] = to_markdown(listed, f"Table {name}", absent)
        if name in layouts:
            sheet = study_sheet(name, layouts[name], table_lines)
            texts[f"tables/{name}.md"] += "\n" + sheet_to_markdown(sheet, level=2)
        else:
            sheet = matrix_sheet(listed, name, f"Table {name}", absent)
        texts[f"tables/{name}.tex"] = sheet_to_latex(sheet)
        texts[f"tables/{name}.html"] = sheet_to_html(sheet)
    try:
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
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as e:
        raise InputError(
            f"{e.filename} cannot be written: {e.strerror}", "Name another folder with --out."
        ) from None
    return [folder / name for name in texts]


def _heading(table: str) -> str:
    """What a table's file begins with, whichever version wrote it."""
    return f"# {markdown(f'Table {table}')}\n\n{EXPLANATION.partition('.')[0]}"


def _is_agreement(path: Path) -> bool:
    """Whether this is a file that `write_all` wrote."""
    heading = ",".join(agreement.COLUMNS)
    return path.is_file() and path.read_text(encoding="utf-8").startswith(heading)
