"""Tables of records: local JSON, JSONL, CSV and Parquet files, or a hub data set's folder."""

import contextlib
import csv
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from harness.common.device_faults import pass_on
from harness.common.text_files import ENCODING
from harness.data.records import read_records
from harness.errors import InputError
from harness.spec.hub import HubData

IGNORED = ("readme", "license", "licence")
"""Beginnings of the names of files in a folder that hold no data."""
PARQUET_MAGIC = b"PAR1"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Ending of a file's name -> what parts its cells. Nothing else tells such a table from other texts."""
LONGEST_CELL = 2**31 - 1
DATA = "data.jsonl"
"""Of a data set that the gen stage made, the file with its examples."""
FILE, HUB = "gen.file", "gen.hub"
"""What `import` calls these in a spec; other stages say how theirs are called."""


class Place(TypedDict, total=False):
    """Where a row stands: `line` (from 1) in JSON, `row` (from 0) in what has no lines, and `file`
    where there are several."""

    file: str
    line: int
    row: int


class TableRow(NamedTuple):
    fields: dict[str, Any]
    at: Place
    """For a row of dropped.jsonl."""
    place: str
    """The same for a person."""


@dataclass(frozen=True)
class Table:
    name: str
    """What was read, for messages."""
    columns: list[str]
    rows: list[TableRow]
    used: Mapping[str, object]
    """What was read, for the manifest; no machine's paths."""


class Every(Container[str]):
    """For `needed`: all columns."""

    def __contains__(self, name: object) -> bool:
        return True


def read_files(path: Path, needed: Container[str], field: str = FILE) -> Table:
    """A file, or every file of a folder in the order of their names.

    Hidden files, README and LICENSE are left out; of an artefact's folder only its data.jsonl is
    read. What a file holds is told by its content, but for CSV, which is told by its name. Of a
    Parquet file's columns only the `needed` ones are in the rows. `field`: what the spec calls the
    path, for messages.

    Raises:
        InputError: a file is neither JSON, CSV nor Parquet, is broken, or there is none.
    """
    files = _files_of(path, field)
    rows: list[TableRow] = []
    columns: dict[str, None] = {}
    """In the order in which they are met."""
    formats = set()
    for file in files:
        at: Place = {"file": file.relative_to(path).as_posix()} if len(files) > 1 else {}
        if _is_parquet(file, field):
            kind, (names, file_rows) = "parquet", _parquet_rows(file, at, needed)
        elif file.suffix.lower() in SEPARATORS:
            kind, (names, file_rows) = "csv", _csv_rows(file, at)
        else:
            kind, (names, file_rows) = "json", _json_rows(file, at)
        columns |= dict.fromkeys(names)
        rows += file_rows
        formats.add(kind)
    used = {"file": path.name, "format": " and ".join(sorted(formats)), "files": len(files)}
    return Table(str(path), list(columns), rows, used)


