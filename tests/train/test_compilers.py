"""A compiler that a training would look for in vain is named beforehand, with what holds it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.artefact import environment
from harness.errors import InputError
from harness.row.row import Limits
from harness.run.executors import placing
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
    params = {"train": Train.model_validate(train)}
    owner = SimpleNamespace(limits=Limits())
    return SimpleNamespace(row="one", stage="train", served=None, params=params, owner=owner)


def test_ligers_kernels_without_a_c_compiler_are_refused_before_anything_runs(
    programs: Path,
) -> None:
    executor, liger = LocalExecutor(), stage(liger_kernels=True)
    with pytest.raises(
        InputError, match=r"row one: .*liger_kernels.* needs a C compiler\n"
    ) as fault:
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
    for named in ("/nope/gcc", "gcc -O2", "ccache gcc", ""):
        monkeypatch.setenv("CC", named)
        with pytest.raises(InputError, match=f"C compiler: CC is {named!r}, and there is no") as e:
            compilers.check_for_triton()
        assert "unset CC, and gcc is taken" in e.value.hint
    monkeypatch.setenv("CC", str(add(programs, "another-cc")))
    compilers.check_for_triton()


@pytest.mark.parametrize(
    ("devices", "extension"), [(1, "cpu_adam"), (0, "deepspeed_shm_comm")], ids=["a GPU", "the CPU"]
)
def test_what_deepspeed_compiles_is_refused_without_a_compiler_unless_it_is_compiled_already(
    programs: Path, monkeypatch: pytest.MonkeyPatch, devices: int, extension: str
) -> None:
    give_gpus(monkeypatch, *some_gpus(devices))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(programs / "cache"))
    executor = LocalExecutor()
    row = stage(deepspeed={"stage": 2, "offload_optimizer": devices == 1})
    with pytest.raises(InputError, match=rf"row one: .*{extension} on .*a C\+\+ compiler\n") as e:
        executor.check([row])  # type: ignore[list-item]
    assert "apt install g++;" in e.value.hint
    placing.check([row], "docker")  # type: ignore[list-item]
    monkeypatch.setattr(environment, "current_image", lambda: {"image": "train-cpu"})
    executor.check([row])  # type: ignore[list-item]
    monkeypatch.setattr(environment, "current_image", lambda: None)
    python = f"py{sys.version_info.major}{sys.version_info.minor}_cpu"
    compiled = programs / "cache" / "torch_extensions" / python / extension
    compiled.mkdir(parents=True)
    (compiled / f"{extension}.so").touch()
    executor.check([row])  # type: ignore[list-item]
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(programs / "none"))
    with pytest.raises(InputError, match=extension):
        executor.check([row])  # type: ignore[list-item]
    add(programs, "c++")
    executor.check([row])  # type: ignore[list-item]
    monkeypatch.setenv("CXX", "nope++")
    with pytest.raises(InputError, match="CXX is 'nope"):
        executor.check([row])  # type: ignore[list-item]


def test_deepspeed_on_gpus_without_offloading_compiles_nothing(programs: Path) -> None:
    LocalExecutor().check([stage(deepspeed={"stage": 2})])  # type: ignore[list-item]


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
