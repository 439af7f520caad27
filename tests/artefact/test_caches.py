"""Where what can be made again is kept: a named folder, the volume, or a disk of this machine's."""

import os
import tempfile
from pathlib import Path

import pytest

from harness.artefact import caches, environment
from harness.artefact.file_system import FileSystem
from harness.common import env_variables
from harness.errors import InputError


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_CACHE", raising=False)
    for name in env_variables.caches("train", Path("/")):
        monkeypatch.delenv(name, raising=False)


def test_on_a_disk_of_this_machine_caches_stand_on_the_volume(tmp_path: Path) -> None:
    assert caches.prepare(tmp_path) == tmp_path / "cache"
    assert (tmp_path / "cache" / "tokens").is_dir()


def test_where_machines_share_the_volume_caches_stand_on_each_ones_own_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "file_system_of", lambda folder: FileSystem("nfs4"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
    folder = caches.prepare(tmp_path / "volume")
    assert folder == tmp_path / "disk" / f"harness-{os.getuid()}"
    assert (folder / "tokens").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "volume").exists()


def test_a_folder_that_is_named_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "mine"))
    assert caches.prepare(tmp_path / "volume") == tmp_path / "mine"


def test_a_folder_that_cannot_be_one_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="cannot be used by user") as refused:
        caches.prepare(tmp_path / "volume")
    assert "HARNESS_CACHE" in refused.value.hint


def test_kernels_are_not_loaded_from_another_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(InputError, match="it is another user's"):
        caches.prepare(tmp_path / "volume")


def test_an_image_has_them_below_tmp_unless_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "current_image", lambda: {"image": "train-cpu"})
    assert caches.for_libraries(tmp_path) is None
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert caches.for_libraries(tmp_path) == tmp_path / "libraries"


def test_what_the_caller_names_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", "/big/hf")
    named = env_variables.caches("train", tmp_path)
    assert "HF_HOME" not in named
    assert named["TRITON_CACHE_DIR"] == str(tmp_path / "triton" / "cache")


def test_a_stage_that_speaks_to_the_hub_still_finds_the_users_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    fetch = env_variables.caches("fetch", tmp_path)
    assert fetch["HF_HOME"] == "/home/someone/.cache/huggingface"
    assert fetch["HF_HUB_CACHE"].startswith(str(tmp_path))
    assert env_variables.caches("train", tmp_path)["HF_HOME"].startswith(str(tmp_path))
