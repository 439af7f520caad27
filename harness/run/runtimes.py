"""What `harness doctor` says of the runtimes beside Docker: whether they are here, with images of this
checkout, and what of a stage's confinement they cannot do on this machine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.common.programs import answer_of
from harness.errors import HarnessError, InputError
from harness.run.doctor_check import Check
from harness.run.executors import cut_off, images_folder
from harness.run.executors import podman as podman_executor
from harness.run.executors.apptainer import ApptainerExecutor
from harness.run.executors.charliecloud import CharliecloudExecutor
from harness.run.executors.process import NO_LIMITS

STAGES = ("gen", "train", "answer")
"""One of each image."""


def podman() -> Iterator[Check]:
    try:
        executor = podman_executor.PodmanExecutor()
    except HarnessError as e:
        yield Check(False, "podman", e.message, "--executor podman")
        return
    yield Check(True, "podman", "; ".join([executor.version(), *executor.lacks()]))
    yield _images(executor.name, executor.find_image)


def process_runtimes(volume: Path) -> Iterator[Check]:
    """Of those that are commands; of one that is not here no more than that."""
    folder = images_folder(volume)
    for kind in (ApptainerExecutor, CharliecloudExecutor):
        try:
            executor = kind(folder)
        except InputError as e:
            yield Check(False, kind.name, e.message, f"--executor {kind.name}")
            continue
        version = _version(executor.program)
        if isinstance(executor, CharliecloudExecutor) and (why := cut_off.refusal()):
            yield Check(False, kind.name, f"{version}, but {why}", f"--executor {kind.name}")
            continue
        limits = [] if executor.can_limit() else [f"memory, CPUs and processes: {NO_LIMITS}"]
        yield Check(True, kind.name, "; ".join([version, *limits]))
        yield _images(kind.name, executor.find_image)


def _version(program: str) -> str:
    # ch-run says nothing without a user.
    done = answer_of([program, "--version"], env={"USER": "nobody", **os.environ})
    words = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return words[0] if words else program


def _images(name: str, find: Callable[[str], Any]) -> Check:
    """One line for all three: how many a run could use, and what mends the first that it could not."""
    faults = []
    for stage in STAGES:
        try:
            find(stage)
        except HarnessError as e:
            faults.append(e)
    usable = f"{len(STAGES) - len(faults)} of {len(STAGES)} there with the current lock"
    if not faults:
        return Check(True, f"images for {name}", usable)
    prevents = f"their stages. {faults[0].hint}"
    return Check(False, f"images for {name}", f"{usable}: {faults[0].message}", prevents)