def read_hub(
    folder: Path, hub: HubData, work: Path, needed: Container[str], field: str = HUB
) -> Table:
    """One split of a downloaded data set. No code of the data set's own is run.

    Only the `needed` columns are in the rows. `work` is where the library may write what it makes
    of the files; it is removed again. `field`: what the spec calls `hub`, for messages.

    Raises:
        InputError: there is no such config or split, or the files cannot be read.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    name = f"{hub.id} at {hub.commit}"
    cache = work / "hub_cache"
    shutil.rmtree(cache, ignore_errors=True)
    configs: list[str] = []
    try:
        configs = datasets.get_dataset_config_names(str(folder))
        _check_config(name, hub.config, configs, field)
        splits = datasets.load_dataset(str(folder), name=hub.config, cache_dir=str(cache))
        if hub.split not in splits:
            of = f" of config {hub.config}" if hub.config else ""
            raise InputError(
                f"{name} has no split {hub.split!r}{of}; it has: {', '.join(splits)}",
                f"Name one of them in {field}.split.",
            )
        data = splits[hub.split]
        columns, count = data.column_names, len(data)
        values: dict[str, list[Any]] = {}
        for column in (c for c in columns if c in needed):
            with _naming(column, name):
                values[column] = data[column][:]
    except (DatasetsError, FileNotFoundError, ValueError) as e:
        pass_on(e)
        cause = _cause(e)
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from None
        is_open = hub.config is None and len(configs) > 1
        raise InputError(
            f"{name} cannot be read: {_first_line(cause)}",
            f"Name one of its configs in {field}.config: {', '.join(configs)}." if is_open else "",
        ) from None
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    rows = list(_column_rows(values, count, {}, f"{hub.id}, split {hub.split}"))
    return Table(name, columns, rows, {"hub": hub.model_dump()})


def _files_of(path: Path, field: str) -> list[Path]:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is neither a regular file nor a folder", f"Correct {field}.")
    if not path.is_dir():
        return [path]
    if (path / "manifest.json").is_file() and (path / DATA).is_file():
        return [path / DATA]
    inside = (p.relative_to(path) for p in path.rglob("*") if p.is_file())
    data_files = [
        p
        for p in inside
        if not any(part.startswith(".") for part in p.parts)
        and not p.name.lower().startswith(IGNORED)
    ]
    if not data_files:
        raise InputError(f"the folder {path} holds no data files", f"Correct {field}.")
    return [path / p for p in sorted(data_files, key=lambda p: p.as_posix())]


def _is_parquet(file: Path, field: str) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    except OSError as e:
        raise InputError(f"{file} cannot be read: {e.strerror}", f"Correct {field}.") from None


def _json_rows(file: Path, at: Place) -> tuple[list[str], list[TableRow]]:
    rows = [
        TableRow(record.fields, {**at, "line": record.line}, record.place(file))
        for record in read_records(file)
    ]
    return _columns(row.fields for row in rows), rows


def _csv_rows(file: Path, at: Place) -> tuple[list[str], list[TableRow]]:
    """The first line names the columns; every cell is a text."""
    rows: list[TableRow] = []
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        with file.open(encoding=ENCODING, newline="") as opened:
            table = csv.reader(opened, delimiter=SEPARATORS[file.suffix.lower()], strict=True)
            columns = next(table, [])
            line = table.line_num + 1
            if len(columns) == 1 and ";" in columns[0]:
                raise csv.Error("its cells are parted by semicolons, where commas are wanted")
            for cells in table:
                if cells and len(cells) != len(columns):
                    raise csv.Error(f"{len(cells)} cells below {len(columns)} columns")
                if cells:
                    fields = dict(zip(columns, cells, strict=True))
                    rows.append(TableRow(fields, {**at, "line": line}, f"{file}:{line}"))
                line = table.line_num + 1
    except (UnicodeDecodeError, csv.Error) as e:
        at_line = f":{table.line_num}" if isinstance(e, csv.Error) else ""
        raise InputError(f"{file}{at_line}: not a CSV table: {e}") from None
    finally:
        csv.field_size_limit(limit)
    if len(set(columns)) < len(columns):
        raise InputError(f"{file}:1: two columns have the same name: {', '.join(columns)}")
    if not rows:
        raise InputError(f"{file} holds no records")
    return columns, rows


def _parquet_rows(
    file: Path, at: Place, needed: Container[str]
) -> tuple[list[str], list[TableRow]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            columns = opened.schema_arrow.names
            table = opened.read([c for c in columns if c in needed])
        cells_of = {name: table[name] for name in columns if name in needed}
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as e:
        pass_on(e)
        raise InputError(f"{file} is no Parquet file that can be read: {_first_line(e)}") from None
    values: dict[str, list[Any]] = {}
    for column, cells in cells_of.items():
        with _naming(column, str(file)):
            values[column] = cells.to_pylist()
    return columns, list(_column_rows(values, table.num_rows, at, str(file)))


@contextlib.contextmanager
def _naming(column: str, file: str) -> Iterator[None]:
    """Names the column in which a value is nothing that Python can hold."""
    try:
        yield
    except (ValueError, KeyError, OverflowError) as e:
        raise InputError(
            f"{file}: a value in the column {column!r} cannot be read: {_first_line(e)}",
            "Mend it, or give the file without this column.",
        ) from None


def _column_rows(
    values: dict[str, list[Any]], count: int, at: Place, name: str
) -> Iterator[TableRow]:
    for number in range(count):
        fields = {column: cells[number] for column, cells in values.items()}
        yield TableRow(fields, {**at, "row": number}, f"{name}, row {number}")


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every column that a row has, in the order in which they are met."""
    columns: dict[str, None] = {}
    for fields in rows:
        if not fields.keys() <= columns.keys():
            columns |= dict.fromkeys(fields)
    return list(columns)


def _check_config(name: str, config: str | None, configs: list[str], field: str) -> None:
    if config is not None and config not in configs:
        raise InputError(
            f"{name} has no config {config!r}; it has: {', '.join(configs)}",
            f"Name one of them in {field}.config, or leave it out where there is only one.",
        )


def _cause(error: BaseException) -> BaseException:
    """What went wrong underneath."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
