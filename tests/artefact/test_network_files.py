"""The store over a file system that behaves as NFS may: stale handles, lost answers, files that are
removed while they are open, and names that other machines see late."""

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.artefact import locks, network_files
from harness.artefact.call import MANIFEST, RESULT_FILE
from harness.artefact.file_system import FileSystem
from harness.artefact.manifest import Manifest
from harness.artefact.store import Damaged, Store, write_atomically

KEY = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "file_system_of", lambda folder: FileSystem("nfs4", "server:/x"))
    monkeypatch.setattr(network_files, "PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "volume")
    store.prepare()
    return store


def work_folder(store: Store, content: bytes = b"weights") -> Path:
    work = store.work_folder("train", KEY)
    (work / "model").mkdir(parents=True)
    (work / "model" / "weights").write_bytes(content)
    (work / "checkpoints").mkdir()
    (work / "checkpoints" / "1").write_text("a checkpoint")
    (work / RESULT_FILE).write_text("{}")
    return work


def seal(store: Store) -> Path:
    return store.seal(Manifest(stage="train", key=KEY), ["model"]).folder


class Fails:
    """A function of the system's that fails so many times, before or after it did what it is to do."""

    def __init__(
        self, real: Callable[..., Any], code: int, times: int, is_done: bool = False
    ) -> None:
        self.real, self.code, self.left, self.is_done = real, code, times, is_done

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        if self.left == 0:
            return self.real(*arguments, **more)
        self.left -= 1
        if self.is_done:
            self.real(*arguments, **more)
        raise OSError(self.code, os.strerror(self.code), str(arguments[0]))


def test_a_stale_handle_is_looked_up_again_at_every_step_of_a_seal(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_folder(store)
    for name in ("rename", "fsync", "scandir"):
        monkeypatch.setattr(os, name, Fails(getattr(os, name), errno.ESTALE, 2))
    seal(store)
    artefact = store.find("train", KEY)
    assert artefact is not None
    monkeypatch.setattr(os, "stat", Fails(os.stat, errno.ESTALE, 2))
    artefact.check()


def test_a_handle_that_stays_stale_is_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_folder(store)
    monkeypatch.setattr(os, "rename", Fails(os.rename, errno.ESTALE, 99))
    with pytest.raises(OSError, match="Stale file handle"):
        seal(store)
    assert (work / RESULT_FILE).exists(), "the stage need not run again"
    assert store.find("train", KEY) is None


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EIO, errno.ESTALE])
def test_a_rename_that_was_done_although_an_error_came_back_is_told_by_the_seal(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    work = work_folder(store)
    monkeypatch.setattr(os, "rename", Fails(os.rename, code, 1, is_done=True))
    folder = seal(store)
    assert not work.exists()
    artefact = store.find("train", KEY)
    assert artefact is not None
    assert artefact.folder == folder
    artefact.check()


def test_a_rename_that_failed_and_left_another_artefact_there_is_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_folder(store)

    def other_first(source: Any, target: Any) -> None:
        if str(target) == str(store.folder("train", KEY)):
            monkeypatch.undo()
            monkeypatch.setattr(locks, "file_system_of", lambda folder: FileSystem("ext4"))
            store.folder("train", KEY).mkdir()
            (store.folder("train", KEY) / MANIFEST).write_text(json.dumps({"seal": "another's"}))
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        real(source, target)

    real = os.rename
    monkeypatch.setattr(os, "rename", other_first)
    with pytest.raises(OSError, match="not empty"):
        seal(store)
    assert (work / RESULT_FILE).exists()


def test_where_another_machine_sealed_the_same_artefact_its_own_stays(store: Store) -> None:
    work_folder(store, b"first")
    first = seal(store)
    work = work_folder(store, b"second")
    assert seal(store) == first
    assert (first / "model" / "weights").read_bytes() == b"first"
    assert not work.exists()


def test_an_empty_folder_in_the_artefacts_place_is_said_to_be_damaged_and_nothing_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import harness.artefact.store as module

    monkeypatch.setattr(module, "VISIBLE_WITHIN_S", 0.2)
    work = work_folder(store)
    store.folder("train", KEY).mkdir(parents=True)
    with pytest.raises(Damaged, match="its manifest is missing"):
        seal(store)
    assert (work / "checkpoints" / "1").exists()
    assert (work / RESULT_FILE).exists()


def test_an_artefact_whose_folder_is_in_sight_before_its_manifest_is_waited_for(
    store: Store,
) -> None:
    work_folder(store)
    folder = seal(store)
    (folder / MANIFEST).rename(store.root / "hidden")
    later = threading.Timer(0.5, lambda: (store.root / "hidden").rename(folder / MANIFEST))
    later.start()
    try:
        artefact = store.find("train", KEY)
        assert artefact is not None
    finally:
        later.join()


def test_on_a_local_disk_a_missing_manifest_is_said_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "file_system_of", lambda folder: FileSystem("ext4"))
    work_folder(store)
    (seal(store) / MANIFEST).unlink()
    began = time.monotonic()
    with pytest.raises(Damaged, match="its manifest is missing"):
        Store(store.root).find("train", KEY)
    assert time.monotonic() - began < 2


