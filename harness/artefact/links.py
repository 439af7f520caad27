"""The folders of given data that a person names, and the links in them.

A spec may come from others. What it names below a folder of given data has to be in that folder once
every link is followed, in another that the person named beside it, or among the blobs of the hub's
cache whose snapshot the folder is: there every file is a link.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from harness.errors import InputError

SNAPSHOTS, BLOBS = "snapshots", "blobs"
"""The hub's cache: REPOSITORY/snapshots/COMMIT/NAME is a link to REPOSITORY/blobs/DIGEST."""


def folders_of(inputs: Path) -> list[Path]:
    """The folders that `inputs` names, a colon between them unless one has that very name."""
    if inputs.is_dir():
        return [inputs]
    return [Path(name) for name in str(inputs).split(os.pathsep) if name]


def find(inputs: Path, name: str, shown: str) -> Path:
    """Where `name` is below the first of the folders that has it; below the first one where none has.
    A link keeps its own name, which says of what kind the file is.

    Raises:
        InputError: it leads out of what was named; `shown` is what the spec calls it.
    """
    folders = folders_of(inputs)
    real = [_resolved(folder, str(folder)) for folder in folders]
    allowed = [*real, *(blobs for folder in real for blobs in _blobs(folder))]
    paths = [folder / name for folder in real]
    path = Path(os.path.normpath(next((p for p in paths if p.exists()), paths[0])))
    target = _resolved(path, shown)
    if any(target.is_relative_to(folder) for folder in allowed):
        return path
    is_link = any(path.is_relative_to(folder) for folder in real)
    hint = _advice(inputs, target) if is_link else ""
    raise InputError(f"{shown} leads out of the folder of given data {inputs}", hint)


def _advice(inputs: Path, target: Path) -> str:
    """Never to name all of the machine's files, nor a folder for what is not in it."""
    if not os.path.exists(target):
        return f"A link in it leads to {target}, where nothing is: correct the link."
    where = target if target.is_dir() else target.parent
    if where == where.parent:
        return f"A link in it leads to {target}: put the file or folder itself in the link's place."
    return (
        f"A link in it leads to {where}. If you trust that, name both: "
        f"--inputs {inputs}{os.pathsep}{where}"
    )


def _resolved(path: Path, shown: str) -> Path:
    try:
        path.stat()
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise InputError(
                f"{shown} cannot be read: links lead round in a circle at {path}",
                "Put the file or folder itself in the link's place.",
            ) from None
    return path.resolve()


def _blobs(folder: Path) -> Iterator[Path]:
    """Of a snapshot in the hub's cache, or of a folder in one, where its files really are."""
    for parent in (folder, *folder.parents):
        if parent.parent.name == SNAPSHOTS and (parent.parent.parent / BLOBS).is_dir():
            yield parent.parent.parent / BLOBS
            return


def snapshot_of(folder: Path, shown: str) -> Path:
    """Of a repository's folder in the hub's cache its one snapshot; any other folder as it is.

    Raises:
        InputError: it has several, or none.
    """
    snapshots = folder / SNAPSHOTS
    if not (snapshots.is_dir() and (folder / BLOBS).is_dir()):
        return folder
    names = sorted(p.name for p in snapshots.iterdir() if p.is_dir())
    if len(names) == 1:
        return snapshots / names[0]
    head = folder / "refs" / "main"
    main = head.read_text("utf-8").strip() if head.is_file() else ""
    each = ", ".join(f"{SNAPSHOTS}/{n}{' (main)' if n == main else ''}" for n in names)
    raise InputError(
        f"{shown} is a repository in the hub's cache with {len(names) or 'no'} snapshots",
        f"Name one of them: {each}." if names else "Download it anew, or name another folder.",
    )


def files_below(inputs: Path) -> Iterator[Path]:
    """Every file below the folders, but for those that a link elsewhere stands for."""
    for folder in folders_of(inputs):
        real = _resolved(folder, str(folder))
        allowed = [real, *_blobs(real)]
        for path in sorted(real.rglob("*")):
            if path.is_file() and any(path.resolve().is_relative_to(a) for a in allowed):
                yield path


def linked(folder: Path) -> dict[str, Path] | None:
    """Of a folder that holds links: the name of each of its files and where that really is."""
    paths = list(folder.rglob("*"))
    if not any(p.is_symlink() for p in paths):
        return None
    return {str(p.relative_to(folder)): p.resolve() for p in paths if p.is_file()}
