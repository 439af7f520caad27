"""Locks of a volume: flock or leases, one kind for all, and what follows when a holder was killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.artefact import locks as locks_module
from harness.artefact.file_system import FileSystem
from harness.artefact.locks import NOTE, Locks
from harness.artefact.store import Store
from harness.errors import HarnessError, InputError
from tests.helpers import ROOT, is_alive, until

KEY = "0123456789abcdef" * 4
SECONDS = 1.5
"""After which a lease in these tests may be taken over."""

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from harness.artefact.store import Store
store = Store(Path(sys.argv[1]))
with store.lock("train", sys.argv[2]) as descriptor:
    keeper = store.locks._leases._keeper.pid if store.locks.kind.kind == "lease" else 0
    child = 0
    if sys.argv[3] == "child":
        child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,)).pid
    print(keeper, child, flush=True)
    sys.stdin.readline()
"""


class Holder:
    """A process that holds the lock until it is told to stop."""

    def __init__(self, store: Store, how: str = "alone") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(store.root), KEY, how],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        self.keeper, self.child = map(int, self.process.stdout.readline().split())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        for pid in (self.child, self.keeper):
            if pid and is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def note(volume: Path, kind: str = "lease", **facts: object) -> None:
    (volume / "locks").mkdir(parents=True, exist_ok=True)
    values = {"kind": kind, "why": "a test", "is_shared": False, "host": "here", **facts}
    (volume / "locks" / NOTE).write_text(json.dumps(values))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    note(tmp_path / "volume", seconds=SECONDS)
    store = Store(tmp_path / "volume")
    store.prepare()
    return store


@pytest.fixture
def hold(store: Store) -> Iterator[Callable[..., Holder]]:
    started: list[Holder] = []

    def holder(how: str = "alone") -> Holder:
        started.append(Holder(store, how))
        return started[-1]

    yield holder
    for each in started:
        each.close()


def test_a_lease_is_held_by_one_process_and_given_back(
    store: Store, hold: Callable[..., Holder]
) -> None:
    holder = hold()
    assert store.is_locked("train", KEY)
    with store.try_lock("train", KEY) as lock:
        assert lock is None
    with store.try_lock("answer", KEY) as lock:
        assert lock is not None

    assert holder.process.stdin is not None
    holder.process.stdin.write("\n")
    holder.process.stdin.flush()
    assert holder.process.wait(10) == 0
    with store.try_lock("train", KEY) as lock:
        assert lock is not None
        assert store.is_locked("train", KEY)
    assert not store.is_locked("train", KEY)
    until(lambda: not is_alive(holder.keeper))


@pytest.mark.parametrize("kind", ["lease", "flock"])
def test_who_works_is_seen_without_a_try_for_the_lock(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(tmp_path, kind, seconds=SECONDS)
    store = Store(tmp_path)
    store.prepare()
    assert store.seen_at_work("train", KEY) == ""
    holder = Holder(store)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Locks, "try_lock", None)
            until(lambda: store.seen_at_work("train", KEY) != "")
            words = f"process {holder.process.pid} on {socket.gethostname()}"
            assert store.seen_at_work("train", KEY) == words
            assert store.seen_at_work("answer", KEY) == ""
            assert not (tmp_path / "locks" / f"answer-{KEY[:16]}").exists()
        assert holder.process.stdin is not None
        holder.process.stdin.write("\n")
        holder.process.stdin.flush()
        holder.process.wait(10)
        until(lambda: store.seen_at_work("train", KEY) == "")
    finally:
        holder.close()


def test_two_stores_of_one_process_do_not_both_hold_a_lease(store: Store) -> None:
    with store.lock("train", KEY), Store(store.root).try_lock("train", KEY) as lock:
        assert lock is None


def test_the_lease_of_a_killed_owner_is_free_at_once_and_its_holder_is_named_before(
    store: Store, hold: Callable[..., Holder]
) -> None:
    holder = hold()
    owners = []

    def waiting(owner: str) -> None:
        owners.append(owner)
        holder.kill()

    started = time.monotonic()
    with store.lock("train", KEY, waiting):
        pass
    assert owners == [f"process {holder.process.pid} on {os.uname().nodename}"]
    assert time.monotonic() - started < 30


