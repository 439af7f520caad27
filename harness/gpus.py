"""Which NVIDIA GPUs this machine has, which of them the caller lets be used, and which a stage gets.

Told by the driver's own tool: torch is not needed, and no GPU is touched.
"""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
DRIVER = 580
"""The oldest branch of the driver that runs CUDA 13 (NVIDIA's CUDA Compatibility, table 1)."""
OLDEST = (7, 5)
"""Compute capability of Turing: CUDA 13 compiles for nothing older, and PyTorch's builds neither."""
BFLOAT16 = (8, 0)
"""Of Ampere, the first that calculates in bfloat16; on older cards it is emulated."""
DEV, WSL = Path("/dev"), Path("/usr/lib/wsl/lib")
TIMEOUT_S = 60
"""With eight GPUs and a driver that was not loaded yet, nvidia-smi takes half a minute."""
UNNAMED = "NVIDIA GPU"
CPU_INSTEAD = "HARNESS_ACCELERATOR=cpu works on the CPU instead"
INSTALL_CUDA = "Install torch's build for CUDA: ACCELERATOR=cuda make install"

_FIELDS = (
    "index", "uuid", "driver_version", "memory.total", "mig.mode.current", "compute_cap", "name",
)  # fmt: skip
_OLD_FIELDS = tuple(field for field in _FIELDS if field != "compute_cap")
"""What drivers before 510 know."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a part of one that MIG made."""

    name: str
    size: int = 0
    """Bytes; 0 where that is not known."""
    index: int = 0
    """As nvidia-smi counts; of a part, its GPU's."""
    uuid: str = ""
    driver: str = ""
    capability: tuple[int, int] | None = None

    @property
    def id(self) -> str:
        """What CUDA and container engines know it by."""
        return self.uuid or str(self.index)

    def __str__(self) -> str:
        return f"{self.index} {self.name}" + (f" ({self.uuid})" if self.uuid else "")


def is_there() -> bool:
    """Whether this machine, or container, has an NVIDIA GPU, whatever the caller lets be used.

    Device nodes appear when the driver is first used, and WSL2 has none: then nvidia-smi says it.
    """
    return bool(_nodes() or _asked()[0])


def visible(environ: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """Those that CUDA shows a process, in its order: of CUDA_VISIBLE_DEVICES (numbers as nvidia-smi
    counts, or UUIDs or their beginnings) what stands before the first that is not there."""
    present = _there()
    setting = environ.get(VISIBLE)
    if setting is None:
        return present
    devices: list[Gpu] = []
    for text in setting.split(","):
        gpu = _find(text.strip(), present)
        if gpu is None:
            break
        if gpu in devices:
            return ()
        devices.append(gpu)
    return tuple(devices)


def choose(count: int, work: str) -> tuple[Gpu, ...]:
    """The first `count` of those that are visible, the same each time. `work`: what needs them.

    Raises:
        InputError: there are fewer.
    """
    devices = visible() if count else ()
    if len(devices) >= count:
        return devices[:count]
    raise InputError(
        f"{work} needs {count} GPU{'s' if count > 1 else ''}, and {what_is_there()}",
        f"{VISIBLE} says which may be used; train.launch.processes, or tensor_parallel of the engine "
        f"vllm, how many are needed. {CPU_INSTEAD}. `harness doctor` shows what is there.",
    )


def fault_of_tool() -> str:
    """What nvidia-smi says where it is there and fails; else empty."""
    return _asked()[1]


def what_is_there() -> str:
    """This machine's, and how many of them the caller lets be used, in words."""
    present, fault = _there(), fault_of_tool()
    if not present:
        return f"nvidia-smi does not find one: {fault}" if fault else "there is none here"
    here = f"there {'is' if len(present) == 1 else 'are'} {len(present)} here: "
    here += ", ".join(map(str, present))
    setting = os.environ.get(VISIBLE)
    return here if setting is None else f"{VISIBLE}={setting} shows {len(visible())}; {here}"


def restricted_to(chosen: Sequence[Gpu]) -> dict[str, str]:
    """The variable with which a process has these alone; none: with which it has no GPU."""
    return {VISIBLE: ",".join(gpu.id for gpu in chosen)}


def cannot(gpu: Gpu) -> str:
    """Why CUDA 13 cannot use it, as far as that is known; empty where it can."""
    major = gpu.driver.partition(".")[0]
    if major.isdigit() and int(major) < DRIVER:
        return f"its driver is {gpu.driver}, and CUDA 13 needs {DRIVER} or newer"
    if gpu.capability is not None and gpu.capability < OLDEST:
        return f"{gpu.name} is {sm(gpu.capability)}, and CUDA 13 is for {sm(OLDEST)} and newer"
    return ""


def sm(capability: tuple[int, int]) -> str:
    """`sm_75`: a compute capability as compilers name it."""
    return f"sm_{capability[0]}{capability[1]}"


def record(chosen: Sequence[Gpu]) -> list[dict[str, Any]]:
    """For the manifest."""
    return [asdict(gpu) for gpu in chosen]


def words(recorded: Mapping[str, Any]) -> str:
    """One of a manifest's, in a line."""
    driver = f", driver {recorded['driver']}" if recorded["driver"] else ""
    return f"{recorded['name']}{driver}"


def _find(text: str, present: Sequence[Gpu]) -> Gpu | None:
    if number := re.match(r"\+?\d+", text):
        return next((gpu for gpu in present if gpu.index == int(number[0])), None)
    if not text.startswith(("GPU-", "MIG-")):
        return None
    if present and not any(gpu.uuid for gpu in present):
        return Gpu(UNNAMED, uuid=text)  # without nvidia-smi nobody says whether it is there
    devices = [gpu for gpu in present if gpu.uuid.lower().startswith(text.lower())]
    return devices[0] if len(devices) == 1 else None


def _nodes() -> list[Path]:
    return [path for path in DEV.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]


@functools.cache
def _there() -> tuple[Gpu, ...]:
    """Without nvidia-smi as many as there are device nodes: CUDA counts what it finds from 0, whatever
    the nodes' numbers."""
    if _tool() is not None:
        return _asked()[0]
    return tuple(Gpu(UNNAMED, index=index) for index in range(len(_nodes())))


def _tool() -> str | None:
    return shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=str(WSL))


