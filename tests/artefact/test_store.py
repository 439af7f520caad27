"""The volume: artefacts whole or not at all, digests checked on use, locks, full and closed disks."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.artefact.call import MANIFEST
from harness.artefact.keys import digest_of
from harness.artefact.manifest import Manifest
from harness.artefact.store import Damaged, Store, write_atomically
from harness.errors import HarnessError
from tests.helpers import (
    FakeStages,
    Volume,
    evaluation,
    harness,
    is_alive,
    planned,
    start,
    until,
    write_row,
)

KEY = "0123456789abcdef" * 4
WATCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "volume")
    store.prepare()
    return store


@pytest.fixture
def fake(tmp_path: Path) -> FakeStages:
    return FakeStages(tmp_path / "fake")


def work_folder(store: Store) -> Path:
    work = store.work_folder("train", KEY)
    (work / "model").mkdir(parents=True)
    (work / "model" / "weights").write_bytes(b"weights")
    (work / "log.jsonl").write_text("{}\n")
    (work / "checkpoints").mkdir()
    (work / "checkpoints" / "1").write_text("a checkpoint")
    return work


def seal(store: Store, keep: tuple[str, ...] = ("model", "log.jsonl")) -> Path:
    return store.seal(Manifest(stage="train", key=KEY), list(keep)).folder


def die_at(operation: int, root: Path) -> None:
    """Have this process killed right before its n-th file operation below `root`."""
    done = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if event in WATCHED and str(arguments[0]).startswith(str(root)):
            done += 1
            if done == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def killed_at_each_operation(root: Path, work: Callable[[], object]) -> Iterator[int]:
    """Do `work` in child processes, each killed one file operation later, until one ends it.

    Yields after each child that was killed.
    """
    for operation in range(1, 500):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                die_at(operation, root)
                work()
                status = 0
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        if os.WIFEXITED(ended):
            assert os.WEXITSTATUS(ended) == 0, "the work itself failed"
            return
        yield operation
    pytest.fail("the work does not come to an end")


def test_sealing_keeps_what_is_named_and_says_each_files_digest(store: Store) -> None:
    work = work_folder(store)
    folder = seal(store)

    assert folder == store.folder("train", KEY)
    assert not work.exists()
    assert sorted(p.name for p in folder.iterdir()) == ["log.jsonl", MANIFEST, "model"]
    artefact = store.find("train", KEY)
    assert artefact is not None
    assert artefact.manifest.files["model/weights"] == {
        "sha256": hashlib.sha256(b"weights").hexdigest(),
        "size": 7,
    }
    artefact.check()


def test_a_stage_that_did_not_leave_what_it_names_loses_nothing(store: Store) -> None:
    work = work_folder(store)
    with pytest.raises(HarnessError, match=r"did not leave adapter"):
        seal(store, ("model", "adapter"))
    assert (work / "checkpoints" / "1").exists()
    assert store.find("train", KEY) is None


def test_a_link_to_a_folder_that_is_not_kept_is_removed_and_its_target_stays(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    work = work_folder(store)
    (work / "link").symlink_to(tmp_path / "elsewhere")
    assert not (seal(store) / "link").is_symlink()
    assert (tmp_path / "elsewhere").is_dir()


def test_everything_reaches_the_disk_before_the_artefact_appears(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    final = store.folder("train", KEY)

    def record(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        synced.append((name, final.exists()))

    work = work_folder(store)
    monkeypatch.setattr(os, "fsync", record)
    seal(store)
    before = [name for name, appeared in synced if not appeared]
    assert {"weights", "log.jsonl", "model", work.name} <= set(before)
    (manifest,) = (name for name in before if name.startswith(f".{MANIFEST}."))
    assert before.index("weights") < before.index(manifest)
    assert ("train", True) in synced  # the folder that holds the new name


def test_killed_at_any_operation_of_sealing_there_is_no_artefact_or_a_whole_one(
    store: Store,
) -> None:
    moments = set()
    for _ in killed_at_each_operation(store.root, lambda: (work_folder(store), seal(store))):
        found = store.find("train", KEY)  # Damaged would be raised here
        moments.add("whole" if found else "nothing")
        if found:
            found.check()
            store.remove(found.folder)
        else:
            assert not store.folder("train", KEY).exists()
        shutil.rmtree(store.work_folder("train", KEY), ignore_errors=True)
    assert moments == {"whole", "nothing"}


def test_killed_at_any_operation_of_a_run_the_next_run_ends_it_and_repeats_no_ended_stage(
    tmp_path: Path,
) -> None:
    spec = write_row(tmp_path / "specs", train=None)
    volume = Volume(tmp_path)
    ended_before_it_was_killed = 0
    for operation in killed_at_each_operation(volume.store.root, lambda: volume.run(spec)):
        (stage,) = planned(volume.store.root, spec)[0].stages
        work = volume.store.work_folder("gen", stage.key)
        ended = (work / "result.json").exists() and stage.artefact is None
        try:
            if ended:
                json.loads((work / "result.json").read_text())
        except ValueError:
            ended = False  # the fake stage was killed while writing it
        volume.jobs.clear()

        volume.run(spec)

        artefact = volume.artefact("gen")
        artefact.check()
        assert set(artefact.manifest.files) == {"made.txt"}, operation
        assert not list((volume.store.root / "work").iterdir())
        assert volume.store.remembered("one")
        if ended or stage.artefact is not None:
            assert volume.ran == [], f"the stage was run again (killed at {operation})"
            ended_before_it_was_killed += 1
        volume.store.remove(artefact.folder)
    assert ended_before_it_was_killed > 5


def damaged(store: Store) -> Damaged:
    def use() -> None:
        artefact = store.find("train", KEY)
        assert artefact is not None
        artefact.check()

    with pytest.raises(Damaged) as caught:
        use()
    assert f"harness gc --yes train/{KEY[:16]}" in caught.value.hint
    return caught.value


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda f: (f / "model/weights").write_bytes(b"weightz"),
            "model/weights does not have the bytes",
        ),
        (lambda f: (f / "model/weights").write_bytes(b""), "model/weights does not have the bytes"),
        (lambda f: (f / "model/weights").unlink(), "model/weights is missing"),
        (lambda f: shutil.rmtree(f / "model"), "model/weights is missing"),
        (lambda f: (f / "model/extra").touch(), "model/extra was added"),
        (lambda f: (f / "extra").symlink_to("/nowhere"), "extra was added"),
        (lambda f: rewrite(f, lambda m: m.update(key="f" * 64)), "manifest was edited"),
        (lambda f: rewrite(f, lambda m: m["files"].clear()), "manifest was edited"),
        (lambda f: rewrite(f, lambda m: m.pop("seal")), "manifest cannot be read"),
        (
            lambda f: (f / MANIFEST).write_bytes((f / MANIFEST).read_bytes()[:40]),
            "manifest cannot be read",
        ),
        (lambda f: (f / MANIFEST).write_text(""), "manifest cannot be read"),
        (lambda f: (f / MANIFEST).write_text("[1]"), "manifest cannot be read"),
        (lambda f: (f / MANIFEST).write_text("[" * 100000), "manifest cannot be read"),
        (lambda f: (f / MANIFEST).write_text('"text"'), "manifest cannot be read"),
        (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe"), "manifest cannot be read"),
        (lambda f: (f / MANIFEST).unlink(), "manifest is missing"),
        (lambda f: (f.rename(f.with_name("x")), f.symlink_to("/nowhere")), "leads nowhere"),
    ],
)
def test_an_artefact_changed_by_hand_is_refused_and_the_way_out_is_named(
    store: Store, harm: Callable[[Path], object], said: str
) -> None:
    work_folder(store)
    harm(seal(store))
    assert said in damaged(store).message


def test_an_artefact_put_in_the_place_of_another_key_is_refused(store: Store) -> None:
    work_folder(store)
    folder = seal(store)
    other = KEY[:-1] + "0"  # the same folder name, another key
    with pytest.raises(Damaged, match=f"its manifest is of the key {KEY}"):
        store.find("train", other)
    assert store.find("train", KEY) is not None
    assert folder == store.folder("train", other)


def test_a_manifest_forged_together_with_its_seal_does_not_hide_a_changed_file(
    store: Store,
) -> None:
    work_folder(store)
    folder = seal(store)
    (folder / "model" / "weights").write_bytes(b"weightz")

    def forge(manifest: dict) -> None:
        manifest.pop("seal")
        manifest["row"] = "other"
        manifest["seal"] = digest_of(manifest)

    rewrite(folder, forge)
    assert "model/weights" in damaged(store).message


def test_a_changed_input_stops_the_run_and_the_way_out_that_it_names_works(
    fake: FakeStages, tmp_path: Path
) -> None:
    spec, volume = write_row(tmp_path / "specs"), tmp_path / "volume"
    assert harness(fake.env, "run", "--only", "gen", spec, "--volume", volume).returncode == 0
    (data,) = volume.glob("artefacts/gen/*/data.jsonl")
    data.write_text("another data set\n")

    refused = harness(fake.env, "run", spec, "--volume", volume)
    assert refused.returncode == 1
    assert "data.jsonl does not have the bytes it was made with" in refused.stdout
    assert not fake.runs("train")
    named = re.search(r"`harness (gc --yes gen/[0-9a-f]+ --volume [^`]+)`", refused.stdout)
    assert named, refused.stdout

    removed = harness(fake.env, *named[1].split())
    assert removed.returncode == 0, removed.stdout
    again = harness(fake.env, "run", spec, "--volume", volume)
    assert again.returncode == 0, again.stdout
    assert len(fake.runs("gen")) == 2
    assert len(fake.runs("train")) == 1


@pytest.mark.parametrize("command", ["run", "plan", "table"])
def test_a_cut_manifest_stops_every_command_with_a_way_out_that_works(
    fake: FakeStages, tmp_path: Path, command: str
) -> None:
    spec, volume = write_row(tmp_path / "specs", train=None), tmp_path / "volume"
    assert harness(fake.env, "run", spec, "--volume", volume).returncode == 0
    (manifest,) = volume.glob("artefacts/gen/*/manifest.json")
    manifest.write_text(manifest.read_text()[:100])

    refused = harness(fake.env, command, spec, "--volume", volume)
    assert refused.returncode == 1, refused.stdout
    assert "Traceback" not in refused.stdout
    named = re.search(r"`harness (gc --yes gen/[0-9a-f]+ --volume [^`]+)`", refused.stdout)
    assert named, refused.stdout
    assert harness(fake.env, *named[1].split()).returncode == 0
    assert harness(fake.env, command, spec, "--volume", volume).returncode == 0


@pytest.mark.parametrize(
    "name", ["../models", "gen/../../models", "gen//etc", "gen/", "x/0", "gen/*"]
)
def test_removing_by_name_reaches_nothing_but_artefacts(
    fake: FakeStages, tmp_path: Path, name: str
) -> None:
    volume = tmp_path / "volume"
    for folder in ("artefacts/gen/0123456789abcdef", "artefacts/gen/1123456789abcdef", "models/m"):
        (volume / folder).mkdir(parents=True)
    Store(volume).prepare()
    refused = harness(fake.env, "gc", "--yes", name, "--volume", volume)
    assert refused.returncode == 2, refused.stdout
    assert "there is no artefact" in refused.stdout
    assert (volume / "models" / "m").is_dir()
    assert len(list(volume.glob("artefacts/gen/*"))) == 2


def test_a_name_that_begins_two_artefacts_removes_neither(fake: FakeStages, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    for key in ("0123456789abcdef", "0113456789abcdef"):
        (volume / "artefacts" / "gen" / key).mkdir(parents=True)
    Store(volume).prepare()
    refused = harness(fake.env, "gc", "--yes", "gen/01", "--volume", volume)
    assert refused.returncode == 2
    assert "gen/0113456789abcdef, gen/0123456789abcdef" in refused.stdout
    assert len(list(volume.glob("artefacts/gen/*"))) == 2


def test_gc_refuses_an_artefact_that_another_process_works_on(
    fake: FakeStages, tmp_path: Path
) -> None:
    spec, volume = write_row(tmp_path / "specs", train=None), tmp_path / "volume"
    assert harness(fake.env, "run", spec, "--volume", volume).returncode == 0
    (folder,) = volume.glob("artefacts/gen/*")
    with Store(volume).lock("gen", folder.name):
        refused = harness(fake.env, "gc", "--yes", f"gen/{folder.name}", "--volume", volume)
    assert refused.returncode == 1
    assert "in use by another process" in refused.stdout
    assert folder.is_dir()


HOLDER = """
import subprocess, sys, time
from pathlib import Path
from harness.artefact.store import Store
with Store(Path(sys.argv[1])).lock("train", sys.argv[2]) as descriptor:
    if sys.argv[3] == "child":
        child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
        print(child.pid, flush=True)
    else:
        print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(store: Store) -> Iterator[Callable[[str], tuple["subprocess.Popen[str]", str]]]:
    """Starts a process that holds the lock; what it says once it does."""
    started: list[subprocess.Popen[str]] = []

    def hold(how: str) -> tuple["subprocess.Popen[str]", str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(store.root), KEY, how],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield hold
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_second_process_waits_for_the_lock_and_says_who_holds_it(
    store: Store, holder: Callable[[str], tuple["subprocess.Popen[str]", str]]
) -> None:
    process, _ = holder("alone")
    assert store.is_locked("train", KEY)
    owners = []

    def waiting(owner: str) -> None:
        owners.append(owner)
        process.kill()  # a killed owner lets go

    with store.lock("train", KEY, waiting):
        assert process.wait(5) == -signal.SIGKILL
    assert len(owners) == 1
    assert owners[0].startswith(f"process {process.pid} on ")
    assert not store.is_locked("train", KEY)


