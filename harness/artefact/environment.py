"""Which pinned image, or which local packages, a stage runs in: the part of a key that says so."""

import functools
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypedDict, runtime_checkable

from harness.artefact import gpus
from harness.common.commands import harness, volume_option
from harness.common.executor_names import IN_IMAGES
from harness.errors import HarnessError, InputError

CODE_VERSIONS = {
    "train": 4,
    "sim": 3,
}
"""Raised whenever the code of a stage, or of the simulated teacher and judge, comes to make other
content from the same call. A recipe, an engine and a judge have their own `code_version`.

tests/test_code_versions.py fails when such code changes and the version does not.
"""

STAGES = ("gen", "train", "answer", "judge")
ACCELERATORS = ("cpu", "cuda")
FAMILY = {"gen": "gen", "train": "train", "answer": "eval", "judge": "eval"}
"""Stage -> image family (and compose service)."""

IMAGE_FILE = Path(os.environ.get("HARNESS_IMAGE_FILE", "/opt/harness/image.json"))
"""Baked into each image: its name, its lock's digest and its base."""

COMPILER_LABEL = "harness.compiler"
"""Names the C compiler of an image that holds one."""


def root() -> Path:
    """The checkout (or, inside an image, the folder) that holds harness/ and requirements/."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "requirements").is_dir():
        raise HarnessError(
            f"there is no requirements/ folder in {folder}, so the pinned images are not known",
            "Run the harness from a checkout (`pip install -e .`) or in its images.",
        )
    return folder


@runtime_checkable
class Versioned(Protocol):
    """A part of a spec that does a stage's work with code of its own, such as a recipe."""

    code_version: ClassVar[int]


def code_version(stage: str, params: Mapping[str, Any]) -> int:
    """The version of the code that does the stage's work: of a part among `params` (spec models) that
    has its own, or else by `code_name`. 1 for what makes no artefact."""
    part = params.get(stage)
    if stage == "answer" and part is not None:
        part = _part(part, "engine")
    if isinstance(part, Versioned):
        return part.code_version
    return CODE_VERSIONS.get(code_name(stage, params), 1)


def code_name(stage: str, params: Mapping[str, Any]) -> str:
    """What a code version is the version of: each of gen's recipes, of answer's engines and of the
    judges counts by itself, so that a change in one makes nothing stale that another one made, and
    that was perhaps paid for."""
    part, name = _VARIANTS.get(stage, ("", ""))
    value = params.get(part)
    if value is None:
        return stage
    if stage == "answer":
        value = _part(value, "engine")
    return f"{stage}/{_part(value, name)}"


_VARIANTS = {"gen": ("gen", "recipe"), "answer": ("answer", "kind"), "judge": ("judge", "kind")}


def _part(value: Any, name: str) -> Any:
    """Of a spec model, or of its dump."""
    return value[name] if isinstance(value, Mapping) else getattr(value, name)


def cpus() -> int:
    """How many this process may run on; at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def image_name(stage: str, accelerator: str) -> str:
    """For example `train-cpu`; the gen image has no accelerator."""
    family = FAMILY[stage]
    return family if family == "gen" else f"{family}-{accelerator}"


def image_tag(stage: str, accelerator: str) -> str:
    """The tag that compose.yaml gives the image of a stage."""
    family = FAMILY[stage]
    return f"harness-{family}:{'latest' if family == 'gen' else accelerator}"


@functools.cache
def lock_text(image: str) -> str:
    path = root() / "requirements" / f"{image}.txt"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise HarnessError(f"the lock {path} is missing", "Restore it, or run: make lock") from None


@functools.cache
def lock_digest(image: str) -> str:
    return hashlib.sha256(lock_text(image).encode()).hexdigest()


@functools.cache
def current_image() -> dict[str, str] | None:
    """The image this process runs in, or None outside of them."""
    try:
        return dict(json.loads(IMAGE_FILE.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def command_line(
    command: str,
    arguments: str,
    service: str = "eval",
    mount: str = "",
    volume: Path | None = None,
) -> str:
    """As `harness`, or inside an image what has the same done in `service`'s container. `mount`: an
    option of compose's, for what the container does not have by itself."""
    if current_image() is None:
        return harness(command, arguments, volume)
    arguments += volume_option(volume)
    if command in ("run", "fetch"):  # the services' own
        return f"docker compose run --rm {service} {arguments}"
    options = f"{mount} " * bool(mount) + f'--entrypoint "python -m harness {command}"'
    return f"docker compose run --rm {options} {service} {arguments}"


