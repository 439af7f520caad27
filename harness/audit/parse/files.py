"""The files below a given path: found without following links out of it, read without a traceback."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.common.numbers import byte_size
from harness.common.progress import counted
from harness.errors import InputError

LARGEST = 512 * 2**20
"""Bytes; a larger file is no table of results."""
TEXTS = frozenset({".json", ".jsonl", ".csv", ".tsv", ".md", ".txt", ".yaml", ".yml", ".log"})
"""Suffixes of what a reader may open; weights, pictures and archives are passed by."""
ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")
"""How names of packed files end."""
PASSED_BY = frozenset({".git", ".venv", "node_modules", "__pycache__"})
WORK = "work"
"""Of a volume: the stages that are not finished."""
MOST_FILES = 200_000


LARGEST_NUMBER = 1e15
"""Beyond, doubles skip whole numbers, and sums of squares overflow."""
Content = TypeVar("Content")


class Unreadable(Exception):
    """A file that is not what its name says; the message says why, without the path."""


def number(value: Any) -> float | None:
    """A number of a size that can be meant, also one written as text."""
    if isinstance(value, bool):
        return None
    try:
        parsed = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return parsed if abs(parsed) < LARGEST_NUMBER else None


class JsonObject(dict[str, Any]):
    """An object of somebody else's JSON: what stands in it may be of any kind, or not be there."""

    def text(self, *names: str) -> str | None:
        """The first of these that is a text."""
        return next((self[name] for name in names if isinstance(self.get(name), str)), None)

    def number(self, name: str) -> float | None:
        return number(self.get(name))

    def object(self, name: str) -> "JsonObject":
        """An object; an empty one, where there is none."""
        value = self.get(name)
        return JsonObject(value) if isinstance(value, dict) else JsonObject()

    def objects(self, name: str) -> list["JsonObject"]:
        """The objects of a list."""
        return [JsonObject(entry) for entry in self.entries(name) if isinstance(entry, dict)]

    def entries(self, name: str) -> list[Any]:
        """A list; an empty one, where there is none."""
        value = self.get(name)
        return value if isinstance(value, list) else []


