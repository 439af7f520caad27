"""What `harness doctor` says of a volume."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.artefact import caches
from harness.artefact.file_system import FileSystem
from harness.artefact.store import Store
from harness.run import doctor_volume
from harness.run.doctor_check import Check


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARNESS_CACHE", "HARNESS_LOCKS"):
        monkeypatch.delenv(name, raising=False)


def examine(volume: Path) -> dict[str, Check]:
    return {check.what: check for check in doctor_volume.examine(volume)}


@pytest.mark.parametrize("kind", ["flock", "lease"])
def test_two_processes_try_the_volumes_locks_and_nothing_is_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("HARNESS_LOCKS", kind)
    checks = examine(tmp_path / "volume")
    assert [c.prevents for c in checks.values()] == [""] * 4
    locks = checks["volume's locks"]
    assert locks.is_present
    assert f"{kind}, as HARNESS_LOCKS says so; two processes here exclude each other" in locks.state
    assert checks["volume's clock"].state == "as this machine's"
    assert "atomic" in checks["volume's renames"].state
    assert str(tmp_path / "volume" / "cache") in checks["caches"].state
    assert not list(tmp_path.iterdir())


def test_the_kind_that_is_noted_is_shown_and_a_setting_against_it_prevents_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).prepare()
    monkeypatch.setenv("HARNESS_LOCKS", "lease")
    locks = examine(tmp_path)["volume's locks"]
    assert not locks.is_present
    assert "has flock for its locks" in locks.state
    assert locks.prevents.startswith("any run here. Unset HARNESS_LOCKS")


def test_locks_that_shut_nobody_out_are_no_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_volume, "PROBE", "import sys; sys.exit(4)")
    locks = examine(tmp_path)["volume's locks"]
    assert not locks.is_present
    assert "both got it" in locks.state
    assert "HARNESS_LOCKS=lease" in locks.prevents


def test_a_second_process_that_fails_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_volume, "PROBE", "raise SystemExit(1)")
    assert not examine(tmp_path)["volume's locks"].is_present


def test_a_file_servers_clock_that_is_apart_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 90)
    clock = examine(tmp_path)["volume's clock"]
    assert not clock.is_present
    assert clock.state == "90 s behind this machine's"


def test_renames_that_are_no_replacement_in_one_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_steps(part: Path, path: Path) -> Path:
        path.unlink()
        time.sleep(0.001)
        os.rename(part, path)
        return path

    monkeypatch.setattr(Path, "replace", two_steps)
    renames = doctor_volume._renames(tmp_path)
    assert not renames.is_present
    assert "a reader met: No such file" in renames.state


def test_caches_that_other_machines_share_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    nfs = FileSystem("nfs4", "server:/x")
    monkeypatch.setattr(doctor_volume, "file_system_of", lambda folder: nfs)
    monkeypatch.setattr(caches, "file_system_of", lambda folder: nfs)
    found = doctor_volume._caches(tmp_path / "volume")
    assert not found.is_present
    assert "nfs4 (server:/x)" in found.state
    assert "local disk" in found.prevents


def test_a_volume_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: Any) -> Iterator[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor_volume.tempfile, "mkdtemp", refuse)
    (check,) = doctor_volume.examine(tmp_path)
    assert check.state == "not tried: Permission denied"
