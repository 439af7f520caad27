"""The volume: artefacts that are there whole or not at all, locks that survive a killed owner."""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any

from harness.artefact import network_files
from harness.artefact.call import MANIFEST, RESULT_FILE
from harness.artefact.environment import command_line
from harness.artefact.keys import digest_of, file_digest
from harness.artefact.locks import Locks
from harness.artefact.manifest import FileRecord, Manifest
from harness.artefact.network_files import (
    VISIBLE_WITHIN_S,
    files_below,
    look_again,
    steadily,
    sync,
)
from harness.common.json_files import read_object
from harness.common.paths import DISK_FULL
from harness.errors import HarnessError, InputError
from harness.spec.hub import HubData
from harness.spec.model_source import HubModel

MANIFEST_FORMAT = 1
FAILED = ".failed"
"""In a work folder: why its stage failed."""
PLAN = ".plan.json"
"""In a work folder: the row that its stage is made for, and what the key is of."""
SHORT = 16
"""Characters of a key that name its folder."""


class Unusable(HarnessError):
    """What stands on the volume of a row was changed, or was never sound: the row has no number, others
    have theirs."""


class Damaged(Unusable):
    """An artefact on the volume is not what its manifest says."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(
            f"the artefact {_name(folder)} was changed after it was made: {what}",
            made_anew(folder),
        )


class MadeOfAnother(Damaged):
    """An artefact on the volume is of another one than that which has its input's key by now."""

    def __init__(
        self, folder: Path, source: Path, after: Sequence[Path], is_known: bool = True
    ) -> None:
        """`after`: those that were made of it. `is_known`: whether its manifest says what it was made
        of; else that was made anew after it."""
        Unusable.__init__(
            self,
            f"the artefact {_name(folder)} was made of another {_name(source)} than is there now: that "
            "was removed since and made anew, and "
            + (
                "came out otherwise"
                if is_known
                else f"whether it came out the same was not written down when {_name(folder)} was made"
            ),
            made_anew(folder, *after),
        )


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def made_anew(folder: Path, *after: Path) -> str:
    """How an artefact that cannot be used is removed and made again, with those made of it."""
    volume = folder.absolute().parent.parent.parent
    names = " ".join(map(_name, (folder, *after)))
    command = command_line("gc", f"--yes {names}", volume=volume)
    return f"Remove it with `{command}`, then run again to make it anew. It stands in {folder}."


RESULTS = {"gen": "data.jsonl", "train": "model/", "answer": "model_outputs.json"}
"""Of a stage, what the names of the files begin with that later stages read."""


@dataclass(frozen=True)
class Artefact:
    """A finished artefact: its folder and what its manifest says."""

    folder: Path
    manifest: Manifest
    left_out: frozenset[str] = frozenset()
    """Files that need not be there: a crate comes without weights."""

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def key(self) -> str:
        return self.manifest.key

    @property
    def content(self) -> str:
        """sha256 of what later stages read of it, by its manifest: the same of two that have one key
        where these cannot tell them apart."""
        names = RESULTS.get(self.stage, "")
        files = self.manifest.files.items()
        return digest_of({name: of["sha256"] for name, of in files if name.startswith(names)})

    def keeps(self, name: str) -> bool:
        """Whether it was made with a file of this name, or has one now: where these differ `check`
        raises Damaged."""
        return name in self.manifest.files or (self.folder / name).is_file()

    def check(self) -> None:
        """Compare every file with its digest.

        Raises:
            Damaged: a file is missing, changed, or was added.
        """
        check_files(self.folder, self.manifest.files, self.left_out)

    def check_file(self, name: str) -> None:
        """Compare one file with its digest, where it was made with one of this name: beside a log may
        stand gigabytes of weights.

        Raises:
            Damaged: it is missing or changed.
        """
        if name in self.manifest.files:
            _check_file(self.folder, name, self.manifest.files[name])


def check_files(
    folder: Path, files: Mapping[str, Mapping[str, Any]], left_out: Collection[str] = ()
) -> None:
    """Compare an artefact's files with what its manifest has under `files`.

    Raises:
        Damaged: a file is missing, changed, or was added.
    """
    present = {str(p.relative_to(folder)) for p in files_below(folder)} - {MANIFEST}
    for name in sorted(present | set(files)):
        if name not in present and name in left_out:
            continue
        if name not in files:
            raise Damaged(folder, f"{name} was added")
        _check_file(folder, name, files[name])


