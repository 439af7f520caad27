"""Preparing DeepSpeed's extensions. Nothing is compiled here: the builders are stand-ins."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from harness.artefact import events
from harness.errors import HarnessError, InputError

pytest.importorskip("deepspeed")

from harness.train import ops


class Builder:
    """As much of DeepSpeed's OpBuilder as is used; `load` leaves what a compiler would."""

    name = "cpu_adam"

    def __init__(self, folder: Path, fault: Exception | None = None) -> None:
        self.folder, self.fault, self.loads = folder, fault, 0

    def load(self, verbose: bool = True) -> None:
        assert not (self.folder / "lock").exists(), "torch would wait for this for ever"
        self.loads += 1
        if self.fault:
            raise self.fault
        (self.folder / f"{self.name}.so").touch()


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(events, "note", said.append)
    return said


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the extension would be compiled; the installation has none of its own."""
    from deepspeed import git_version_info

    monkeypatch.setattr(git_version_info, "installed_ops", {})
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (tmp_path / "cpu_adam").mkdir()
    return tmp_path / "cpu_adam"


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.compilers, "check_for_deepspeed", lambda name: None)


@pytest.mark.usefixtures("compiler")
def test_it_is_compiled_once_and_says_how_long_that_takes(folder: Path, notes: list[str]) -> None:
    builder = Builder(folder)
    ops.load(builder)
    ops.load(builder)
    assert builder.loads == 2
    assert len(notes) == 1
    assert "two minutes" in notes[0]
    assert str(folder) in notes[0]


@pytest.mark.usefixtures("compiler", "notes")
def test_the_lock_of_a_killed_compilation_is_not_waited_for(folder: Path) -> None:
    (folder / "lock").touch()
    builder = Builder(folder)
    ops.load(builder)
    assert builder.loads == 1


@pytest.mark.usefixtures("compiler", "notes")
def test_only_one_process_compiles_at_a_time(folder: Path) -> None:
    class Watching(Builder):
        def load(self, verbose: bool = True) -> None:
            with open(folder / "harness.lock") as other, pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            super().load(verbose)

    ops.load(Watching(folder))
    with open(folder / "harness.lock") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.usefixtures("compiler", "notes")
def test_a_failed_compilation_is_told_with_the_compilers_words(folder: Path) -> None:
    with pytest.raises(HarnessError, match=r"cpu_adam could not be compiled: no such header"):
        ops.load(Builder(folder, RuntimeError("no such header")))


def test_without_a_compiler_it_says_what_to_install(
    folder: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    builder = Builder(folder)
    with pytest.raises(InputError, match=r"C\+\+ compiler") as fault:
        ops.load(builder)
    assert "apt install g++" in fault.value.hint
    assert (builder.loads, notes) == (0, [])


def test_what_is_compiled_already_needs_no_compiler(
    folder: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (folder / "cpu_adam.so").touch()
    builder = Builder(folder)
    ops.load(builder)
    assert (builder.loads, notes) == (1, [])


def test_an_images_own_extension_is_loaded_as_it_is_but_not_on_a_cpu_that_lacks_its_instructions(
    folder: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ops, "is_prebuilt", lambda builder: True)
    flags = tmp_path / "cpuinfo"
    monkeypatch.setattr(ops, "CPU_FLAGS", flags)
    builder = Builder(folder)
    flags.write_text("flags : fpu avx avx2 fma\n")
    ops.load(builder)
    assert (builder.loads, notes) == (1, [])
    flags.write_text("flags : fpu avx\n")
    with pytest.raises(InputError, match="AVX2"):
        ops.load(builder)
    assert builder.loads == 1


@pytest.mark.parametrize(
    ("accelerator", "offload", "wanted"),
    [
        ("cpu", True, ["cpu_adam", "deepspeed_shm_comm"]),
        ("cpu", False, ["deepspeed_shm_comm"]),
        ("cuda", True, ["cpu_adam"]),
        ("cuda", False, []),
    ],
)
def test_only_what_the_run_loads_is_prepared(
    accelerator: str, offload: bool, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed.accelerator import get_accelerator

    loaded: list[str] = []
    monkeypatch.setattr(ops, "load", lambda builder: loaded.append(builder.name))
    monkeypatch.setattr(type(get_accelerator()), "device_name", lambda self: accelerator)
    ops.prepare_deepspeed(offload)
    assert loaded == wanted


def test_this_environments_ninja_is_found_when_its_programs_are_not_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (Path(sys.executable).parent / "ninja").exists():
        pytest.skip("ninja is not installed in this environment")
    monkeypatch.setenv("PATH", str(tmp_path))
    ops.find_ninja()
    found = shutil.which("ninja")
    assert found == str(Path(sys.executable).parent / "ninja")
    assert os.environ["PATH"].endswith(str(tmp_path))


def test_this_environments_ninja_comes_before_the_systems_which_would_build_all_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (Path(sys.executable).parent / "ninja").exists():
        pytest.skip("ninja is not installed in this environment")
    other = tmp_path / "ninja"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ops.find_ninja()
    assert shutil.which("ninja") == str(Path(sys.executable).parent / "ninja")


class Driver:
    """As much of Triton's as is used: whatever is asked of it, it is compiled first."""

    def __init__(self, fault: Exception | None) -> None:
        self.fault, self.compiled = fault, 0

    @property
    def active(self) -> "Driver":
        if self.fault:
            raise self.fault
        return self

    def get_current_target(self) -> None:
        self.compiled += 1


def triton(monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None) -> Driver:
    runtime = ModuleType("triton.runtime")
    runtime.driver = driver = Driver(fault)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    monkeypatch.setitem(sys.modules, "triton.runtime", runtime)
    return driver


@pytest.mark.parametrize(
    "fault",
    [
        AssertionError("libcuda.so cannot found!"),
        subprocess.CalledProcessError(1, ["gcc"]),
        RuntimeError("Failed to find C compiler."),
        RuntimeError("0 active drivers"),
    ],
)
def test_triton_is_tried_before_a_step_and_its_fault_is_told_with_ways_out(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(ops.compilers, "check_for_triton", lambda: None)
    driver = triton(monkeypatch)
    ops.prepare_triton()
    assert driver.compiled == 1
    triton(monkeypatch, fault)
    with pytest.raises(InputError, match=r"train\.liger_kernels: Triton") as told:
        ops.prepare_triton()
    assert str(fault) in told.value.message
    assert "train.liger_kernels: false" in told.value.hint


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_triton_compiles_what_launches_its_kernels() -> None:
    pytest.importorskip("triton")
    ops.prepare_triton()