def test_the_lock_of_a_killed_owner_holds_while_a_child_that_inherited_it_lives(
    store: Store, holder: Callable[[str], tuple["subprocess.Popen[str]", str]]
) -> None:
    process, child = holder("child")
    process.kill()
    process.wait(5)
    assert is_alive(int(child))
    assert store.is_locked("train", KEY)

    os.kill(int(child), signal.SIGKILL)
    until(lambda: not store.is_locked("train", KEY))


def test_a_lock_that_another_process_holds_is_not_waited_for_where_it_need_not_be(
    store: Store, holder: Callable[[str], tuple["subprocess.Popen[str]", str]]
) -> None:
    process, _ = holder("alone")
    with store.try_lock("train", KEY) as lock:
        assert lock is None
    process.kill()
    process.wait(5)
    with store.try_lock("train", KEY) as lock:
        assert lock is not None
        assert store.is_locked("train", KEY)
    assert not store.is_locked("train", KEY)


def test_locks_of_different_keys_do_not_meet(store: Store) -> None:
    with store.lock("train", KEY), store.lock("answer", KEY), store.lock("train", KEY[::-1]):
        assert store.is_locked("train", KEY)
    assert not store.is_locked("train", KEY)


def test_two_runs_on_one_volume_at_once_run_each_stage_exactly_once(
    fake: FakeStages, tmp_path: Path
) -> None:
    folder, volume = tmp_path / "specs", tmp_path / "volume"
    spec = write_row(folder, eval=evaluation(folder))
    fake.order("gen", "until told")
    first = start(fake.env, "run", spec, "--volume", volume)
    fake.wait_until_waiting()
    second = start(fake.env, "run", spec, "--volume", volume)
    assert second.stdout is not None
    said = second.stdout.readline()
    assert re.search(rf"gen: one \[\w+\]: waiting for process {first.pid} on ", said), said
    (fake.folder / "go").touch()

    for process in (first, second):
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert "50.00" in output
    assert [run.split()[0] for run in fake.runs()] == ["gen", "train", "answer", "judge"]


