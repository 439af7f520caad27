"""A stage's keys as files in memory, for as long as its container runs."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.llm.secrets import key_variable, read_key
from harness.run.executors import Job
from harness.run.executors.mounts import SECRETS, Bind

MEMORY, KEYS = Path("/dev/shm"), "harness-keys"
"""Where keys stand as files while a container runs, and what their folders' names begin with."""


@contextlib.contextmanager
def secret_files(job: Job) -> Iterator[tuple[list[Bind], dict[str, str]]]:
    """Files that only this user can read, and the variables that name them: an engine's records and a
    process list have no more than these names."""
    values = {n: read_key(n, job.title) for n in job.secrets if key_variable(n)}
    memory = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
    _remove_keys_of_killed(memory)
    if not values:
        yield [], {}
        return
    with tempfile.TemporaryDirectory(prefix=f"{KEYS}-{os.getpid()}-", dir=memory) as folder:
        binds, variables = [], {}
        for name, value in values.items():
            path = Path(folder) / name
            path.touch(mode=0o600)
            path.write_text(value, encoding="utf-8")
            binds.append(Bind(f"{SECRETS}/{name}", path))
            variables[f"{name}_FILE"] = f"{SECRETS}/{name}"
        yield binds, variables


def _remove_keys_of_killed(memory: Path) -> None:
    """A harness that was killed could not remove its keys."""
    for folder in memory.glob(f"{KEYS}-*-*"):
        owner = folder.name.removeprefix(f"{KEYS}-").split("-")[0]
        with contextlib.suppress(FileNotFoundError):
            if not Path("/proc", owner).exists() and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder)
