"""What specs name by address, onto the volume: a mirror first, then the addresses in their order.

Nothing is kept that has not the sha256 of its spec. A download that broke off stays in the volume's
`work/` and is gone on with; two processes that want the same file take turns.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from rich.console import Console

from harness.artefact.keys import Files, digest_of
from harness.artefact.network_files import sync
from harness.artefact.store import SHORT, Store
from harness.common.paths import remove, size_of
from harness.common.progress import ProgressView, note_event
from harness.errors import DataAbsent, HarnessError, InputError, NotFetched
from harness.run.executors import waiting
from harness.run.given.archive import NotInIt, take, what_it_is
from harness.run.given.download import Failed, Patience, Tell, download, redirected, tag_file
from harness.spec.address import check_address, file_address, path_of, shown
from harness.spec.base import DataPath

MIRROR = "HARNESS_MIRROR"
PACE = Patience()
STAGE, ARCHIVE = "file", "archive"
"""What its locks and unfinished work are called on the volume."""


@dataclass(frozen=True)
class FileSource:
    address: str
    is_whole: bool
    """Whether it has the file itself, and not the archive that it is a member of."""
    is_mirror: bool = False


class NotBrought(HarnessError):
    """Files could not be had; exit code 2 where every address says so for good."""

    def __init__(self, failures: Sequence["Failure"]) -> None:
        first = failures[0]
        message, hint = str(first), first.hint()
        if len(failures) > 1:
            message = "\n".join([f"{len(failures)} given files cannot be had", *map(str, failures)])
        super().__init__(message, hint)
        self.exit_code = 2 if all(f.is_lasting for f in failures) else 1


@dataclass(frozen=True)
class Failure:
    data: DataPath
    reasons: tuple[tuple[FileSource, Failed], ...]

    @property
    def is_lasting(self) -> bool:
        return all(reason.is_lasting for _, reason in self.reasons)

    @property
    def keeps_archive(self) -> bool:
        """Whether an archive came whole that has another member than the spec names: the right name, or
        digest, is then all that is wanting."""
        return any(isinstance(reason, WrongMember) for _, reason in self.reasons)

    def __str__(self) -> str:
        each = [f"{self._from(source)} {reason}" for source, reason in self.reasons]
        return f"{self.data.name} cannot be had: {'; '.join(each)}"

    def _from(self, source: FileSource) -> str:
        """The address of which the data has its name is not said again."""
        place = _from(source)
        return "the address" if place == self.data.name.partition(" ")[0] else place

    def hint(self) -> str:
        if self.keeps_archive:
            return (
                "Correct `member` or sha256 in the spec: the archive is kept, and not fetched again "
                f"for that. Or name a mirror that has the file in {MIRROR}, or a copy on disk with "
                "`path:`."
            )
        if not self.is_lasting:
            return (
                "Run the same command again when the network is there: what has come stays. "
                f"Or name a mirror in {MIRROR}, or a copy on disk with `path:`."
            )
        return (
            f"Correct its url or sha256 in the spec, name a mirror that has it in {MIRROR}, or a "
            "copy on disk with `path:`."
        )


class WrongMember(Failed):
    """What an archive, which is kept, has under the member's name is none, or another file."""


def _from(source: FileSource) -> str:
    return f"the mirror {shown(source.address)}" if source.is_mirror else shown(source.address)


def lacking(wanted: Iterable[DataPath], files: Files) -> list[DataPath]:
    """Of given data what an address is still to bring, each file once.

    Raises:
        InputError: what is on disk is not what its spec pins.
    """
    absent: dict[tuple[str | None, str], DataPath] = {}
    for data in wanted:
        try:
            files.locate(data)
        except NotFetched:
            absent.setdefault((data.sha256, data.file_name), data)
        except InputError:
            continue  # those who read it say so
    return list(absent.values())


def check_addressed(wanted: Iterable[DataPath], files: Files) -> None:
    """Raises DataAbsent where no address brings what is absent."""
    absent: dict[str, DataAbsent] = {}
    for data in wanted:
        try:
            files.locate(data)
        except DataAbsent as e:
            absent.setdefault(data.name, e)
    if absent:
        message = f"no address brings {', '.join(absent)}; all else that is named is there"
        raise DataAbsent(message, next(iter(absent.values())).hint)