@functools.cache
def _asked() -> tuple[tuple[Gpu, ...], str]:
    """What nvidia-smi finds, and where it fails what it says."""
    tool, fault = _tool(), ""
    if tool is None:
        return (), ""
    for fields in (_FIELDS, _OLD_FIELDS):
        try:
            rows = _rows(tool, fields)
            return tuple(_gpus(tool, rows)), ""
        except subprocess.CalledProcessError as e:
            lines = f"{e.stdout or ''}\n{e.stderr or ''}".strip().splitlines()
            fault = lines[0] if lines else f"exit code {e.returncode}"
        except (OSError, ValueError, subprocess.SubprocessError) as e:
            return (), f"what it says cannot be read ({e})"
    return (), fault


def _say(tool: str, *options: str) -> list[str]:
    done = subprocess.run(
        [tool, *options],
        capture_output=True, text=True, errors="replace", check=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if line.strip()]


def _rows(tool: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """Of its lines those that tell of a GPU: warnings, and cards that are lost, stand between them. The
    last field, the name, may hold commas. Raises ValueError where it is none of them."""
    lines = _say(tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    split = [line.strip().split(", ", len(fields) - 1) for line in lines]
    rows = [dict(zip(fields, row, strict=True)) for row in split if len(row) == len(fields)]
    usable = [r for r in rows if r["index"].isdigit() and r["uuid"].startswith(("GPU-", "MIG-"))]
    if lines and not usable:
        raise ValueError(lines[0].strip())
    return usable


def _gpus(tool: str, rows: Sequence[Mapping[str, str]]) -> Iterator[Gpu]:
    """Of a GPU that MIG parts, CUDA has the parts alone."""
    parted = any(row["mig.mode.current"] == "Enabled" for row in rows)
    parts = _parts(_say(tool, "-L")) if parted else {}
    for row in rows:
        index, driver = int(row["index"]), row["driver_version"]
        numbers = re.fullmatch(r"(\d+)\.(\d+)", row.get("compute_cap", ""))
        capability = (int(numbers[1]), int(numbers[2])) if numbers else None
        if row["mig.mode.current"] != "Enabled":
            size = _size(row["memory.total"])
            yield Gpu(row["name"], size, index, row["uuid"], driver, capability)
        for profile, uuid in parts.get(index, ()):
            label = re.search(r"(\d+)gb", profile)
            size = int(label[1]) * 10**9 if label else 0
            yield Gpu(f"{row['name']} MIG {profile}", size, index, uuid, driver, capability)


def _parts(lines: Sequence[str]) -> dict[int, list[tuple[str, str]]]:
    """GPU's number -> profile and UUID of each of its parts, from `nvidia-smi -L`."""
    devices: dict[int, list[tuple[str, str]]] = {}
    index = 0
    for line in lines:
        if gpu := re.match(r"GPU (\d+):", line):
            index = int(gpu[1])
        elif part := re.match(r"\s+MIG (\S+)\s.*\(UUID: (MIG-[^)]+)\)", line):
            devices.setdefault(index, []).append((part[1], part[2]))
    return devices


def _size(mebibytes: str) -> int:
    """A GPU that shares the CPU's memory has none of its own to name."""
    if not mebibytes.isdigit():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(mebibytes) * 2**20