def test_a_second_run_waits_while_the_stage_of_a_killed_run_still_lives(
    fake: FakeStages, tmp_path: Path
) -> None:
    spec, volume = write_row(tmp_path / "specs", train=None), tmp_path / "volume"
    fake.order("gen", "deaf until told")
    first = start(fake.env, "run", spec, "--volume", volume)
    fake.wait_until_waiting()
    left = fake.pid("gen")
    first.kill()
    first.communicate()
    assert is_alive(left)

    second = start(fake.env, "run", spec, "--volume", volume)
    assert second.stdout is not None
    assert "waiting for what a killed run left (see `ps`)" in second.stdout.readline()
    assert len(fake.runs("gen")) == 1
    (fake.folder / "go").touch()
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    assert not is_alive(left)


@pytest.mark.parametrize("command", ["run", "plan", "table", "gc"])
def test_a_volume_that_cannot_be_a_folder_ends_in_one_message(
    fake: FakeStages, tmp_path: Path, command: str
) -> None:
    spec = write_row(tmp_path / "specs", train=None)
    (tmp_path / "file").touch()
    named = ("--specs", spec.parent) if command == "gc" else (spec,)
    done = harness(fake.env, command, *named, "--volume", tmp_path / "file" / "volume")
    assert "Traceback" not in done.stdout
    if command == "run":
        assert done.returncode == 2
        assert f"the volume {tmp_path}/file/volume cannot be written by user" in done.stdout
        assert "--volume or HARNESS_DATA" in done.stdout
        assert "HARNESS_UID" in done.stdout
    else:
        assert done.returncode == 0, done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def test_a_read_only_volume_is_refused_with_the_way_out_and_can_still_be_read(
    fake: FakeStages, tmp_path: Path, small_disk: Path
) -> None:
    spec = write_row(tmp_path / "specs", train=None)
    assert harness(fake.env, "run", spec, "--volume", small_disk).returncode == 0
    read_only(small_disk)

    refused = harness(fake.env, "run", spec, "--volume", small_disk)
    assert refused.returncode == 2
    assert "cannot be written by user" in refused.stdout
    assert "Read-only file system" in refused.stdout
    assert "mount this one for writing" in refused.stdout
    assert "HARNESS_UID" not in refused.stdout
    planned = harness(fake.env, "plan", spec, "--volume", small_disk)
    assert planned.returncode == 0, planned.stdout
    assert "reuse" in planned.stdout