def test_what_another_machine_sealed_meanwhile_is_found_under_the_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was looked for in vain is remembered as absent until its folder is opened anew."""
    work_folder(store)
    folder = seal(store)
    absent = {str(folder / MANIFEST), str(folder)}
    opened = os.open

    def open_anew(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path) == str(folder.parent):
            absent.clear()
        return opened(path, *arguments, **more)

    real_open, real_stat = Path.read_text, os.stat

    def read(path: Path, *arguments: Any, **more: Any) -> str:
        if str(path) in absent:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return real_open(path, *arguments, **more)

    def stat(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        if str(path) in absent:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return real_stat(path, *arguments, **more)

    monkeypatch.setattr(os, "open", open_anew)
    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(os, "stat", stat)
    assert store.find("train", KEY) is not None


@pytest.fixture
def silly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Removing a file that is open gives it another name, under which it cannot be removed."""
    real = os.unlink

    def is_open(path: Any, dir_fd: int | None) -> bool:
        inode = os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_ino
        for number in os.listdir("/proc/self/fd"):
            try:
                if os.stat(f"/proc/self/fd/{number}").st_ino == inode:
                    return True
            except OSError:
                continue
        return False

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        name = os.path.basename(os.fspath(path))
        if not is_open(path, dir_fd):
            real(path, dir_fd=dir_fd)
        elif name.startswith(".nfs"):
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        else:
            inode = os.stat(path, dir_fd=dir_fd).st_ino
            other = os.path.join(os.path.dirname(os.fspath(path)), f".nfs{inode:024x}")
            os.rename(path, other, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(os, "remove", unlink)
    return


@pytest.mark.usefixtures("silly")
def test_a_file_that_was_removed_while_it_was_open_is_no_part_of_the_artefact(
    store: Store,
) -> None:
    work = work_folder(store)
    with (work / "model" / "part").open("wb") as part, (work / "checkpoints" / "1").open() as old:
        (work / "model" / "part").unlink()
        assert [p.name for p in (work / "model").glob(".nfs*")]
        folder = seal(store)
        assert list((folder / "model").glob(".nfs*")), "the test's file system has no such files"
        artefact = store.find("train", KEY)
        assert artefact is not None
        assert set(artefact.manifest.files) == {"model/weights"}
        artefact.check()
        assert not (folder / "checkpoints").exists()
        assert not part.closed
        assert old.read() == "a checkpoint"
    (left,) = (store.root / "work").iterdir()
    assert left.name.startswith("removed-")


@pytest.mark.usefixtures("silly")
def test_an_artefact_that_a_process_still_reads_can_be_removed(store: Store) -> None:
    work_folder(store)
    folder = seal(store)
    with (folder / "model" / "weights").open("rb") as file:
        store.remove(folder)
        assert store.find("train", KEY) is None
        assert file.read() == b"weights"


def test_an_answer_that_was_lost_makes_no_removal_fail(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_folder(store)
    folder = seal(store)
    monkeypatch.setattr(os, "rename", Fails(os.rename, errno.ENOENT, 1, is_done=True))
    store.remove(folder)
    assert store.find("train", KEY) is None
    assert not list((store.root / "work").iterdir())


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_folders_seals_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    work_folder(store)
    monkeypatch.setattr(os, "fsync", fsync)
    seal(store)
    assert store.find("train", KEY) is not None


def test_a_file_that_cannot_be_synced_is_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_folder(store)
    monkeypatch.setattr(os, "fsync", Fails(os.fsync, errno.EINVAL, 1))
    with pytest.raises(OSError, match="Invalid argument"):
        seal(store)
    assert store.find("train", KEY) is None


def test_two_machines_with_one_process_number_write_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import harness.artefact.store as module

    parts = []
    monkeypatch.setattr(Path, "replace", lambda part, path: parts.append(part.name))
    for host in ("one", "two"):
        monkeypatch.setattr(module.socket, "gethostname", lambda host=host: host)
        write_atomically(tmp_path / "row.json", "{}")
    assert len(set(parts)) == 2