def lacks_cuda() -> bool:
    """Whether a GPU is to be used, and torch here is a build for the CPU."""
    return accelerator() == "cuda" and installed_packages().get("torch", "").endswith("+cpu")


def has_cuda_13() -> bool:
    """Whether the packages here are for CUDA 13."""
    return installed_packages().get("nvidia-cuda-runtime", "").startswith("13.")


def cpu_instead(executor: str = "local") -> str:
    """How to do without a GPU: a stage in an image takes another image for that."""
    in_image = executor in IN_IMAGES or current_image() is not None
    return f"{gpus.CPU_INSTEAD}{', in the images for it' if in_image else ''}"


def fault_of_gpu() -> str:
    """What nvidia-smi says where it fails, and the CPU would be used with nobody having said so: there
    may be a GPU. Else empty."""
    meant = os.environ.get("HARNESS_ACCELERATOR") or current_image() is not None
    return "" if meant or accelerator() == "cuda" else gpus.fault_of_tool()


def build_command(services: str) -> str:
    """What builds these services' images, for the accelerator that is used here."""
    files = " -f compose.yaml -f compose.cuda.yaml" if accelerator() == "cuda" else ""
    return f"docker compose{files if services != 'gen' else ''} build {services}"


@functools.cache
def accelerator() -> str:
    """`cuda` or `cpu`: HARNESS_ACCELERATOR, else what the present image is for, else what is there."""
    setting = os.environ.get("HARNESS_ACCELERATOR", "")
    if setting:
        if setting not in ACCELERATORS:
            raise InputError(f"HARNESS_ACCELERATOR is {setting!r}; it can be cpu or cuda")
        return setting
    image = current_image()
    if image is not None and image["image"].endswith(ACCELERATORS):
        return image["image"].rsplit("-", 1)[1]
    return "cuda" if gpus.is_there() else "cpu"


class LocalEnvironment(TypedDict):
    python: str
    machine: str
    packages: dict[str, str]


class KeyEnvironment(TypedDict, total=False):
    """The environment part of a stage's key: a pinned image, or what the local executor runs in."""

    image: str
    lock: str
    local: LocalEnvironment


@functools.cache
def environment_of(stage: str, executor: str) -> KeyEnvironment:
    """The environment part of a stage's key.

    A pinned image is its name and its lock's digest. The local executor carries the Python version,
    the machine's architecture and the installed version of every package that the image's lock
    names, so that artefacts of the two never mix.
    """
    image = image_name(stage, accelerator())
    if executor in IN_IMAGES or current_image() is not None:
        return {"image": image, "lock": lock_digest(image)}
    installed = installed_packages()
    names = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", lock_text(image), re.MULTILINE)
    packages = {n: installed.get(_normal(n), "missing") for n in names}
    python = ".".join(map(str, sys.version_info[:3]))
    return {"local": {"python": python, "machine": platform.machine(), "packages": packages}}


def kind_of(environment: KeyEnvironment) -> str:
    """`local`, or the image's name."""
    return environment.get("image", "local")


@functools.cache
def installed_packages() -> dict[str, str]:
    """Normalised name -> version of every installed package, from the folder names alone."""
    packages: dict[str, str] = {}
    for folder in reversed(sys.path):
        if folder and os.path.isdir(folder):
            for entry in os.listdir(folder):
                if entry.endswith(".dist-info"):
                    name, _, version = entry.removesuffix(".dist-info").partition("-")
                    packages[_normal(name)] = version
    return packages


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def describe_here(chosen: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """What this process really runs in, for the manifest: packages, image, hardware. `chosen`: the
    GPUs of its call."""
    return {
        **({"gpus": list(chosen)} if chosen else {}),
        "python": platform.python_version(),
        "image": current_image(),
        "packages": installed_packages(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "processor": _processor(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
