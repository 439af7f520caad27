"""What is there, and what each missing thing would prevent."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import environment
from harness.errors import HarnessError
from harness.fitting import gib, gpus
from harness.llm.secrets import key_variable

KEYS = ("OPENAI_API_KEY", "MISTRAL_API_KEY", "HF_TOKEN")
LOW_DISK_BYTES = 20e9
"""A 1.8B model with optimizer checkpoints needs about this much."""


@dataclass(frozen=True)
class Finding:
    there: bool
    what: str
    state: str
    prevents: str = ""
    """What its absence prevents; empty where it is there."""


def examine(volume: Path, inputs: Path | None) -> list[Finding]:
    return [
        *_engine(),
        _gpu(),
        _local(),
        _disk(volume),
        *_keys(),
        given_data(inputs),
    ]


def _engine() -> Iterator[Finding]:
    from harness.executors.docker import connect

    try:
        client = connect()
    except HarnessError as e:
        yield Finding(False, "Docker engine", e.message, "--executor docker and docker compose run")
        return
    yield Finding(True, "Docker engine", str(client.version()["Version"]))
    if shutil.which("docker"):
        compose = subprocess.run(
            ["docker", "compose", "version", "--short"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        ok = compose.returncode == 0
        version = compose.stdout.strip() if ok else "not there"
        yield Finding(ok, "Docker Compose", version, "" if ok else "docker compose run")
    for stage in ("gen", "train", "answer"):
        yield _image(client, stage)


def _image(client: object, stage: str) -> Finding:
    import docker.errors

    tag = environment.image_tag(stage, environment.accelerator())
    name = environment.image_name(stage, environment.accelerator())
    build = f"its stages; build it: docker compose build {environment.FAMILY[stage]}"
    try:
        image = client.images.get(tag)  # type: ignore[attr-defined]
    except docker.errors.ImageNotFound:
        return Finding(False, f"image {tag}", "not built", build)
    if image.labels.get("harness.lock") != environment.lock_digest(name):
        return Finding(False, f"image {tag}", "built from another lock", build)
    return Finding(True, f"image {tag}", f"{image.attrs['Size'] / 1e9:.1f} GB, lock current")


def _gpu() -> Finding:
    devices = gpus()
    if devices:
        return Finding(True, "GPU", "; ".join(f"{gpu.name}, {gib(gpu.size)}" for gpu in devices))
    return Finding(False, "GPU", "none", "training of real models in reasonable time")


def _local() -> Finding:
    needed = ("torch", "transformers", "trl", "openai", "alpaca_eval", "numba", "aiohttp")
    lacking = [n for n in needed if importlib.util.find_spec(n) is None]
    if lacking:
        return Finding(
            False,
            "local stages",
            f"lacking {', '.join(lacking)}",
            "--executor local; `make install`",
        )
    return Finding(True, "local stages", f"packages there, {environment.accelerator()}")


def _disk(volume: Path) -> Finding:
    place = volume.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    enough = writable and free >= LOW_DISK_BYTES
    state = f"{place}: {free / 1e9:.0f} GB free" + ("" if writable else ", not writable")
    return Finding(
        enough, "volume", state,
        "" if enough else "any run" if not writable else "training of models of a billion parameters",
    )  # fmt: skip


def given_data(inputs: Path | None) -> Finding:
    if inputs is None:
        prevents = "rows that read `data:` files; name the folder with --inputs"
        return Finding(False, "given data", "no folder named", prevents)
    files = sum(p.is_file() and not p.name.startswith((".", "README")) for p in inputs.rglob("*"))
    state = f"{inputs}: {files:,} file{'' if files == 1 else 's'}"
    return Finding(files > 0, "given data", state, "" if files else "rows that read `data:` files")


def _keys() -> Iterator[Finding]:
    for name in KEYS:
        there = key_variable(name) is not None
        prevents = (
            "" if there else "gated hub models" if name == "HF_TOKEN" else "rows that name it"
        )
        yield Finding(there, f"key {name}", "set" if there else "not set", prevents)
