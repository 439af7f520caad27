"""Runs a stage in its pinned image by a runtime that is a command and no service, such as Slurm's nodes
have: the stage is a process of the caller's, in a container that the command makes around it."""

import contextlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.artefact import environment, gpus
from harness.artefact.keys import Files
from harness.common import env_variables
from harness.common.commands import harness
from harness.common.progress import Event
from harness.errors import InputError
from harness.row.row import Limits
from harness.run.executors import (
    ExecutorRecord,
    Job,
    check_compilers,
    image_record,
    images_folder,
    placing,
    record_of,
    start_log,
)
from harness.run.executors.child import follow
from harness.run.executors.mounts import WORK, Bind, StageFiles
from harness.run.executors.secret_files import secret_files
from harness.run.executors.serving import running_url
from harness.run.plan import StagePlan

PROXIES = (*env_variables.PROXY, *env_variables.NO_PROXY, env_variables.ENDPOINT)
NO_LIMITS = "no such limit is set; a Slurm job's own holds"
STAGE = ("python", "-m", "harness.stage")


@dataclass(frozen=True)
class ImageFile:
    """An image as the runtime takes it."""

    path: Path
    id: str
    """Of the image that it was made from; empty where it does not say."""
    labels: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    """The environment that the image sets, where the runtime does not set it itself."""


@dataclass(frozen=True)
class Container:
    """What a runtime's command is to put around a process."""

    image: ImageFile
    binds: Sequence[Bind]
    variables: Mapping[str, str]
    has_network: bool
    has_gpus: bool
    limits: Limits
    scratch: Path
    """An empty folder of this run's."""


class ProcessExecutor(ABC):
    name: str

    def __init__(self, images: Path) -> None:
        self._images = images
        self._image: dict[str, str] = {}
        self._lacks: list[str] = []
        self.program = self.find_program()

    @classmethod
    @abstractmethod
    def find_program(cls) -> str:
        """Raises InputError where the runtime is not on this machine."""

    @abstractmethod
    def image_path(self, tag: str) -> Path:
        """Where the image file of a tag lies, or would."""

    @abstractmethod
    def read_image(self, path: Path) -> ImageFile: ...

    @abstractmethod
    def start(
        self, container: Container, command: Sequence[str]
    ) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment with which `command` runs in a container."""

    def can_limit(self) -> bool:
        """Whether the runtime holds a container to a spec's limits here."""
        return False

    def lacks(self, container: Container) -> list[str]:
        """What of the usual confinement the runtime cannot do for it, in sentences."""
        limits = container.limits
        asked = [f"limits.{n}" for n in ("memory", "cpus") if getattr(limits, n) is not None]
        lacking = []
        if asked and not self.can_limit():
            lacking.append(f"{' and '.join(asked)}: {NO_LIMITS}")
        if container.has_network:
            lacking.append("the network of the stage is this machine's own")
        if container.has_gpus:
            lacking.append(
                "every GPU of the machine can be opened; CUDA uses the chosen ones alone"
            )
        return lacking

    def ties(self) -> dict[str, str]:
        """The variables with which a stage ends when this process is gone."""
        return {}

    def describe(self) -> ExecutorRecord:
        return record_of(self.name, self._image, self._lacks)

    def check(self, stages: Sequence[StagePlan]) -> None:
        """Every stage's image file, and their GPUs.

        Raises:
            InputError: an image file is not there, was made of an image of another lock, or lacks a
                compiler that a stage needs; or see placing.place.
        """
        placing.check(stages, self.name)
        images = {name: self.find_image(name) for name in dict.fromkeys(s.stage for s in stages)}
        check_compilers(stages, {name: image.labels for name, image in images.items()})

    def find_image(self, stage: str) -> ImageFile:
        """Raises InputError where there is none for this checkout."""
        tag = environment.image_tag(stage, environment.accelerator())
        path = self.image_path(tag)
        mend = mend_image(self.name, tag, self._images)
        if not path.exists():
            raise InputError(f"there is no image file {path} of {tag} on this machine", mend)
        image = self.read_image(path)
        record = image_record(stage, image.labels, f"image in {path}", mend)
        self._image = {**record, "id": image.id, "file": path.name}
        return image

    def run(self, job: Job, files: Files, on_event: Callable[[Event], None]) -> None:
        image = self.find_image(job.image_stage)
        base_url = running_url(job.serve) if job.serve else None
        chosen = job.own_gpus()
        stage_files = StageFiles(job, files)
        inputs, cache = stage_files.inputs, stage_files.cache
        call = job.placed(WORK, inputs, stage_files.place, cache, base_url, chosen)
        call.write(job.call_path)
        start_log(job, self.name)
        with secret_files(job) as (secret_binds, keys), _scratch() as scratch:
            container = Container(
                image,
                [*stage_files.binds, *secret_binds],
                {
                    **image.variables,
                    **keys,
                    **_passed_on(job),
                    **env_variables.given(job.stage),
                    **env_variables.threads(job.share.threads),
                    **gpus.restricted_to(chosen),
                    **self.ties(),
                },
                has_network=job.network or base_url is not None,
                has_gpus=bool(chosen),
                limits=job.limits,
                scratch=scratch,
            )
            self._lacks = self.lacks(container)
            command, process_env = self.start(container, [*STAGE, f"{WORK}/{job.call_path.name}"])
            follow(job, command, process_env, on_event)


def mend_image(executor: str, tag: str, folder: Path) -> str:
    """How the image file of a tag is made in the folder."""
    is_own = folder.absolute() == images_folder().absolute()
    make = harness("images", f"--executor {executor}", None if is_own else folder.parent)
    return (
        f"Where Docker or podman has the image: {make}; elsewhere: "
        f"docker save -o images.tar {tag} there, then {make} images.tar"
    )


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="harness-container-") as folder:
        yield Path(folder)


def _passed_on(job: Job) -> dict[str, str]:
    """The caller's variables that say where the hub is and how to reach a network, which is the
    machine's own: its loopback addresses are this machine's."""
    withheld = env_variables.withheld(job.stage, job.network)
    return {n: os.environ[n] for n in PROXIES if os.environ.get(n) and n not in withheld}
