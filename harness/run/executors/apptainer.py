"""Runs a stage in its pinned image by Apptainer, or Singularity of the same options: no service and no
privilege, as high-performance clusters have it. An image is one .sif file."""

import functools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.common.programs import answer_of
from harness.errors import HarnessError, InputError
from harness.run.executors import cut_off
from harness.run.executors.mounts import WORK
from harness.run.executors.process import Container, ImageFile, ProcessExecutor

PROGRAMS = ("apptainer", "singularity")
CGROUPS = Path("/sys/fs/cgroup/cgroup.controllers")
"""There where control groups are of version 2, by which alone a user's container can be limited."""
SESSION = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
"""Of a session that systemd gave this user, which also delegates control groups: few jobs have it."""


class ApptainerExecutor(ProcessExecutor):
    name = "apptainer"

    @classmethod
    def find_program(cls) -> str:
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            raise InputError(
                "neither apptainer nor singularity is on this machine",
                "On a cluster `module avail apptainer` may know it, or only the compute nodes have it. "
                "Or use another executor: `harness doctor` shows what is there.",
            )
        return program

    def image_path(self, tag: str) -> Path:
        return self._images / f"{tag.replace(':', '-')}.sif"

    def read_image(self, path: Path) -> ImageFile:
        return ImageFile(path, "", labels_of(self.program, path))

    def start(
        self, container: Container, command: Sequence[str]
    ) -> tuple[list[str], dict[str, str]]:
        """No home, no folder of the host's and no variable of the caller's is there but those given;
        the root is read-only, /tmp is a folder of this run's, no process outside is seen. Variables go
        in by the runtime's own environment: a command line can be read by every user."""
        words = [self.program, "exec", "--containall", "--no-home", "--no-privs"]
        words += [f"--workdir={container.scratch}", f"--pwd={WORK}"]
        if not container.has_network:
            words += ["--net", "--network=none"]
        if container.has_gpus:
            words += ["--nv"]
        words += [*_limits(container), *_binds(container)]
        prefix = f"{Path(self.program).name.upper()}ENV_"
        variables = {f"{prefix}{name}": value for name, value in container.variables.items()}
        kept = {n: os.environ[n] for n in ("PATH", "HOME", "USER", *SESSION) if n in os.environ}
        return (
            [*cut_off.prefix(), *words, str(container.image.path), *command],
            {**kept, **variables},
        )

    def can_limit(self) -> bool:
        return _can_limit()


def _can_limit() -> bool:
    """Whether Apptainer can limit what a user's container takes: where it cannot, asking for it ends
    the container."""
    return CGROUPS.exists() and all(os.environ.get(name) for name in SESSION)


def _limits(container: Container) -> list[str]:
    limits = container.limits
    if not _can_limit():
        return []
    words = [f"--pids-limit={limits.pids}"]
    if limits.memory is not None:
        words.append(f"--memory={limits.memory}")
    if limits.cpus is not None:
        words.append(f"--cpus={limits.cpus}")
    return words


def _binds(container: Container) -> list[str]:
    words = []
    for bind in container.binds:
        if forbidden := [sign for sign in ",:" if sign in str(bind.source)]:
            raise InputError(
                f"apptainer cannot mount {bind.source}: there is a {forbidden[0]!r} in its name",
                "Give the file or folder another name, or use another executor.",
            )
        mode = "ro" if bind.is_read_only else "rw"
        words += ["--bind", f"{bind.source}:{bind.inside}:{mode}"]
    return words


@functools.cache
def labels_of(program: str, path: Path) -> Mapping[str, str]:
    """Raises InputError for a file that the runtime does not take for an image."""
    done = answer_of([program, "inspect", "--labels", "--json", str(path)])
    try:
        if done.returncode:
            raise ValueError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "")
        labels = json.loads(done.stdout)["data"]["attributes"]["labels"]
    except (ValueError, KeyError, TypeError) as e:
        raise InputError(
            f"{path} is no image that {Path(program).name} reads: {e}",
            "Remove it and make it anew: harness images --executor apptainer --help",
        ) from None
    return dict(labels or {})


def build(program: str, archive: Path, tag: str, target: Path) -> None:
    """Make the image file of one image in an archive.

    Raises:
        HarnessError: the runtime cannot.
    """
    part = target.with_name(f"{target.stem}.part.sif")
    part.unlink(missing_ok=True)
    done = answer_of([program, "build", str(part), f"docker-archive:{archive}:{tag}"])
    if done.returncode:
        last = "\n".join(f"  | {line}" for line in done.stderr.splitlines()[-8:])
        raise HarnessError(f"{Path(program).name} cannot make {target} of {archive}", last)
    part.replace(target)
