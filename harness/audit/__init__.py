"""Reads result folders, ours or other people's, recomputes their numbers and looks for faults.

A reader is a `Reader` in a module of harness/audit/readers. Its `find` looks through `source.files`
(or `source.files_named("annotations.json")`), reads with the functions of
harness/audit/parse/files.py, calls `source.skip(path, why)` for a file of its own that it cannot use
(Unreadable) and goes on, and `source.claim(path, ...)` for what no later reader should take. It fills
a Result's metrics, published, findings (`result.add`) and material, and calls `compare(result)`. It
raises nothing but InputError for a fault in the command's options.
"""

import os
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.audit.checks import across
from harness.audit.model import UNFORESEEN, Reader, Result, short
from harness.audit.parse.contents import nearest_miss, packed
from harness.audit.parse.files import AuditSource, is_archive
from harness.audit.readers import (
    alpaca_eval,
    alpagasus,
    artefacts,
    checkpoints,
    lm_eval,
    rubrics,
    trainer_logs,
)
from harness.errors import InputError

__all__ = ["ACROSS", "READERS", "Result", "audit_paths"]

READERS: tuple[Reader[AuditSource], ...] = (
    artefacts.READER,
    alpaca_eval.READER,
    alpagasus.READER,
    trainer_logs.READER,
    lm_eval.READER,
    rubrics.READER,
    checkpoints.READER,
)
"""In the order in which they look; each may claim files."""

ACROSS: tuple[Callable[[list[Result]], None], ...] = (across.check,)
"""Checks across results: each takes all those of one call and adds findings to them."""


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
    for given in (training_data, reference):
        if given is not None and given.exists() and not given.is_file():
            raise InputError(f"{given} is no plain file")
    paths = list(paths)
    results: list[Result] = []
    skipped: list[str] = []
    read_before: set[tuple[str, str]] = set()
    for root, inside in _together(paths):
        source = AuditSource(root, training_data, reference, inside)
        root_results = _results(source)
        skipped += source.skipped
        if root_results and packed(source):
            skipped.append(f"{root}: {packed(source)}")
        for path in inside:
            if root_results and (len(inside) == 1 or source.has_claimed(path)):
                continue
            alone = source if len(inside) == 1 else AuditSource(path, training_data, reference)
            if alone is source or not _results(alone):
                skipped.append(f"{path}: no results were found in it; {nearest_miss(alone)}")
        # A link may lead to what was read before.
        places = [(_absolute(r.path), r.kind) for r in root_results]
        results += [
            r for r, place in zip(root_results, places, strict=True) if place not in read_before
        ]
        read_before.update(places)
    if not results:
        formats = "; ".join(reader.looks_for for reader in READERS)
        message = "there is nothing that could be audited: " + "; ".join(skipped)
        if all(is_archive(path) and not path.is_dir() for path in paths):
            raise InputError(message, "\n".join(map(_unpacked, paths)))
        raise InputError(message, f"Looked for: {formats}.")
    for check in ACROSS:
        try:
            check(results)
        except UNFORESEEN as e:
            skipped.append(f"the results could not be held against each other: {_error_text(e)}")
    results[0].notes += skipped
    return results


def _unpacked(archive: Path) -> str:
    """The command that audits what is in an archive, into a folder beside it."""
    folder = archive.with_name(archive.name[: archive.name.index(".", 1)])
    audit = f"harness audit {shlex.quote(str(folder))}"
    source, target = shlex.quote(str(archive)), shlex.quote(str(folder))
    name = archive.name.lower()
    if name.endswith(".zip"):
        return f"python3 -m zipfile -e {source} {target} && {audit}"
    if ".tar" in name or name.endswith((".tgz", ".tbz2", ".txz")):
        return f"mkdir {target} && tar -xf {source} -C {target} && {audit}"
    return f"Unpack {archive} into a folder, and audit that."


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


def _results(source: AuditSource) -> list[Result]:
    results = [result for reader in READERS for result in _reader_results(reader, source)]
    return sorted(results, key=lambda result: result.path)


def _reader_results(reader: Reader[AuditSource], source: AuditSource) -> list[Result]:
    """A reader's results; none, and a note, where it fails on what nobody foresaw."""
    try:
        results = reader.find(source)
    except UNFORESEEN as e:
        source.skip(source.root, f"could not be read as {reader.name}: {_error_text(e)}")
        return []
    for result in results:
        result.reader = reader
    return results


def _absolute(path: str) -> str:
    try:
        return str(Path(path).resolve())
    except (OSError, RuntimeError, ValueError):
        # A model's name follows the folder's, and may be no name of a file.
        return path


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {short(error)}"
