"""What is compiled on first use: DeepSpeed's extensions for the CPU, unless the image holds them, and
what launches Triton's kernels."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.artefact import events
from harness.errors import HarnessError, InputError
from harness.train import compilers

STALE_S = 60
"""Loading what is compiled takes a second; a lock so old was left by a process that was killed."""
CPU_FLAGS = Path("/proc/cpuinfo")


def prepare_deepspeed(offload: bool) -> None:
    """Load what DeepSpeed compiles in C++, before it looks for it: its CPU optimizer where states are
    offloaded, and where there is no GPU the shared-memory collectives, which any run loads.

    To be called in the process that starts the others, or in each. Raises InputError where an
    extension has to be compiled and there is no compiler.
    """
    find_ninja()
    from deepspeed.accelerator import get_accelerator
    from deepspeed.ops.op_builder.cpu import CPUAdamBuilder, ShareMemCommBuilder

    builders = [CPUAdamBuilder()] if offload else []
    if get_accelerator().device_name() == "cpu":
        builders.append(ShareMemCommBuilder())
    for builder in builders:
        load(builder)


def find_ninja() -> None:
    """Put this environment's programs on PATH, also for the processes started from here on.

    In front: what one ninja has built, another of an older or newer version builds anew.
    """
    programs = Path(sys.executable).parent
    if shutil.which("ninja") is None or (programs / "ninja").exists():
        os.environ["PATH"] = os.pathsep.join(filter(None, (str(programs), os.environ.get("PATH"))))


def load(builder: Any) -> None:
    """Load the extension; where it is not part of the installation, compile it if need be."""
    if is_prebuilt(builder):
        _check_cpu()
        builder.load()
        return
    folder = _build_folder(builder.name)
    # torch waits for its own lock file, also for one that a killed process left. This lock dies with
    # the process, and whoever holds it knows that nobody is compiling.
    with open(folder / "harness.lock", "w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        is_there = (folder / f"{builder.name}.so").exists()
        if not is_there or _age(folder / "lock") > STALE_S:
            (folder / "lock").unlink(missing_ok=True)
        if not is_there:
            compilers.check_for_deepspeed(builder.name)
            events.note(
                f"compiling DeepSpeed's {builder.name} for this machine, once: about two minutes "
                f"(kept in {folder})"
            )
        try:
            builder.load(verbose=False)
        except (RuntimeError, ImportError) as fault:
            raise HarnessError(
                f"DeepSpeed's extension {builder.name} could not be compiled: {fault}",
                f"remove {folder} to compile it anew, or use the train image, which holds it",
            ) from fault


def _age(path: Path) -> float:
    """Seconds since a file was written; 0 where there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def is_prebuilt(builder: Any) -> bool:
    """Whether DeepSpeed will take the installation's own, by the rule of its OpBuilder.load."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.git_version_info import accelerator_name, installed_ops

    return bool(installed_ops.get(builder.name)) and accelerator_name == get_accelerator()._name


def _check_cpu() -> None:
    """The image's extensions are compiled for AVX2 (requirements/extensions.py)."""
    if "avx2" not in CPU_FLAGS.read_text(encoding="utf-8").split():
        raise InputError(
            "this CPU has no AVX2, for which the train image's DeepSpeed extensions are compiled",
            "run the row without train.deepspeed, or with --executor local and a C++ compiler",
        )


def prepare_triton() -> None:
    """Have Triton compile what launches its kernels, before there is a step to lose.

    Raises InputError where it cannot.
    """
    compilers.check_for_triton()
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except (
        RuntimeError,
        ImportError,
        AssertionError,
        OSError,
        subprocess.CalledProcessError,
    ) as fault:
        raise InputError(
            f"train.liger_kernels: Triton cannot launch its kernels here: {fault}",
            "The log may say more. Where libcuda.so.1 is not found, name its folder in "
            "TRITON_LIBCUDA_PATH; or set train.liger_kernels: false.",
        ) from fault


def _build_folder(name: str) -> Path:
    """Where torch compiles and keeps an extension: in TORCH_EXTENSIONS_DIR, else the user's cache."""
    from torch.utils.cpp_extension import _get_build_directory

    try:
        return Path(_get_build_directory(name, False))
    except OSError as fault:
        raise InputError(
            f"DeepSpeed's extension {name} has no place to be compiled in: {fault}",
            "name a folder that can be written in TORCH_EXTENSIONS_DIR",
        ) from fault