def test_the_lease_of_a_killed_owner_holds_while_a_child_that_inherited_it_lives(
    store: Store, hold: Callable[..., Holder]
) -> None:
    holder = hold("child")
    holder.kill()
    assert is_alive(holder.child)
    end = time.monotonic() + 3 * SECONDS
    while time.monotonic() < end:
        with store.try_lock("train", KEY) as lock:
            assert lock is None, "its child still works"
        time.sleep(0.1)
    assert store.locks._holder(f"train-{KEY[:16]}") == "what a killed run left (see `ps`)"

    os.kill(holder.child, signal.SIGKILL)
    until(lambda: not store.is_locked("train", KEY))


def test_a_lease_of_which_nobody_is_left_is_said_to_wait_for_its_time_alone(
    store: Store, hold: Callable[..., Holder]
) -> None:
    holder = hold()
    os.kill(holder.keeper, signal.SIGKILL)
    holder.kill()
    until(lambda: not is_alive(holder.keeper))
    owners: list[str] = []
    with store.lock("train", KEY, owners.append):
        pass
    assert owners == [f"a lease that nobody renews, up to {SECONDS:.0f} s"]


def test_the_lease_of_a_machine_that_is_gone_is_taken_over_in_bounded_time_and_not_before(
    store: Store, hold: Callable[..., Holder]
) -> None:
    holder = hold("child")
    # All of the machine goes at once: nobody is left to give anything back.
    os.kill(holder.keeper, signal.SIGSTOP)
    began = time.monotonic()
    with store.try_lock("train", KEY) as lock:
        assert lock is None
    with store.lock("train", KEY) as lock:
        waited = time.monotonic() - began
        assert lock is not None
    assert SECONDS <= waited < SECONDS + 20


def test_a_beat_that_a_clock_apart_stamps_is_still_a_beat(
    store: Store, hold: Callable[..., Holder]
) -> None:
    hold()
    (holders,) = store.root.glob("locks/train-*.rw/holders")
    far = threading.Event()

    def stamp() -> None:
        while not far.wait(0.05):
            for path in holders.iterdir():
                os.utime(path, (1, 1))

    stamper = threading.Thread(target=stamp)
    stamper.start()
    try:
        end = time.monotonic() + 2 * SECONDS
        while time.monotonic() < end:
            with store.try_lock("train", KEY) as lock:
                assert lock is None
            time.sleep(0.1)
    finally:
        far.set()
        stamper.join()


def test_what_a_run_makes_after_its_lease_was_lost_is_not_sealed(
    store: Store, hold: Callable[..., Holder]
) -> None:
    from harness.artefact.manifest import Manifest

    work = store.work_folder("train", KEY)
    work.mkdir(parents=True)
    (work / "made").touch()
    with store.lock("train", KEY):
        keeper = store.locks._leases._keeper
        assert keeper is not None
        keeper.send_signal(signal.SIGSTOP)
        other = hold()
        keeper.send_signal(signal.SIGCONT)
        time.sleep(SECONDS)
        with pytest.raises(HarnessError, match="was lost"):
            store.seal(Manifest(stage="train", key=KEY), ["made"])
    assert (work / "made").exists()
    assert is_alive(other.process.pid)
    assert store.find("train", KEY) is None


def test_a_lease_whose_keeper_was_killed_is_kept_on_by_another_at_once(
    store: Store, hold: Callable[..., Holder]
) -> None:
    name, other = f"train-{KEY[:16]}", Store(store.root)
    leases = store.locks._leases
    with store.lock("train", KEY):
        keeper = leases._keeper
        assert keeper is not None
        keeper.kill()
        # Nothing is asked of it meanwhile.
        until(lambda: leases._keeper is not keeper)
        end = time.monotonic() + 2 * SECONDS
        while time.monotonic() < end:
            with other.try_lock("train", KEY) as lock:
                assert lock is None
            time.sleep(0.1)
        store.locks.check(name)
    with other.try_lock("train", KEY) as lock:
        assert lock is not None


def test_a_lease_that_another_took_before_its_keeper_was_killed_is_said_to_be_lost(
    store: Store, hold: Callable[..., Holder]
) -> None:
    with store.lock("answer", KEY), store.lock("train", KEY):
        keeper = store.locks._leases._keeper
        assert keeper is not None
        keeper.send_signal(signal.SIGSTOP)
        other = hold()
        keeper.kill()
        with pytest.raises(HarnessError, match="kept it ended, another took it") as lost:
            store.locks.check(f"train-{KEY[:16]}")
        assert "did not reach" not in lost.value.message
        store.locks.check(f"answer-{KEY[:16]}")
    assert is_alive(other.process.pid)
    assert store.is_locked("train", KEY)
    other.close()
    with store.lock("train", KEY):
        store.locks.check(f"train-{KEY[:16]}")


