"""The compilers that stages need when they run, looked for before they do."""

import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from harness.artefact import environment
from harness.errors import InputError

C = ("a C compiler", "gcc libc6-dev")
CXX = ("a C++ compiler", "g++")
HEADERS = ("Python's headers", "python3-dev")
"""What is looked for, and Debian's packages that hold it."""


def check(
    user: str, compiler: tuple[str, str], programs: Sequence[str | None], otherwise: str
) -> None:
    """Raises InputError where none of the programs is there, or Python's headers are not.

    user: what needs them, the beginning of the message. otherwise: another way out.
    """
    missing = [] if any(p and shutil.which(p) for p in programs) else [compiler]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append(HEADERS)
    if missing:
        raise InputError(
            f"{user} and needs {' and '.join(what for what, _ in missing)}",
            f"on Debian or Ubuntu: apt install {' '.join(package for _, package in missing)}; "
            f"or {otherwise}",
        )


def check_for_triton() -> None:
    """What Triton, whose kernels Liger's are, compiles the launcher of its kernels with: CC, else clang
    or gcc. Raises InputError where that is not there."""
    if environment.current_image() is None:
        otherwise = "use --executor docker: the train image for CUDA holds them"
    else:
        otherwise = "build the image anew, which then holds them: docker compose build train"
    compiler = os.environ.get("CC")
    check(
        "train.liger_kernels: Triton compiles what launches the kernels on first use",
        C,
        (compiler,) if compiler else ("clang", "gcc"),
        f"{otherwise}; or set train.liger_kernels: false",
    )
