"""Reads result folders, ours or other people's, recomputes their numbers and looks for faults.

A reader is a module of this package with

    LOOKS_FOR: str                              what it reads, in words, for who gave something else
    find(source: AuditSource) -> list[Result]   a Result for each result set below source.root

`find` looks through `source.files` (or `source.files_named("annotations.json")`), reads with the
functions of harness/audit/parse/files.py, calls `source.skip(path, why)` for a file of its own that
it cannot use (Unreadable) and goes on, and `source.claim(path, ...)` for what no later reader
should take. It fills a Result's metrics, published, findings (`result.add`), and calls
`compare(result)`. It raises nothing but InputError for a fault in the command's options.

Checks across results (ACROSS) take all the results of one call and add findings to them. They read
`Result.material`, of which every part may be absent:

    outputs     {instruction: output}           what the model answered
    judgements  [(instruction, preference, raw completion or None)], in the file's order
    judge       the annotator's name
    settings    {setting: value}                how the outputs were made, such as temperature
    files       {file name: sha256}             of outputs and annotations
    line        {figure: number}                of the leaderboard that has this model alone
"""

import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

from harness.audit.model import UNFORESEEN, Finding, Result, short
from harness.audit.parse.contents import nearest_miss, packed
from harness.audit.parse.files import AuditSource
from harness.errors import InputError

__all__ = ["ACROSS", "READERS", "Finding", "Result", "audit_paths"]

READERS = [
    "harness.audit.readers.artefacts",
    "harness.audit.readers.alpaca_eval",
    "harness.audit.readers.alpagasus",
    "harness.audit.readers.trainer_logs",
    "harness.audit.readers.lm_eval",
    "harness.audit.readers.rubrics",
    "harness.audit.readers.checkpoints",
]
"""In the order in which they look; each may claim files. Imported when an audit begins."""

ACROSS = ["harness.audit.checks.across"]
"""Modules with `check(results: list[Result]) -> None`."""


def audit_paths(
    paths: Iterable[Path], training_data: Path | None = None, reference: Path | None = None
) -> list[Result]:
    """The results below the paths (files or folders), in the order given and then by path.

    Paths in one folder, or in a folder and below it, are read as that folder, restricted to them.

    training_data: the data set that logs were trained on. reference: the prompt set or baseline
    outputs that say how many prompts are expected. What was passed by stands in the notes of the first
    result of a path.

    Raises:
        InputError: a path does not exist, an option's file is faulty, or nothing could be read.
    """
    readers = [importlib.import_module(name) for name in READERS]
    results: list[Result] = []
    skipped: list[str] = []
    read_before: set[tuple[str, str]] = set()
    for root, inside in _together(paths):
        source = AuditSource(root, training_data, reference, inside)
        root_results = _results(readers, source)
        skipped += source.skipped
        if root_results and packed(source):
            skipped.append(f"{root}: {packed(source)}")
        for path in inside:
            if root_results and (len(inside) == 1 or source.has_claimed(path)):
                continue
            alone = source if len(inside) == 1 else AuditSource(path, training_data, reference)
            if alone is source or not _results(readers, alone):
                skipped.append(f"{path}: no results were found in it; {nearest_miss(alone)}")
        # A link may lead to what was read before.
        places = [(_absolute(r.path), r.kind) for r in root_results]
        results += [
            r for r, place in zip(root_results, places, strict=True) if place not in read_before
        ]
        read_before.update(places)
    if not results:
        formats = "; ".join(str(reader.LOOKS_FOR) for reader in readers)
        raise InputError(
            "there is nothing that could be audited: " + "; ".join(skipped),
            f"Looked for: {formats}.",
        )
    for name in ACROSS:
        check: Callable[[list[Result]], None] = importlib.import_module(name).check
        try:
            check(results)
        except UNFORESEEN as e:
            skipped.append(f"the results could not be held against each other: {_error_text(e)}")
    results[0].notes += skipped
    return results


def _together(paths: Iterable[Path]) -> list[tuple[Path, list[Path]]]:
    """The highest of the paths' folders, each with the paths in and below it, in its spelling."""
    folders = {
        path: Path(os.path.realpath(path if os.path.isdir(path) else path.parent)) for path in paths
    }
    distinct = set(folders.values())
    tops: dict[Path, list[Path]] = {}
    for path, folder in folders.items():
        top = next(p for p in (*reversed(folder.parents), folder) if p in distinct)
        tops.setdefault(top, []).append(path)
    groups = []
    for top, inside in tops.items():
        first = next(path for path in inside if folders[path] == top)
        root = first if os.path.isdir(first) else first.parent
        spelled = []
        for path in inside:
            folder = root / folders[path].relative_to(top)
            spelled.append(folder if os.path.isdir(path) else folder / path.name)
        unique = list(dict.fromkeys(spelled))
        groups.append((root if len(unique) > 1 else unique[0], unique))
    return groups


def _results(readers: Sequence[ModuleType], source: AuditSource) -> list[Result]:
    results = [result for reader in readers for result in _reader_results(reader, source)]
    return sorted(results, key=lambda result: result.path)


def _reader_results(reader: ModuleType, source: AuditSource) -> list[Result]:
    """A reader's results; none, and a note, where it fails on what nobody foresaw."""
    try:
        results: list[Result] = reader.find(source)
    except UNFORESEEN as e:
        word = reader.__name__.rpartition(".")[2]
        source.skip(source.root, f"could not be read as {word}: {_error_text(e)}")
        return []
    return results


def _absolute(path: str) -> str:
    try:
        return str(Path(path).resolve())
    except (OSError, RuntimeError, ValueError):
        # A model's name follows the folder's, and may be no name of a file.
        return path


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {short(error)}"
