"""A file or folder out of an archive or a folder: nothing outside of where it belongs is written, no
link is followed, and what would fill the disk is refused."""

import difflib
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from harness.common.grouping import grouped
from harness.common.numbers import byte_size
from harness.run.given.download import Failed, check_room

ALL = "."
MOST_GROWTH, ALWAYS = 200, 100 * 2**20
"""An archive may unpack to so many times its size, and to so many bytes in any case. Text seldom
shrinks to a twentieth; what is made to fill a disk shrinks to a thousandth and less."""
MOST_ENTRIES = 100_000
BLOCK = 1 << 20
BAD = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
)
"""What reading a damaged archive raises, or one packed in a way that is not known."""


@dataclass(frozen=True)
class ArchiveMember:
    """A file in an archive."""

    name: str
    size: int
    kind: str
    """`file`, `link`, or what else it is."""
    key: object
    """By which its archive finds it."""


class NotInIt(Failed):
    """The archive can be read, and the member is not in it."""


class Archive(Protocol):
    def entries(self) -> Iterator[ArchiveMember]:
        """All but folders, in order."""

    def open(self, entry: ArchiveMember) -> AbstractContextManager[IO[bytes]]: ...

    def close(self) -> None: ...


class _Zip:
    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def entries(self) -> Iterator[ArchiveMember]:
        for info in self._zip.infolist():
            if not info.is_dir():
                is_link = (info.external_attr >> 28) == 0o12
                kind = "encrypted file" if info.flag_bits & 1 else "link" if is_link else "file"
                yield ArchiveMember(info.filename, info.file_size, kind, info)

    def open(self, entry: ArchiveMember) -> AbstractContextManager[IO[bytes]]:
        assert isinstance(entry.key, zipfile.ZipInfo)
        return self._zip.open(entry.key)

    def close(self) -> None:
        self._zip.close()


class _Tar:
    def __init__(self, path: Path, most: int) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115
        self._most = most

    def entries(self) -> Iterator[ArchiveMember]:
        for info in self._tar:
            # What follows is reached by unpacking this.
            if info.offset_data + info.size > self._most:
                raise Failed(_too_large(self._most))
            is_link = info.issym() or info.islnk()
            kind = "file" if info.isfile() else "link" if is_link else "special file"
            if not info.isdir():
                yield ArchiveMember(info.name, info.size, kind, info)

    def open(self, entry: ArchiveMember) -> AbstractContextManager[IO[bytes]]:
        assert isinstance(entry.key, tarfile.TarInfo)
        file = self._tar.extractfile(entry.key)
        assert file is not None
        return file

    def close(self) -> None:
        self._tar.close()


def take(source: Path, member: str | None, target: Path) -> None:
    """Make `target`, a file or a folder, of the member of an archive or of a folder, or, without one,
    of `source` itself.

    Raises:
        Failed: it is not in there, or cannot be taken; `target` may have been begun.
        HarnessError: there is no room for it.
    """
    if source.is_dir():
        _from_folder(source, member, target)
    elif member is None:
        _from_file(source, target)
    elif source.is_file():
        _from_archive(source, member, target)
    else:
        raise Failed("has no such file")


def _from_folder(source: Path, member: str | None, target: Path) -> None:
    path = source if member in (None, ALL) else source / str(member)
    if not path.exists():
        names = [str(p.relative_to(source)) for p in source.rglob("*")]
        raise Failed(_not_in_it(str(member), names))
    inside = source.resolve()
    paths = [path, *path.rglob("*")]
    if all(p.is_dir() for p in paths):
        raise Failed("is a folder without a file in it")
    if any(not p.resolve().is_relative_to(inside) for p in paths):
        raise Failed("holds a link that leads out of it")
    for file in (p for p in paths if not p.is_dir()):
        place = target / file.relative_to(path) if path.is_dir() else target
        place.parent.mkdir(parents=True, exist_ok=True)
        _from_file(file, place)


def _from_file(source: Path, target: Path) -> None:
    if not source.is_file():
        raise Failed("is no regular file" if source.exists() else "has no such file")
    try:
        shutil.copyfile(source, target)
    except PermissionError:
        raise Failed("may not be read by this user") from None


