"""The matrix and the tables as files. What would not change stays untouched."""

from collections.abc import Sequence
from pathlib import Path

from harness.errors import InputError
from harness.report import agreement
from harness.report.escape import markdown
from harness.report.formats import (
    sheet_to_html,
    sheet_to_latex,
    sheet_to_markdown,
    sheets_of,
    to_csv,
    to_markdown,
)
from harness.report.layout import layouts_of
from harness.report.matrix import EXPLANATION, Line
from harness.report.sheet import matrix_sheet
from harness.store import write_atomically

AGREEMENT = "agreement.csv"
ENDINGS = (".csv", ".tex", ".html")
"""Of a table's other files, beside its page of markdown."""


def write_all(
    lines: Sequence[Line], folder: Path, agreements: Sequence[agreement.Agreement] = ()
) -> list[Path]:
    """Write matrix.{csv,md} and tables/TABLE.{csv,md,tex,html}, and, where a judge judged outputs
    again, agreement.csv and a section of matrix.md.

    LaTeX and HTML are laid out as the study has its table, where it is known how; the page of markdown
    then has both. Files this wrote for a table that no row names any more are removed: their numbers
    are stale.
    """
    tables: dict[str, list[Line]] = {}
    for line in lines:
        tables.setdefault(line.table, []).append(line)
    texts = {"matrix.csv": to_csv(lines), "matrix.md": to_markdown(lines, "Results matrix")}
    texts["matrix.md"] += agreement.to_markdown(agreements)
    if agreements:
        texts[AGREEMENT] = agreement.to_csv(agreements)
    layouts = layouts_of(lines)
    for study, (name, own) in zip(sheets_of(lines, "study"), tables.items(), strict=True):
        texts[f"tables/{name}.csv"] = to_csv(own)
        texts[f"tables/{name}.md"] = to_markdown(own, f"Table {name}")
        shown = study if name in layouts else matrix_sheet(own, name, f"Table {name}")
        texts[f"tables/{name}.tex"] = sheet_to_latex(shown)
        texts[f"tables/{name}.html"] = sheet_to_html(shown)
        if name in layouts:
            texts[f"tables/{name}.md"] += "\n" + sheet_to_markdown(study, level=2)
    try:
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_atomically(path, text)
        if not agreements and _is_agreement(folder / AGREEMENT):
            (folder / AGREEMENT).unlink()
        for path in (folder / "tables").glob("*.md"):
            ours = path.read_text(encoding="utf-8").startswith(_heading(path.stem))
            if ours and path.stem not in tables:
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