@pytest.mark.parametrize("left", [0, 4, 8, 16, 24])
def test_a_full_disk_ends_in_one_message_and_the_same_command_goes_on(
    fake: FakeStages, tmp_path: Path, small_disk: Path, left: int
) -> None:
    """`left`: KiB that are free when the train stage begins, so that other steps meet the end."""
    spec = write_row(tmp_path / "specs")
    assert harness(fake.env, "run", "--only", "gen", spec, "--volume", small_disk).returncode == 0
    (gen,) = small_disk.glob("artefacts/gen/*")
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        room = os.statvfs(small_disk)
        file.write(b"\0" * (room.f_bavail * room.f_frsize - left * 1024))

    full = harness(fake.env, "run", spec, "--volume", small_disk)
    assert full.returncode == 1, full.stdout
    assert re.search(
        rf"no space left on the device (for|while writing) {small_disk}", full.stdout
    ), full.stdout
    assert "run the same command again" in full.stdout
    assert "Traceback" not in full.stdout
    shown = harness(fake.env, "show", "--check", gen.name, "--volume", small_disk)
    assert shown.returncode == 0, shown.stdout
    assert not list(small_disk.glob("artefacts/train/*"))

    filler.unlink()
    again = harness(fake.env, "run", spec, "--volume", small_disk)
    assert again.returncode == 0, again.stdout
    assert len(fake.runs("gen")) == 1


