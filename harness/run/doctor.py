"""What is there, and what each missing thing would prevent."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.artefact import environment, gpus
from harness.artefact.gpus import Gpu
from harness.artefact.links import files_below
from harness.common.executor_names import IN_IMAGES
from harness.common.numbers import byte_size
from harness.common.paths import nearest_folder
from harness.common.programs import answer_of
from harness.errors import HarnessError
from harness.llm.secrets import key_variable
from harness.run import doctor_volume
from harness.run.doctor_check import Check

KEYS = ("OPENAI_API_KEY", "MISTRAL_API_KEY", "HF_TOKEN")
LOW_DISK_BYTES = 20e9
"""A 1.8B model with optimizer checkpoints needs about this much."""

SLOW = "training of real models in reasonable time"


def examine(volume: Path, inputs: Path | None) -> list[Check]:
    from harness.run.runtimes import podman, process_runtimes
    from harness.run.slurm import doctor as slurm

    return [
        *_engine(),
        *podman(),
        *process_runtimes(volume),
        _gpu(),
        _local(),
        _disk(volume),
        *doctor_volume.examine(volume),
        *slurm.examine(volume),
        *_keys(),
        given_data(inputs),
    ]


def summary(checks: Sequence[Check]) -> str:
    """What this machine can do now, in a line."""
    there = {check.what: check.is_present for check in checks}
    lack = next((c for c in checks if not c.is_present and c.prevents.startswith("any run")), None)
    if lack is not None:
        return f"here: no run, for want of {lack.what}"
    images = [is_there for what, is_there in there.items() if what.startswith("image ")]
    ways = ["local"] if there["local stages"] else []
    ways += ["docker"] if images and all(images) else []
    ways += [name for name in IN_IMAGES if there.get(f"images for {name}")]
    device = "on the GPUs" if there["GPU"] else "on the CPU"
    text = f"here: all stages, by --executor {' or '.join(ways)}, {device}"
    if not ways:
        text = "here: no stage yet; `make install` lets them run locally"
    return f"{text}; images: `make images`" if not all(images) else text


def _engine() -> Iterator[Check]:
    from harness.run.executors.docker import connect

    try:
        client = connect()
    except HarnessError as e:
        yield Check(False, "Docker engine", e.message, "--executor docker and docker compose run")
        return
    yield Check(True, "Docker engine", str(client.version()["Version"]))
    if shutil.which("docker"):
        compose = answer_of(["docker", "compose", "version", "--short"])
        ok = compose.returncode == 0
        version = compose.stdout.strip() if ok else "not there"
        yield Check(ok, "Docker Compose", version, "" if ok else "docker compose run")
    if environment.accelerator() == "cuda":
        yield _toolkit(client)
    for stage in ("gen", "train", "answer"):
        yield _image(client, stage)


def _image(client: Any, stage: str) -> Check:
    import docker.errors

    tag = environment.image_tag(stage, environment.accelerator())
    name = environment.image_name(stage, environment.accelerator())
    build = "its stages; build it: make images"
    try:
        image = client.images.get(tag)
    except docker.errors.ImageNotFound:
        return Check(False, f"image {tag}", "not built", build)
    if image.labels.get("harness.lock") != environment.lock_digest(name):
        return Check(False, f"image {tag}", "built from another lock", build)
    if name == "train-cuda" and environment.COMPILER_LABEL not in image.labels:
        prevents = "train.liger_kernels; build it anew: make images"
        return Check(False, f"image {tag}", "lock current, but no C compiler in it", prevents)
    return Check(True, f"image {tag}", f"{byte_size(image.attrs['Size'])}, lock current")


def _gpu() -> Check:
    """Those that a run would use, and what the pinned images' CUDA cannot do with them."""
    devices = gpus.visible()
    if not devices:
        state = gpus.what_is_there() if gpus.is_there() or gpus.fault_of_tool() else "none"
        prevents = SLOW
        if environment.accelerator() == "cuda" or environment.fault_of_gpu():
            prevents = f"stages with a model. {gpus.way_out(1, 0)}Or: {gpus.CPU_INSTEAD}"
        return Check(False, "GPU", state, prevents)
    if environment.accelerator() != "cuda":
        by = "HARNESS_ACCELERATOR" if os.environ.get("HARNESS_ACCELERATOR") else "this image"
        state = f"not used, for {by} says cpu: {gpus.counted(devices)}"
        return Check(False, "GPU", state, SLOW)
    faults = [f"{why}. {gpus.remedy(gpu)}" for gpu in devices if (why := gpus.cannot(gpu))]
    prevents = f"the CUDA images and torch for CUDA 13: {' '.join(dict.fromkeys(faults))}"
    prevents = prevents if faults else ""
    return Check(not faults, "GPU", "; ".join(map(_facts, devices)), prevents)


def _facts(gpu: Gpu) -> str:
    facts = [f"{gpu.index} {gpu.name}" + (f" ({gpu.uuid})" if gpu.uuid else "")]
    if gpu.size:
        facts.append(byte_size(gpu.size))
    if gpu.driver:
        facts.append(f"driver {gpu.driver}")
    if gpu.capability is not None:
        emulated = ", which emulates bfloat16" if gpus.emulates_bfloat16(gpu) else ""
        facts.append(gpus.sm(gpu.capability) + emulated)
    return ", ".join(facts)


def _toolkit(client: Any) -> Check:
    """Where there is a GPU: whether containers can have it."""
    from harness.run.executors.devices import INSTALL, TOOLKIT, has_toolkit

    if has_toolkit(client.info()) or shutil.which("nvidia-container-runtime-hook"):
        return Check(True, TOOLKIT, "there")
    return Check(False, TOOLKIT, "not there", f"GPUs in containers; {INSTALL}")


def _local() -> Check:
    from harness.run.executors import placing

    if lacking := placing.missing_packages(placing.PACKAGES):
        return Check(
            False,
            "local stages",
            f"lacking {', '.join(lacking)}",
            "--executor local; `make install`",
        )
    if environment.lacks_cuda():
        state, prevents = "torch is a build for the CPU", f"GPUs locally. {gpus.INSTALL_CUDA}"
        return Check(False, "local stages", state, prevents)
    return Check(True, "local stages", f"packages there, {environment.accelerator()}")


def _disk(volume: Path) -> Check:
    place = nearest_folder(volume.resolve())
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    enough = writable and free >= LOW_DISK_BYTES
    state = f"{place}: {byte_size(free)} free" + ("" if writable else ", not writable")
    return Check(
        enough, "volume", state,
        "" if enough else "any run" if not writable else "training of models of a billion parameters",
    )  # fmt: skip


def given_data(inputs: Path | None) -> Check:
    if inputs is None:
        prevents = "rows that read `data:` files; name the folder with --inputs"
        return Check(False, "given data", "no folder named", prevents)
    paths = files_below(inputs)
    files = sum(not p.name.startswith((".", "README")) for p in paths)
    state = f"{inputs}: {files:,} file{'' if files == 1 else 's'}"
    return Check(files > 0, "given data", state, "" if files else "rows that read `data:` files")


def _keys() -> Iterator[Check]:
    for name in KEYS:
        is_set = key_variable(name) is not None
        prevents = (
            "" if is_set else "gated hub models" if name == "HF_TOKEN" else "rows that name it"
        )
        yield Check(is_set, f"key {name}", "set" if is_set else "not set", prevents)
