"""What a container sees of this machine's files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.artefact import links
from harness.artefact.keys import Files
from harness.run.executors import Job
from harness.spec.base import DataPath

if TYPE_CHECKING:
    from docker.types import Mount

WORK, INPUTS, DATA, CACHE, SECRETS = "/work", "/inputs", "/data", "/cache", "/run/secrets"


@dataclass(frozen=True)
class Bind:
    """A file or folder of this machine's, and its path in the container."""

    inside: str
    source: Path
    is_read_only: bool = True

    def as_mount(self) -> "Mount":
        from docker.types import Mount

        return Mount(self.inside, str(self.source), "bind", read_only=self.is_read_only)


@dataclass
class StageFiles:
    """The files of a job, and of those alone, with their paths in its container."""

    job: Job
    files: Files
    binds: list[Bind] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    _places: dict[Path, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.binds.append(Bind(WORK, self.job.folder.resolve(), is_read_only=False))
        for name, folder in self.job.inputs.items():
            self.inputs[name] = f"{INPUTS}/{name}"
            self.binds.append(Bind(self.inputs[name], Path(folder).resolve()))
        if self.job.cache is not None:
            self.binds.append(Bind(CACHE, Path(self.job.cache).resolve(), is_read_only=False))

    @property
    def cache(self) -> str | None:
        return CACHE if self.job.cache is not None else None

    def place(self, data: DataPath) -> str:
        """Where the stage finds a given file."""
        path = self.files.locate(data)
        if path not in self._places:
            self._places[path] = f"{DATA}/{len(self._places)}/{path.name}"
            self.binds.extend(read_only(path, self._places[path]))
        return self._places[path]


def read_only(path: Path, inside: str) -> list[Bind]:
    """The mounts of a file or folder. Links in a folder lead nowhere in a container: of such a folder
    each file is mounted under its own name."""
    files = links.linked(path) if path.is_dir() else None
    if files is None:
        return [Bind(inside, path.resolve())]
    return [Bind(f"{inside}/{name}", Path(file)) for name, file in files.items()]