def test_a_disk_that_is_full_from_the_start_is_said_to_be_full(
    fake: FakeStages, tmp_path: Path, small_disk: Path
) -> None:
    spec = write_row(tmp_path / "specs", train=None)
    subprocess.run(["mount", "-o", "remount,nr_inodes=1", str(small_disk)], check=True)
    full = harness(fake.env, "run", spec, "--volume", small_disk)
    assert full.returncode == 1
    assert "no space left on the device" in full.stdout
    assert "Traceback" not in full.stdout


def test_a_file_that_is_written_atomically_is_the_old_or_the_new_one_whenever_it_is_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "row.json"
    path.write_text("old")
    seen = set()
    for _ in killed_at_each_operation(tmp_path, lambda: write_atomically(path, "new")):
        seen.add(path.read_text())
        path.write_text("old")
    assert seen == {"old", "new"}


def test_a_file_for_which_there_is_no_space_leaves_no_part_of_it(small_disk: Path) -> None:
    room = os.statvfs(small_disk)
    path = small_disk / "row.json"
    with pytest.raises(OSError, match="No space left on device") as full:
        write_atomically(path, "x" * (room.f_bavail * room.f_frsize + 1))
    assert full.value.filename == str(path)
    assert not list(small_disk.iterdir())
    write_atomically(path, "new")


def test_a_file_of_last_keys_that_is_broken_only_forgets(store: Store) -> None:
    store.remember("one", {"local: gen": KEY})
    store.remember("one", {"local: train": KEY})
    assert store.remembered("one") == {"local: gen": KEY, "local: train": KEY}
    for text in ("", "{", "[]"):
        (store.root / "rows" / "one.json").write_text(text)
        assert store.remembered("one") == {}


def test_two_artefacts_whose_keys_begin_alike_are_both_found(store: Store) -> None:
    for stage in ("train", "answer"):
        work = store.work_folder(stage, KEY)
        work.mkdir()
        (work / "file").touch()
        store.seal(Manifest(stage=stage, key=KEY), ["file"])
    assert [a.stage for a in store.match(KEY[:6])] == ["answer", "train"]
    assert [a.stage for a in store.match(f"train/{KEY}")] == ["train"]
    assert store.match("f") == []
