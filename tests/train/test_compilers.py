"""A compiler that a training would look for in vain is named beforehand, with what holds it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.artefact import environment
from harness.errors import InputError
from harness.run.executors.local import LocalExecutor
from harness.spec.train import Train
from harness.train import compilers
from tests.helpers import give_gpus, some_gpus


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All there is on PATH; Python's headers are there."""
    headers = tmp_path / "include"
    headers.mkdir()
    (headers / "Python.h").touch()
    monkeypatch.setattr(compilers.sysconfig, "get_path", lambda name: str(headers))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    give_gpus(monkeypatch, *some_gpus(1))
    monkeypatch.setattr(environment, "lacks_cuda", lambda: False)
    return tmp_path


def add(folder: Path, name: str) -> Path:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)
    return folder / name


def stage(**train: object) -> SimpleNamespace:
    return SimpleNamespace(
        row="one", stage="train", served=None, params={"train": Train.model_validate(train)}
    )


def test_ligers_kernels_without_a_c_compiler_are_refused_before_anything_runs(
    programs: Path,
) -> None:
    executor, liger = LocalExecutor(), stage(liger_kernels=True)
    with pytest.raises(InputError, match=r"liger_kernels.* needs a C compiler\n") as fault:
        executor.check([stage(), liger])  # type: ignore[list-item]
    for way in ("apt install gcc libc6-dev;", "--executor docker", "train.liger_kernels: false"):
        assert way in fault.value.hint
    executor.check([stage()])  # type: ignore[list-item]
    add(programs, "gcc")
    executor.check([liger])  # type: ignore[list-item]


def test_the_compiler_that_cc_names_is_the_one_that_counts(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(programs, "gcc")
    monkeypatch.setenv("CC", "another-cc")
    with pytest.raises(InputError, match="C compiler"):
        compilers.check_for_triton()
    monkeypatch.setenv("CC", str(add(programs, "another-cc")))
    compilers.check_for_triton()


def test_pythons_headers_are_looked_for_too(programs: Path) -> None:
    add(programs, "clang")
    (programs / "include" / "Python.h").unlink()
    with pytest.raises(InputError, match=r"needs Python's headers\n") as fault:
        compilers.check_for_triton()
    assert "apt install python3-dev;" in fault.value.hint


def test_an_image_that_lacks_them_is_to_be_built_anew(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "current_image", lambda: {"image": "train-cuda"})
    with pytest.raises(InputError) as fault:
        compilers.check_for_triton()
    assert "docker compose build train" in fault.value.hint