def bring(wanted: Iterable[DataPath], store: Store, files: Files, console: Console) -> list[Path]:
    """Bring what `lacking` names onto the volume; where each file then is.

    Raises:
        NotBrought: some could not be had; every one was tried.
        InputError: the volume cannot be written; HARNESS_MIRROR names no mirror.
        HarnessError: there is no room.
    """
    absent = lacking(wanted, files)
    if not absent:
        return []
    store.prepare()
    mirror = mirror_address()
    failures, brought = [], []
    for data in absent:
        bringer = _Bringer(data, store, files, console)
        try:
            brought.append(bringer.bring([*mirrored(data, mirror), *_sources(data)]))
        except _AllFailed as e:
            failures.append(Failure(data, e.reasons))
    unfinished = {_archive_digest(f.data) for f in failures if not f.is_lasting or f.keeps_archive}
    for digest in {_archive_digest(data) for data in absent if data.member} - unfinished:
        with store.lock(ARCHIVE, digest):
            shutil.rmtree(store.work_folder(ARCHIVE, digest), ignore_errors=True)
    if failures:
        raise NotBrought(failures)
    return brought


def mirror_address() -> str | None:
    """What HARNESS_MIRROR names: an address, or a folder of this machine.

    Raises:
        InputError: neither.
    """
    value = os.environ.get(MIRROR, "").strip()
    if not value:
        return None
    if "://" not in value and not value.startswith("file:"):
        if not Path(value).is_dir():
            raise InputError(f"{MIRROR} names no folder that is there, and no address: {value}")
        return file_address(Path(os.path.abspath(value)))
    try:
        # By http: too: the operator of the network named it, and every file is held to its sha256.
        return check_address(value, plain_http=True).rstrip("/")
    except ValueError as e:
        # Not its value, which may hold a password.
        raise InputError(f"{MIRROR} cannot be used: {e}") from None


def mirrored(data: DataPath, mirror: str | None) -> Iterator[FileSource]:
    """Where a mirror may have it: SHA256/NAME, as below a volume's `files/`, or HOST/PATH of a url, as
    `wget -x` names it: with the port and the query that the url has, else without them."""
    if mirror is None:
        return
    yield FileSource(f"{mirror}/{data.sha256}/{quote(data.file_name)}", True, True)
    for address in data.url:
        parts = urlsplit(address)
        if parts.scheme == "file":
            continue
        query = f"%3F{quote(parts.query)}" if parts.query else ""
        places = [
            f"{h}{parts.path}{q}" for h in (parts.netloc, parts.hostname) for q in (query, "")
        ]
        for place in dict.fromkeys(places):
            yield FileSource(f"{mirror}/{place}", data.member is None, True)


def _sources(data: DataPath) -> Iterator[FileSource]:
    for address in data.url:
        yield FileSource(address, data.member is None)


def units(data: DataPath) -> list[tuple[str, str]]:
    """What is locked, and has an unfinished folder, while the data is brought: stage and short key."""
    keys = [(STAGE, str(data.sha256)), (ARCHIVE, _archive_digest(data))] if data.url else []
    return [(stage, key[:SHORT]) for stage, key in keys]


def _archive_digest(data: DataPath) -> str:
    """By which an archive is kept while its members are taken: those of one spec often share one."""
    return digest_of(list(data.url))


class _AllFailed(Exception):
    def __init__(self, reasons: tuple[tuple[FileSource, Failed], ...]) -> None:
        super().__init__()
        self.reasons = reasons