def test_a_request_that_was_interrupted_leaves_the_next_ones_their_own_replies(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = socket.send_fds

    def interrupt(*arguments: object) -> None:
        send(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    leases, other = store.locks._leases, store.root / "locks" / "other"
    with store.lock("train", KEY):
        with monkeypatch.context() as patch:
            patch.setattr(socket, "send_fds", interrupt)
            with pytest.raises(KeyboardInterrupt):
                leases._ask("say", other)
        store.locks.check(f"train-{KEY[:16]}")
        assert not leases._ask("say", other)["held"]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "send_fds", interrupt)
        with pytest.raises(KeyboardInterrupt), store.try_lock("train", KEY):
            pass
    until(lambda: not store.is_locked("train", KEY))


def test_threads_of_one_process_take_turns(store: Store) -> None:
    inside, most, ended = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, ended
        with store.lock("train", KEY):
            inside += 1
            most = max(most, inside)
            time.sleep(0.05)
            inside -= 1
            ended += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, ended) == (1, 4)


def test_the_first_to_ask_notes_the_kind_and_all_others_adopt_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "volume"
    first = Store(volume)
    first.prepare()
    assert first.locks.kind.kind == "flock"
    noted = (volume / "locks" / NOTE).read_text()
    monkeypatch.setattr(Locks, "find_out", lambda self: pytest.fail("it was noted"))
    assert Store(volume).locks.kind == first.locks.kind
    assert (volume / "locks" / NOTE).read_text() == noted


@pytest.mark.parametrize(
    ("type_", "kind"), [("nfs4", "flock"), ("nfs", "lease"), ("fuse.sshfs", "lease")]
)
def test_the_kind_follows_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_: str, kind: str
) -> None:
    monkeypatch.setattr(locks_module, "file_system_of", lambda folder: FileSystem(type_))
    store = Store(tmp_path)
    store.prepare()
    assert store.locks.kind.kind == kind


def test_a_file_system_that_refuses_flock_gets_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks_module, "try_flock", refuse)
    store = Store(tmp_path)
    store.prepare()
    assert store.locks.kind.kind == "lease"
    assert "No locks available" in store.locks.kind.why


def test_a_setting_chooses_the_kind_and_one_that_differs_from_the_volumes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_LOCKS", "lease")
    Store(tmp_path).prepare()
    monkeypatch.setenv("HARNESS_LOCKS", "flock")
    with pytest.raises(InputError) as refused:
        Store(tmp_path).prepare()
    assert "has lease for its locks" in refused.value.message
    assert "HARNESS_LOCKS says flock here" in refused.value.message
    assert str(tmp_path / "locks" / NOTE) in refused.value.hint
    with pytest.raises(InputError), Store(tmp_path).lock("train", KEY):
        pass
    monkeypatch.delenv("HARNESS_LOCKS")
    Store(tmp_path).prepare()


def test_a_setting_that_is_no_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_LOCKS", "posix")
    with pytest.raises(InputError, match="it can be flock or lease"):
        Store(tmp_path).prepare()


def test_flock_on_the_file_server_itself_and_over_the_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(tmp_path, "flock", host="server", why="ext4 is of this machine alone")
    monkeypatch.setattr(
        locks_module, "file_system_of", lambda folder: FileSystem("nfs4", "server:/x")
    )
    with pytest.raises(InputError) as refused:
        Store(tmp_path).prepare()
    assert "as server noted (ext4 is of this machine alone)" in refused.value.message
    assert "here it is on nfs4 (server:/x)" in refused.value.message

    monkeypatch.setenv("HARNESS_LOCKS", "flock")
    Store(tmp_path).prepare()


@pytest.mark.parametrize("text", ["{", "[" * 100000])
def test_a_note_that_cannot_be_read_is_said(tmp_path: Path, text: str) -> None:
    note(tmp_path)
    (tmp_path / "locks" / NOTE).write_text(text)
    with pytest.raises(InputError, match="kind of lock is not known"):
        Store(tmp_path).prepare()


def test_of_two_that_find_the_kind_out_at_once_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Locks.find_out

    def slow(self: Locks) -> locks_module.Kind:
        kind = found(self)
        note(tmp_path, "lease")
        return kind

    monkeypatch.setattr(Locks, "find_out", slow)
    store = Store(tmp_path)
    store.prepare()
    assert store.locks.kind.kind == "lease"
