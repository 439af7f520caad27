"""Image files for the runtimes that are commands, made once of the archives of the pinned images."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.artefact import environment
from harness.common.numbers import SIZES, byte_size
from harness.common.progress import Event, ProgressView, progress_event, say
from harness.errors import HarnessError, InputError
from harness.run.executors import check_lock, images_folder
from harness.run.executors.apptainer import ApptainerExecutor, build
from harness.run.executors.charliecloud import CharliecloudExecutor
from harness.run.executors.image_archive import ArchivedImage, images_in, unpack
from harness.run.executors.process import ProcessExecutor

RUNTIMES: dict[str, type[ProcessExecutor]] = {
    "apptainer": ApptainerExecutor,
    "charliecloud": CharliecloudExecutor,
}
PREFIX = "harness-"
MIB = SIZES["MiB"]


def make_files(name: str, archives: Sequence[Path], volume: Path, console: Console) -> None:
    """Make the image files for one of RUNTIMES: of these archives, or of what Docker or podman has.

    Raises:
        InputError: the runtime is not here; an archive cannot be read, has none of the harness's
            images, or one of another lock; no archive is named, and no engine here has the images.
        HarnessError: the runtime cannot convert one.
    """
    folder = images_folder(volume).resolve()
    executor = RUNTIMES[name](folder)
    folder.mkdir(parents=True, exist_ok=True)
    if archives:
        for archive in archives:
            _make_of(executor, archive, console)
        return
    for tag in dict.fromkeys(
        environment.image_tag(stage, environment.accelerator()) for stage in environment.STAGES
    ):
        with _saved(tag, folder, console) as archive:
            _make_of(executor, archive, console)


def _make_of(executor: ProcessExecutor, archive: Path, console: Console) -> None:
    images = [image for image in images_in(archive) if image.tag.startswith(PREFIX)]
    if not images:
        raise InputError(
            f"{archive} has none of the harness's images",
            "Make one that has: docker save -o images.tar harness-gen:latest harness-train:cpu "
            "harness-eval:cpu",
        )
    for image in images:
        labels = image.config.labels
        mend = "Build it from this checkout, and save it again: make images"
        lock = labels.get("harness.lock", "")
        check_lock(labels.get("harness.image", "gen"), f"image {image.tag}", lock, mend)
    for image in images:
        _make(executor, archive, image, console)


def _make(executor: ProcessExecutor, archive: Path, image: ArchivedImage, console: Console) -> None:
    target = executor.image_path(image.tag)
    if isinstance(executor, ApptainerExecutor):
        size = byte_size(image.size)
        say(console, f"{image.tag}: {executor.program} converts its {size}, which can take minutes")
        build(executor.program, archive, image.tag, target)
    elif target.exists() and executor.read_image(target).id == image.config.id:
        say(console, f"{image.tag}: there already")
        return
    else:
        _unpack(archive, image, target, console)
    say(console, f"{image.tag}: {target}")


def _unpack(archive: Path, image: ArchivedImage, target: Path, console: Console) -> None:
    """Unpack beside the target, then put it in its place: a run sees a whole image or none."""
    part, old = (target.with_name(f"{target.name}.{word}") for word in ("part", "old"))
    for folder in (part, old):
        shutil.rmtree(folder, ignore_errors=True)
    with ProgressView(console, image.tag) as view:
        unpack(
            archive, image, part, lambda done: view.show(_progress("unpacked", done, image.size))
        )
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _saved(tag: str, folder: Path, console: Console) -> Iterator[Path]:
    """An archive of an image that an engine here has, while it is used."""
    image = _find(tag)
    # podman has it with a registry's name or localhost's before it.
    own = next((name for name in image.tags if name.rpartition("/")[2] == tag), tag)
    archive = folder / f"{tag.replace(':', '-')}.tar.part"
    try:
        done = 0
        # About as much as its archive will have.
        size = byte_size(image.attrs["Size"])
        with archive.open("wb") as file, ProgressView(console, tag) as view:
            for chunk in image.save(named=own):
                file.write(chunk)
                done += len(chunk)
                view.show(_progress("saved", done, None, image=size))
            view.show(_progress("saved", done, done))
        yield archive
    finally:
        archive.unlink(missing_ok=True)


def _find(tag: str) -> Any:
    """Docker's or podman's image. Raises InputError where neither has it."""
    import docker.errors

    from harness.run.executors import docker as docker_executor
    from harness.run.executors import podman

    reasons = []
    for name, connect in (("docker", docker_executor.connect), ("podman", podman.connect)):
        try:
            return connect().images.get(tag)
        except docker.errors.NotFound:
            reasons.append(f"{name} has no image {tag}")
        except HarnessError as e:
            reasons.append(e.message)
    raise InputError(
        f"there is no image {tag} to convert: {'; '.join(reasons)}",
        f"Where Docker built it: docker save -o images.tar {tag}; bring the file here and name it: "
        "harness images images.tar",
    )


def _progress(task: str, done: int, total: int | None, **info: str) -> Event:
    return progress_event(task, done // MIB, total and total // MIB, "MiB", **info)