class AuditSource:
    """A path that the user gave, or paths of one folder, with the text files below.

    root: the path as given, or the folder. paths: what was given, in and below the root.
    training_data, reference: the command's options. skipped: what was passed by and why, in words, for
    the user.
    """

    def __init__(
        self,
        root: Path,
        training_data: Path | None = None,
        reference: Path | None = None,
        paths: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self.paths = paths or [root]
        self.training_data = training_data
        self.reference = reference
        self.skipped: list[str] = []
        self.contents: dict[Path, Any] = {}
        """What each file is by its content, as far as it was looked at
        (harness/audit/parse/contents.py)."""
        self.archives: list[Path] = []
        """Not looked into."""
        self._claimed: set[Path] = set()
        self._files = sorted({file for path in self.paths for file in self._walk(path)})

    @property
    def files(self) -> list[Path]:
        """Those that no reader has claimed yet, sorted."""
        return [p for p in self._files if p not in self._claimed]

    @property
    def all_files(self) -> list[Path]:
        """Claimed ones too."""
        return self._files

    def files_named(self, *names: str) -> list[Path]:
        """Unclaimed files of these names, in any letter case."""
        lower_names = {n.lower() for n in names}
        return [p for p in self.files if p.name.lower() in lower_names]

    def claim(self, *paths: Path) -> None:
        """Keep files (or all below a folder) from the readers that follow."""
        for path in paths:
            self._claimed.update(p for p in self._files if p == path or path in p.parents)

    def has_claimed(self, path: Path) -> bool:
        """Whether a reader claimed the file, or one below the folder."""
        return path in self._claimed or (
            path.is_dir() and any(path in p.parents for p in self._claimed)
        )

    def skip(self, path: Path, why: str) -> None:
        note = f"{path} was passed by: {why}"
        if note not in self.skipped:
            self.skipped.append(note)

    def read(self, read: Callable[[Path], Content], path: Path) -> Content | None:
        """A file's content; None, and a note, where it is Unreadable."""
        try:
            return read(path)
        except Unreadable as e:
            self.skip(path, str(e))
            return None

    def _walk(self, path: Path) -> Iterator[Path]:
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if not path.is_dir():
            if not path.is_file():
                raise InputError(f"{path} is no plain file")
            if is_archive(path):
                self.archives.append(path)
            else:
                yield path
            return
        inside = self.root.resolve()
        file_count = 0
        for folder, folders, names in os.walk(path, onerror=self._no_entry):
            linked = [f for f in folders if Path(folder, f).is_symlink()]
            for name in linked:
                self.skip(Path(folder, name), "a link to a folder")
            folders[:] = sorted(f for f in folders if f not in PASSED_BY and f not in linked)
            if "artefacts" in folders and WORK in folders:  # a volume
                folders.remove(WORK)
                self._pass_by_work(Path(folder, WORK))
            for name in sorted(names):
                path = Path(folder, name)
                if is_archive(path):
                    self.archives.append(path)
                if path.suffix.lower() not in TEXTS:
                    continue
                file_count += 1
                if file_count > MOST_FILES:
                    raise InputError(
                        f"{self.root} holds more than {MOST_FILES:,} text files",
                        "Name the folders with the results.",
                    )
                if self._is_readable(path, inside):
                    yield path

    def _pass_by_work(self, work: Path) -> None:
        """What a volume's stages have begun: none of it is whole, nor sealed."""
        count = sum(folder.is_dir() for folder in work.iterdir()) if os.access(work, os.R_OK) else 0
        if count:
            self.skip(work, f"{counted(count, 'stage')} not finished, and so not sealed")

    def _is_readable(self, path: Path, inside: Path) -> bool:
        try:
            if path.is_symlink() and not path.resolve(strict=True).is_relative_to(inside):
                self.skip(path, "a link that leads out of the folder")
            elif not path.is_file():
                self.skip(path, "no plain file")
            elif path.stat().st_size > LARGEST:
                self.skip(path, byte_size(path.stat().st_size))
            else:
                return True
        except (OSError, RuntimeError) as e:
            self.skip(path, getattr(e, "strerror", None) or "a link that leads nowhere")
        return False

    def _no_entry(self, error: OSError) -> None:
        self.skip(Path(error.filename), error.strerror or "it cannot be opened")


def up_to(folder: Path, root: Path) -> Iterator[Path]:
    """A folder and those above it, the last of them `root`."""
    for place in (folder, *folder.parents):
        yield place
        if place == root:
            return


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """A folder's own files of these suffixes, sorted; none of one that cannot be opened."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    except OSError:
        return []


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def read_text(path: Path) -> str:
    """Raises Unreadable: no permission, binary, or not UTF-8."""
    try:
        if path.stat().st_size > LARGEST:
            raise Unreadable(f"it has over {byte_size(LARGEST)}")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text") from None
    except OSError as e:
        raise Unreadable(e.strerror or "it cannot be opened") from None
    if "\0" in text:
        raise Unreadable("it is binary")
    return text


def read_json(path: Path) -> Any:
    """Raises Unreadable. NaN and Infinity, which Python writes, are read as floats."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as e:
        raise Unreadable(f"line {e.lineno}, column {e.colno}: not JSON ({e.msg})") from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError as e:
        raise Unreadable(f"not JSON ({e})") from None


def read_lines(path: Path, may_be_cut: bool = False) -> list[Any]:
    """A JSONL file's values; empty lines are left out, and where the file `may_be_cut` a last line
    that a killed run left unfinished. Raises Unreadable, with the line."""
    values: list[Any] = []
    lines = [(n, s) for n, s in enumerate(read_text(path).split("\n"), 1) if s.strip()]
    for number, line in lines:
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError) as e:
            if may_be_cut and values and number == lines[-1][0]:
                break
            fault = "nested too deeply" if isinstance(e, RecursionError) else "not JSON"
            raise Unreadable(f"line {number} is {fault}") from None
    return values


def read_rows(path: Path) -> list[JsonObject]:
    """A list of objects, as JSON or JSONL. Raises Unreadable."""
    return objects_in(read_lines(path) if path.suffix.lower() == ".jsonl" else read_json(path))


def objects_in(values: Any) -> list[JsonObject]:
    """A file's value, where that is a list of objects. Raises Unreadable."""
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        raise Unreadable("it is no list of objects")
    return [JsonObject(value) for value in values]


def read_object(path: Path) -> JsonObject:
    """Raises Unreadable."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise Unreadable("it is no object")
    return JsonObject(value)


def read_table(path: Path) -> list[dict[str, str]]:
    """A CSV file's lines by its heading; what a line lacks is "". Raises Unreadable."""
    text = io.StringIO(read_text(path), newline="")
    try:
        table = list(csv.DictReader(text, restval="", strict=True))
    except csv.Error as e:
        raise Unreadable(f"not CSV ({e})") from None
    return [{k: v for k, v in line.items() if isinstance(k, str)} for line in table]
