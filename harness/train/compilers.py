"""The compilers that stages need when they run, looked for before they do."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from harness.artefact import environment
from harness.errors import InputError
from harness.spec.train import DeepSpeed

C = ("a C compiler", "gcc libc6-dev")
CXX = ("a C++ compiler", "g++")
HEADERS = ("Python's headers", "python3-dev")
"""What is looked for, and Debian's packages that hold it."""


def check(
    user: str, compiler: tuple[str, str], variable: str, programs: Sequence[str], otherwise: str
) -> None:
    """Raises InputError where the program that the variable names is not there, without the variable
    where none of the programs is; or where Python's headers are not.

    user: what needs them, the beginning of the message. otherwise: another way out.
    """
    named = os.environ.get(variable)
    present = [program for program in programs if shutil.which(program)]
    if named is not None and not shutil.which(named):
        way = f"unset {variable}, and {present[0]} is taken" if present else f"unset {variable}"
        raise InputError(
            f"{user} and needs {compiler[0]}: {variable} is {named!r}, and there is no such program",
            f"{variable} is read as one program's name, without options; {way}, or name one that is "
            f"there; or {otherwise}",
        )
    missing = [] if named is not None or present else [compiler]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append(HEADERS)
    if missing:
        raise InputError(
            f"{user} and needs {' and '.join(what for what, _ in missing)}",
            f"on Debian or Ubuntu: apt install {' '.join(package for _, package in missing)}; "
            f"or {otherwise}",
        )


def check_for_triton(where: str = "") -> None:
    """What Triton, whose kernels Liger's are, compiles the launcher of its kernels with: CC, else gcc
    or clang. Raises InputError where that is not there; `where`: the beginning of its message."""
    if environment.current_image() is None:
        otherwise = "use --executor docker: the train image for CUDA holds them"
    else:
        otherwise = "build the image anew, which then holds them: docker compose build train"
    check(
        f"{where}train.liger_kernels: Triton compiles what launches the kernels on first use",
        C,
        "CC",
        ("gcc", "clang"),
        f"{otherwise}; or set train.liger_kernels: false",
    )


def check_for_deepspeed(extension: str, where: str = "") -> None:
    """What torch compiles an extension of DeepSpeed's with: CXX, else c++. Raises InputError where
    that is not there; `where`: the beginning of its message."""
    check(
        f"{where}DeepSpeed compiles its extension {extension} on first use",
        CXX,
        "CXX",
        ("c++",),
        "use --executor docker: the train image holds the extension",
    )


def to_be_compiled(deepspeed: DeepSpeed, libraries: Path | None = None) -> list[str]:
    """The extensions that DeepSpeed will load and that neither the installation holds nor a training
    before has compiled, as far as that shows without torch: another build's may be taken for this
    one's, and the training then says it. `libraries`: where libraries keep theirs on the volume."""
    names = ["cpu_adam"] if deepspeed.offload_optimizer else []
    if environment.accelerator() != "cuda":
        names.append("deepspeed_shm_comm")
    return [name for name in names if not _is_compiled(name, libraries)]


def _is_compiled(extension: str, libraries: Path | None) -> bool:
    package = importlib.util.find_spec("deepspeed")
    if package is None or package.origin is None:
        return True  # what is missing then is another thing
    if any(Path(package.origin).parent.glob(f"ops/*/{extension}_op*.so")):
        return True
    if folder := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(folder, extension, f"{extension}.so").exists()
    own = libraries / "cache" if libraries else Path.home() / ".cache"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or own, "torch_extensions")
    python = f"py{sys.version_info.major}{sys.version_info.minor}{sys.abiflags}_*"
    return any(cache.glob(f"{python}/{extension}/{extension}.so"))