def _check_file(folder: Path, name: str, recorded: Mapping[str, Any]) -> None:
    path = folder / name
    if not path.is_file():
        raise Damaged(folder, f"{name} is missing")
    if not steadily(partial(_is_as_recorded, path, recorded)):
        raise Damaged(folder, f"{name} does not have the bytes it was made with")


def _is_as_recorded(path: Path, recorded: Mapping[str, Any]) -> bool:
    size, digest = recorded["size"], recorded["sha256"]
    return bool(path.stat().st_size == size and file_digest(path) == digest)


class Unwritable(InputError):
    """This user cannot write to the volume."""


class Store:
    """The artefacts on one volume.

    Below the volume: `artefacts/STAGE/KEY`, `work/STAGE-KEY` (unfinished), `locks/`, `logs/`,
    `rows/` (the keys each row used last, for saying what changed), `models/` (hub snapshots),
    `files/SHA256/NAME` (given files that addresses brought).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.locks = Locks(root / "locks")

    def folder(self, stage: str, key: str) -> Path:
        return self.root / "artefacts" / stage / key[:SHORT]

    def work_folder(self, stage: str, key: str) -> Path:
        return self.root / "work" / f"{stage}-{key[:SHORT]}"

    def hub_folder(self, hub: HubModel | HubData, code: bool = False) -> Path:
        """Where a snapshot stands; one with the model's own code stands apart. There is none of an open
        revision."""
        kind = "models" if isinstance(hub, HubModel) else "datasets"
        name = f"{hub.id.replace('/', '--')}-{(hub.revision or 'open')[:12]}"
        return self.root / kind / (f"{name}-code" if code else name)

    @property
    def files_folder(self) -> Path:
        """Where given files stand that addresses brought: SHA256/NAME."""
        return self.root / "files"

    def note_plan(self, stage: str, key: str, plan: Mapping[str, Any]) -> None:
        """Say in its work folder what a stage is made of, for who must not remove that meanwhile."""
        write_atomically(self.work_folder(stage, key) / PLAN, json.dumps(plan))

    def log_path(self, stage: str, key: str) -> Path:
        return self.root / "logs" / f"{stage}-{key[:SHORT]}.log"

    def prepare(self) -> None:
        """Make the volume's folders.

        Raises:
            Unwritable: the volume cannot be written by this user.
            InputError: others take other locks there.
        """
        try:
            for name in ("artefacts", "work", "locks", "logs", "rows"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self.root / "locks" / f".probe-{socket.gethostname()}-{os.getpid()}"
            probe.touch()
            probe.unlink()
            _ = self.locks.kind
        except OSError as e:
            if e.errno in DISK_FULL:
                raise
            if e.errno == errno.EROFS:
                way = f"mount this one for writing (`findmnt -T {self.root}` shows how it is mounted)."
            else:
                way = (
                    "with compose, run as yourself: "
                    "HARNESS_UID=$(id -u) HARNESS_GID=$(id -g) docker compose run ..."
                )
            raise Unwritable(
                f"the volume {self.root} cannot be written by user {os.getuid()}: {e.strerror}",
                f"Name another with --volume or HARNESS_DATA; {way}",
            ) from None

    def find(self, stage: str, key: str) -> Artefact | None:
        """The finished artefact, or None.

        Raises:
            Damaged: its manifest was changed or belongs to another key.
        """
        artefact = self._read(self.folder(stage, key))
        if artefact is not None and artefact.key != key:
            raise Damaged(artefact.folder, f"its manifest is of the key {artefact.key}")
        return artefact

    def _read(self, folder: Path) -> Artefact | None:
        try:
            text = self._manifest_text(folder)
            if text is None:
                return None
            document = json.loads(text)
            seal = document.pop("seal")
            is_intact = digest_of(document) == seal
            manifest = Manifest.from_json(document) if is_intact else None
        except (ValueError, KeyError, AttributeError, TypeError, IsADirectoryError, RecursionError):
            raise Damaged(folder, "its manifest cannot be read") from None
        if manifest is None:
            raise Damaged(folder, "its manifest was edited")
        return Artefact(folder, manifest)

    def _manifest_text(self, folder: Path) -> str | None:
        """None where there is no artefact; another machine's may be in sight later than its folder."""
        is_shared = self.locks.file_system.is_shared
        end = time.monotonic() + (VISIBLE_WITHIN_S if is_shared else 0)
        while True:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return steadily(lambda: (folder / MANIFEST).read_text(encoding="utf-8"))
            look_again(folder.parent)
            if not folder.exists():
                if folder.is_symlink():
                    raise Damaged(folder, "it is a link that leads nowhere")
                return None
            look_again(folder)
            if time.monotonic() >= end and not (folder / MANIFEST).exists():
                raise Damaged(folder, "its manifest is missing")
            time.sleep(0.1 if is_shared else 0)

    def all_folders(self) -> list[Path]:
        return sorted(p for p in (self.root / "artefacts").glob("*/*") if p.is_dir())

    def whole(self) -> list[Artefact]:
        """Every artefact whose manifest can be read; damaged ones are left out."""
        artefacts = []
        for folder in self.all_folders():
            with contextlib.suppress(Damaged):
                artefact = self._read(folder)
                if artefact is not None:
                    artefacts.append(artefact)
        return artefacts

    def match(self, prefix: str) -> list[Artefact]:
        """Artefacts whose key (or STAGE/KEY) begins with `prefix`."""
        stage, _, key = prefix.rpartition("/")
        matches = []
        for folder in self.all_folders():
            same = folder.name.startswith(key[:SHORT]) and stage in ("", folder.parent.name)
            artefact = self._read(folder) if same else None
            if artefact is not None and artefact.key.startswith(key):
                matches.append(artefact)
        return matches

    @contextlib.contextmanager
    def lock(
        self, stage: str, key: str, waiting: Callable[[str], None] = lambda owner: None
    ) -> Iterator[int]:
        """Hold the key's lock; `waiting` is told once who holds it.

        It is let go when its owner, and every process that inherited the descriptor this yields, is
        gone, however they ended.

        Raises:
            InputError: others who work on the volume would not see it (harness.artefact.locks).
        """
        with self._full(), self.locks.lock(_lock_name(stage, key), waiting) as descriptor:
            yield descriptor

    @contextlib.contextmanager
    def try_lock(self, stage: str, key: str) -> Iterator[int | None]:
        """The key's lock as `lock` holds it, or None at once where another process has it."""
        with self._full(), self.locks.try_lock(_lock_name(stage, key)) as descriptor:
            yield descriptor

    @contextlib.contextmanager
    def _full(self) -> Iterator[None]:
        """Names the volume where a write says of no file that there is no space for it."""
        try:
            yield
        except OSError as e:
            if e.errno in DISK_FULL and e.filename is None:
                e.filename = str(self.root)
            raise

    def is_locked(self, stage: str, short_key: str) -> bool:
        return self.locks.is_locked(_lock_name(stage, short_key))

    def seen_at_work(self, stage: str, key: str) -> str:
        """Which process works on it, without a try for its lock; empty where none is seen to."""
        return self.locks.seen_holder(_lock_name(stage, key))

    def watched_lock(
        self, stage: str, key: str, lost: Callable[[HarnessError], None]
    ) -> contextlib.AbstractContextManager[None]:
        """Meanwhile `lost` is called, from a thread of its own, once the held lock of the key may be
        another's."""
        return self.locks.watched(_lock_name(stage, key), lost)

    def seal(self, manifest: Manifest, keep: list[str]) -> Artefact:
        """Turn a finished work folder into the artefact.

        What `keep` does not name is removed, every file is digested and synced, the manifest is
        written last, and one rename makes the artefact appear. The stage's result.json goes right
        before that: until then a run that was cut short seals what is there, and repeats nothing.

        Raises:
            HarnessError: something that `keep` names is not there, or the lock was lost; then nothing
                is removed.
        """
        stage, key = manifest.stage, manifest.key
        self.locks.check(_lock_name(stage, key))
        work, final = self.work_folder(stage, key), self.folder(stage, key)
        present = self._read(final)
        if present is not None and present.key == key:
            network_files.remove(work, self._aside(final))
            return present
        missing = [name for name in keep if not (work / name).exists()]
        if missing:
            (work / RESULT_FILE).unlink(missing_ok=True)
            raise HarnessError(
                f"the {stage} stage did not leave {', '.join(missing)}",
                "Run the same command again; its unfinished work is in " + str(work),
            )
        keep_names = {Path(name).parts[0] for name in keep} | {RESULT_FILE}
        for entry in steadily(lambda: list(work.iterdir())):
            if entry.name not in keep_names:
                network_files.remove(entry, self._aside(entry))
        files: dict[str, FileRecord] = {
            str(path.relative_to(work)): steadily(partial(_record, path))
            for path in files_below(work)
            if path != work / RESULT_FILE
        }
        manifest = replace(
            manifest,
            format=MANIFEST_FORMAT,
            files=files,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            absent=manifest.absent - {"format", "files", "finished"},
        )
        document = manifest.to_json()
        sealed = {**document, "seal": digest_of(document)}
        write_atomically(work / MANIFEST, json.dumps(sealed, indent=2, sort_keys=True) + "\n")
        for folder in steadily(lambda: [p for p in work.rglob("*") if p.is_dir()]):
            steadily(partial(sync, folder))
        final.parent.mkdir(parents=True, exist_ok=True)
        result = work / RESULT_FILE
        said = result.read_bytes() if result.exists() else None
        result.unlink(missing_ok=True)
        try:
            network_files.rename(work, final, lambda: self._has_seal(final, sealed["seal"]))
        except OSError:
            if said is not None and work.exists():
                result.write_bytes(said)
            raise
        steadily(lambda: sync(final.parent))
        return Artefact(final, manifest)

    def _has_seal(self, folder: Path, seal: str) -> bool:
        try:
            return bool(json.loads(self._manifest_text(folder) or "{}").get("seal") == seal)
        except (OSError, ValueError, AttributeError, Damaged, RecursionError):
            return False

    def _aside(self, entry: Path) -> Path:
        """Where in `work/` goes what is to be removed; `gc` removes what is left there."""
        name = f"removed-{entry.parent.name}-{entry.name}-{socket.gethostname()}-{os.getpid()}"
        return self.root / "work" / f"{name}-{time.time_ns()}"

    def remove(self, folder: Path) -> None:
        """Remove an artefact, or what else is on the volume, which another process may remove at the
        same time: it disappears in one rename, then its files go."""
        gone = self._aside(folder)
        network_files.rename(folder, gone, lambda: not folder.exists())
        network_files.remove(gone, self._aside(folder))

    def remembered(self, row: str) -> dict[str, str]:
        """The keys that a row's stages had when they last ran or were reused."""
        return read_object(self.root / "rows" / f"{row}.json") or {}

    def remember(self, row: str, keys: dict[str, str]) -> None:
        merged = {**self.remembered(row), **keys}
        write_atomically(
            self.root / "rows" / f"{row}.json", json.dumps(merged, indent=2, sort_keys=True) + "\n"
        )


class ReadStore(Store):
    """What a volume holds; work, locks and logs stand in another folder, `root`."""

    def __init__(self, volume: Path, root: Path) -> None:
        super().__init__(root)
        self.volume = Store(volume)

    def folder(self, stage: str, key: str) -> Path:
        return self.volume.folder(stage, key)

    def hub_folder(self, hub: HubModel | HubData, code: bool = False) -> Path:
        return self.volume.hub_folder(hub, code)

    @property
    def files_folder(self) -> Path:
        return self.volume.files_folder


def _lock_name(stage: str, key: str) -> str:
    return f"{stage}-{key[:SHORT]}"


def _record(path: Path) -> FileRecord:
    """A file's digest and size, once it has reached the disk."""
    sync(path)
    return {"sha256": file_digest(path), "size": path.stat().st_size}


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash, sees the old one or the new one whole.

    Raises:
        OSError: with the name `path`, not that of the part that is written first.
    """
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{get_ident()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            part.unlink()  # it takes space where there is none
        e.filename, e.filename2 = str(path), None
        raise
    steadily(lambda: sync(path.parent))