class _Bringer:
    """Brings one file."""

    def __init__(self, data: DataPath, store: Store, files: Files, console: Console) -> None:
        self.data = data
        self.store = store
        self.files = files
        self.console = console
        self.digest = str(data.sha256)
        self.work = store.work_folder(STAGE, self.digest)
        self.final = store.files_folder / self.digest / data.file_name

    def bring(self, sources: Sequence[FileSource]) -> Path:
        title = f"fetch: {self.data.name}"

        with self.store.lock(STAGE, self.digest, waiting(self.console, title)):
            if self.final.exists() or self._has_another_name():
                return self.final
            self.work.mkdir(parents=True, exist_ok=True)
            try:
                with ProgressView(self.console, title) as view:
                    self._from_first(sources, view.show)
                shutil.rmtree(self.work)
            finally:
                _drop_empty(self.work)
        return self.final

    def _has_another_name(self) -> bool:
        """Whether the same file stood there under another name, and stands under this one now."""
        folder = self.final.parent
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_file() and self.files.digest_path(path) == self.digest:
                self.work.mkdir(parents=True, exist_ok=True)
                copied = self.work / self.data.file_name
                shutil.copyfile(path, copied)
                self._keep(copied)
                shutil.rmtree(self.work)
                return True
        return False

    def _from_first(self, sources: Sequence[FileSource], tell: Tell) -> None:
        reasons: list[tuple[FileSource, Failed]] = []
        for source in sources:
            try:
                self._from(source, tell)
            except Failed as e:
                reasons.append((source, e))
                if not source.is_mirror and len(sources) > len(reasons):
                    tell(note_event(f"{_from(source)} {e}; the next address is tried"))
            else:
                return
        if all(reason.is_lasting for _, reason in reasons):
            shutil.rmtree(self.work)
        raise _AllFailed(tuple(reasons))

    def _from(self, source: FileSource, tell: Tell) -> None:
        target = self.work / self.data.file_name
        remove(target)
        member = None if source.is_whole else self.data.member
        local = path_of(source.address)
        try:
            if local is not None:
                take(local, member, target)
                self._check(target, tell)
            elif member is None:
                self._download(source, tell)
            else:
                self._from_archive(source, member, target, tell)
        except (Failed, OSError):
            remove(target)
            raise
        self._keep(target)

    def _download(self, source: FileSource, tell: Tell) -> None:
        """Into the work folder, under its name, once its digest is right; where what was gone on with
        is not, from the beginning once more."""
        part = self.work / "part"
        for is_last in (False, True):
            resumed = part.exists()
            answered = source.address
            if not (resumed and self.files.digest_path(part) == self.digest):
                answered = self._downloaded(source, part, tell)
            try:
                self._check(part, tell, redirected(source.address, answered))
            except Failed:
                remove(part)
                if is_last or not resumed:
                    raise
                tell(note_event("it is not the file: from the beginning once more"))
            else:
                part.rename(self.work / self.data.file_name)
                return

    def _downloaded(self, source: FileSource, part: Path, tell: Tell) -> str:
        try:
            return download(source.address, part, self.data.bytes, tell, PACE)
        except Failed:
            if (
                self.data.bytes is not None
                and part.exists()
                and part.stat().st_size > self.data.bytes
            ):
                remove(part)
            raise

    def _from_archive(self, source: FileSource, member: str, target: Path, tell: Tell) -> None:
        digest = _archive_digest(self.data)
        folder = self.store.work_folder(ARCHIVE, digest)
        with self.store.lock(ARCHIVE, digest):
            folder.mkdir(parents=True, exist_ok=True)
            part, whole = folder / "part", folder / digest_of(source.address)[:16]
            answered = source.address
            try:
                if not whole.is_file():
                    answered = download(source.address, part, None, tell, PACE)
                    part.rename(whole)
                self._member(whole, member, target, tell)
            except WrongMember as e:
                kept = f"; the archive is kept in {whole}, and removing it has it fetched again"
                where = redirected(source.address, answered)
                raise WrongMember(f"{e}{where}{kept}", e.is_lasting) from None
            except Failed as e:
                remove(whole)
                where = redirected(source.address, answered)
                raise Failed(f"{e}{where}", e.is_lasting) from None
            finally:
                _drop_empty(folder)

    def _member(self, archive: Path, member: str, target: Path, tell: Tell) -> None:
        """Raises WrongMember where the archive can be read, and what is meant is not in it."""
        try:
            take(archive, member, target)
        except NotInIt as e:
            raise WrongMember(str(e)) from None
        try:
            self._check(target, tell)
        except Failed as e:
            raise WrongMember(str(e)) from None

    def _check(self, path: Path, tell: Tell, where: str = "") -> None:
        """`where`: in brackets to where the address has sent."""
        digest, size, said = self.files.digest_path(path), size_of(path), self.data.bytes
        if digest == self.digest:
            if said not in (None, size):
                wrong = f"it has {size:,} bytes, and its spec says {said:,}: correct `bytes`"
                tell(note_event(wrong))
            return
        message = f"answers with another file: its sha256 is {digest}, the spec says {self.digest}"
        if said not in (None, size):
            message += f"; it has {size:,} bytes, the spec says {said:,}"
        raise Failed((what_it_is(path, message) if path.is_file() else message) + where)

    def _keep(self, target: Path) -> None:
        """One rename makes it appear, whole."""
        folder = self.final.parent
        for path in [target, *target.rglob("*")]:
            sync(path)
        if not folder.is_dir():
            staging = self.work / "kept"
            staging.mkdir(exist_ok=True)
            target.rename(staging / target.name)
            folder.parent.mkdir(exist_ok=True)
            staging.rename(folder)
        else:
            target.rename(self.final)
        sync(folder.parent)


def _drop_empty(folder: Path) -> None:
    """Remove a work folder in which no part of anything is."""
    tag = tag_file(folder / "part")
    if folder.is_dir() and all(path == tag for path in folder.iterdir()):
        shutil.rmtree(folder)