def _from_archive(source: Path, member: str, target: Path) -> None:
    most = max(ALWAYS, MOST_GROWTH * source.stat().st_size)
    try:
        archive = _opened(source, most)
        try:
            chosen = _chosen(archive, member)
            if sum(entry.size for _, entry in chosen) > most:
                raise Failed(_too_large(most))
            check_room(target, sum(entry.size for _, entry in chosen), "what its archive holds")
            for inside, entry in chosen:
                place = target / inside if inside else target
                place.parent.mkdir(parents=True, exist_ok=True)
                _write(archive, entry, place)
        finally:
            archive.close()
    except BAD as e:
        raise Failed(f"has an archive that cannot be read ({e})") from None


def _opened(source: Path, most: int) -> Archive:
    if zipfile.is_zipfile(source) and not tarfile.is_tarfile(source):
        return _Zip(source)
    try:
        return _Tar(source, most)
    except tarfile.ReadError:
        raise Failed(what_it_is(source, "is neither a zip nor a tar archive")) from None


def _chosen(archive: Archive, member: str) -> list[tuple[str, ArchiveMember]]:
    """What is meant: names below the target (empty for a file of its own) and entries."""
    names: list[str] = []
    chosen: dict[str, ArchiveMember] = {}
    for entry in archive.entries():
        parts = [p for p in PurePosixPath(entry.name).parts if p != "."]
        name = "/".join(parts)
        names.append(name)
        if len(names) > MOST_ENTRIES:
            raise Failed(f"has an archive of more than {MOST_ENTRIES:,} files")
        if name != member and member != ALL and not name.startswith(f"{member}/"):
            continue
        if ".." in parts or name.startswith("/") or "\\" in name:
            raise Failed(
                f"has an archive with {entry.name[:80]!r}, which would be written elsewhere"
            )
        if entry.kind != "file":
            raise Failed(f"has an archive in which {name} is no file but a {entry.kind}")
        inside = name if member == ALL else name[len(member) + 1 :]
        chosen[inside] = entry
    if not chosen:
        raise NotInIt(_not_in_it(member, names))
    if "" in chosen:
        return [("", chosen[""])]
    return list(chosen.items())


def _write(archive: Archive, entry: ArchiveMember, place: Path) -> None:
    """A zip's own word for an entry's size may be false."""
    written = 0
    with archive.open(entry) as inside, place.open("wb") as file:
        while block := inside.read(BLOCK):
            written += len(block)
            if written > entry.size:
                raise Failed(f"has an archive in which {entry.name} is larger than it says")
            file.write(block)


def _too_large(most: int) -> str:
    return f"has an archive that unpacks to more than {byte_size(most)}: far too much for its size"


def _not_in_it(member: str, names: list[str]) -> str:
    """The nearest names are files and folders of the same name, or nearly so, wherever they are."""
    if not names:
        return f"has no {member}: it is empty"
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    every_name = sorted({*names, *folders} - {ALL})
    by_last = grouped(every_name, lambda name: PurePosixPath(name).name.lower())
    last = PurePosixPath(member).name.lower()
    matches = difflib.get_close_matches(last, by_last, n=3)
    alike = difflib.SequenceMatcher(None, b=member.lower())

    def likeness(name: str) -> float:
        alike.set_seq1(name.lower())
        return alike.ratio()

    near = sorted((n for m in matches for n in by_last[m]), key=likeness, reverse=True)
    if near:
        return f"has no {member} in it; near: {', '.join(near[:3])}"
    at_top = sorted({PurePosixPath(name).parts[0] for name in names})
    more = f" and {len(at_top) - 5} more" if len(at_top) > 5 else ""
    return f"has no {member} in it; at its top are {', '.join(at_top[:5])}{more}"


def what_it_is(path: Path, message: str) -> str:
    """The message, or what else was sent in the file's place, where the bytes say so."""
    with path.open("rb") as file:
        start = file.read(1024)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "answers with a web page in the file's place, perhaps one to log in on"
    if text.startswith(b"version https://git-lfs"):
        return "answers with a pointer of Git LFS in the file's place"
    return message
