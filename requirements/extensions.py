"""Compiles DeepSpeed's extensions for the CPU, for an image that has no C++ compiler.

    python requirements/extensions.py compiler g++|gcc  Debian's compiler for C++ or C, with Python's
                                                        headers, if not there
    python requirements/extensions.py compile FOLDER    the extensions; FOLDER is then laid over the
                                                        environment of the Python that runs this

cpu_adam is the optimizer of ZeRO's offload to the CPU, with and without a GPU; deepspeed_shm_comm is
loaded by every DeepSpeed run on the CPU alone. None of them needs nvcc. DeepSpeed would compile them
on first use for the CPU at hand; an image is built on one machine and run on another.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from install import given, trusting

# Any x86-64 CPU with AVX2: Intel since 2013, AMD since 2015. DeepSpeed's own choice is native.
PORTABLE = {"cpu_arch": "-march=x86-64-v3", "simd_width": "-D__AVX256__"}

# Appended to what DeepSpeed's set-up notes of itself: load these, under whatever accelerator is found.
INSTALLED = """
from deepspeed.accelerator import get_accelerator
accelerator_name = get_accelerator()._name
installed_ops |= {ops}
"""

COMPILERS = {"g++": ["g++"], "gcc": ["gcc", "libc6-dev"]}
"""Program -> Debian's packages. That of C++ brings the C library's headers, that of C does not."""
C_HEADER = Path("/usr/include/stdlib.h")

NO_COMPILER = """
The compiler {0} could not be installed from Debian's packages; apt says why above. Ways out:
  - HTTP_PROXY, HTTPS_PROXY, EXTRA_CA_BUNDLE, if the packages are to be had through a proxy
  - BASE_IMAGE=IMAGE, a base that has {0} and Python's headers; nothing is then installed
"""


def install_compiler(program: str) -> int:
    """Debian's packages, checked by apt against Debian's keys."""
    is_there = shutil.which(program) and C_HEADER.exists()
    packages = [] if is_there else list(COMPILERS[program])
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        packages.append("python3-dev")
    if not packages:
        return 0
    command = ["apt-get", "-qq", "-o", "Acquire::Retries=3"]
    # apt reads these names in lower case only.
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    environment = {n.lower(): os.environ[n] for n in names if os.environ.get(n)} | os.environ
    environment["DEBIAN_FRONTEND"] = "noninteractive"
    if bundle := given("/run/secrets/extra_ca", os.environ.get("EXTRA_CA_BUNDLE")):
        trusted = trusting(bundle)["PIP_CERT"]
        os.chmod(trusted, 0o644)  # apt downloads as a user of its own
        command += ["-o", f"Acquire::https::CAInfo={trusted}"]
    install = ["install", "--yes", "--no-install-recommends", *packages]
    try:
        for action in (["update"], install):
            if code := subprocess.run(command + action, env=environment).returncode:
                print(NO_COMPILER.format(program), file=sys.stderr)
                return code
    finally:
        if bundle:
            Path(trusted).unlink()
    return 0


def compile_extensions(folder: Path) -> int:
    """Writes below `folder` what is to be laid over the environment, relative to its root."""
    from deepspeed.ops.op_builder.cpu import CPUAdamBuilder, ShareMemCommBuilder

    site = Path(sysconfig.get_path("purelib"))
    target = folder / site.relative_to(sys.prefix)
    builders = [CPUAdamBuilder(), ShareMemCommBuilder()]
    for builder in builders:
        _compile(builder, target)
    about = Path("deepspeed", "git_version_info_installed.py")
    ops = {builder.name: True for builder in builders}
    (target / about).write_text((site / about).read_text() + INSTALLED.format(ops=ops))
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    return subprocess.run([*command, "-s", folder, "-p", sys.prefix, target]).returncode


def _compile(builder: Any, target: Path) -> None:
    """The module that `builder` looks for, and imported once; OpenMP's library is torch's."""
    from torch.utils.cpp_extension import load

    for name, flag in PORTABLE.items():
        setattr(builder, name, lambda flag=flag: flag)
    module = builder.absolute_name().split(".")
    with tempfile.TemporaryDirectory() as scratch:
        load(
            name=module[-1],
            sources=[builder.deepspeed_src_path(path) for path in builder.sources()],
            extra_include_paths=[builder.deepspeed_src_path(p) for p in builder.include_paths()],
            extra_cflags=builder.strip_empty_entries(builder.cxx_args()),
            build_directory=scratch,
            verbose=True,
        )
        made = target.joinpath(*module).with_suffix(".so")
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["strip", "--strip-debug", "-o", made, Path(scratch, made.name)], check=True)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["compiler", program] if program in COMPILERS:
            return install_compiler(program)
        case ["compile", folder]:
            return compile_extensions(Path(folder))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
