"""Which NVIDIA GPUs this machine has, which of them the caller lets be used, and which a stage gets.

Told by the driver's own tool: torch is not needed, and no GPU is touched.
"""

import functools
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
DRIVER = 580
"""The oldest branch of the driver that runs CUDA 13 (NVIDIA's CUDA Compatibility, table 1)."""
OLDEST = (7, 5)
"""Compute capability of Turing: CUDA 13 compiles for nothing older, and PyTorch's builds neither."""
BFLOAT16 = TF32 = (8, 0)
"""Of Ampere, the first that calculates in these; on older cards bfloat16 is emulated."""
DEV, WSL = Path("/dev"), Path("/usr/lib/wsl/lib")
TIMEOUT_S = 60
"""With eight GPUs and a driver that was not loaded yet, nvidia-smi takes half a minute."""
UNNAMED = "NVIDIA GPU"
PROCESSES = "train.launch.processes"
_SHORT = len("GPU-01234567")
"""So much of a UUID tells one from another, and CUDA takes its beginning."""
MEND_DRIVER = (
    "nvidia-smi has to work first: mostly the driver wants a reboot or to be installed anew."
)
NO_INSTANCE = "MIG is on, and no instance of it is made"
MEND_MIG = (
    "`sudo nvidia-smi mig -cgi 0 -C` makes an instance of the whole GPU (`nvidia-smi mig -lgip` lists "
    "others), `sudo nvidia-smi -mig 0` switches MIG off."
)
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

    @property
    def is_part(self) -> bool:
        """Whether MIG made it: CUDA shows a process one part alone, and NCCL joins none."""
        return self.uuid.startswith("MIG-")

    def __str__(self) -> str:
        return f"{self.index} {self.name}" + (f" ({self.uuid[:_SHORT]})" if self.uuid else "")


def is_there() -> bool:
    """Whether this machine, or container, has an NVIDIA GPU, whatever the caller lets be used.

    Device nodes appear when the driver is first used, and WSL2 has none: then nvidia-smi says it.
    """
    return bool(_nodes() or _asked()[0])


def visible(environ: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """Those that CUDA shows a process, in its order: of CUDA_VISIBLE_DEVICES (numbers as nvidia-smi
    counts, or UUIDs or their beginnings) what stands before the first that is not there."""
    return _shown(environ.get(VISIBLE), _there())[0]


def choose(
    count: int,
    work: str,
    setting: str = PROCESSES,
    instead: str = CPU_INSTEAD,
    is_usable: Callable[[Gpu], bool] = lambda gpu: True,
    among: Sequence[Gpu] | None = None,
) -> tuple[Gpu, ...]:
    """The first `count` of those that are visible, the same each time; of several none is a part.
    `work`: what needs them; `setting`: what says how many; `instead`: a way out without them;
    `is_usable`: which of them the way out may name; `among`: those that were handed to the work, where
    others run beside it.

    Raises:
        InputError: there are fewer.
    """
    devices = (visible() if among is None else tuple(among)) if count else ()
    usable = tuple(gpu for gpu in devices if count == 1 or not gpu.is_part)
    if len(usable) >= count:
        return usable[:count]
    parts = "; parts of a GPU (MIG) work alone: NCCL joins no two" if usable != devices else ""
    raise InputError(
        f"{work} needs {count} GPU{'s' if count > 1 else ''}, and {what_is_there()}{parts}",
        f"{way_out(count, len(usable), setting, is_usable)}{instead}. `harness doctor` shows what is "
        "there.",
    )


def way_out(
    count: int,
    usable: int,
    setting: str = PROCESSES,
    is_usable: Callable[[Gpu], bool] = lambda gpu: True,
) -> str:
    """What to do where of `count` GPUs only `usable` are visible."""
    present = _there()
    combinable = _whole(count, is_usable)
    if fault_of_tool():
        return f"{mend()} "
    if not present:
        return (
            "A container has the GPUs that are passed in (compose.cuda.yaml, docker run --gpus). "
        )
    if len(combinable) >= count:
        unset = f"Unset {VISIBLE}, or name" if all(map(is_usable, present)) else "Name"
        return f"{unset} {count} that are here ({_named(combinable[:count])}). "
    ways = f"Set {setting}: {max(1, usable)}, or run it where there are {count}. "
    if any(gpu.is_part for gpu in present) and count > 1:
        ways += "`sudo nvidia-smi -mig 0` makes a parted GPU whole. "
    return ways


def _whole(count: int, is_usable: Callable[[Gpu], bool]) -> list[Gpu]:
    """Those here that can work together, `count` at a time."""
    return [gpu for gpu in _there() if (count == 1 or not gpu.is_part) and is_usable(gpu)]


def _named(devices: Sequence[Gpu]) -> str:
    """The setting that names these alone."""
    ids = [gpu.uuid if gpu.is_part else str(gpu.index) for gpu in devices]
    return f"{VISIBLE}={','.join(ids)}"


def fault_of_tool() -> str:
    """What nvidia-smi says where it is there and fails, or finds nothing that can be used; else
    empty."""
    return _asked()[1]


def mend() -> str:
    """What to do about that."""
    return MEND_MIG if NO_INSTANCE in fault_of_tool() else MEND_DRIVER


def what_is_there() -> str:
    """This machine's, and how many of them the caller lets be used, in words."""
    present, fault = _there(), fault_of_tool()
    if not present:
        return f"nvidia-smi does not find one: {fault}" if fault else "there is none here"
    here = f"there {'is' if len(present) == 1 else 'are'} {len(present)} here: {counted(present)}"
    setting = os.environ.get(VISIBLE)
    if setting is None:
        return here
    visible_gpus, why = _shown(setting, present)
    return f"{VISIBLE}={setting} shows {len(visible_gpus)}{f' ({why})' if why else ''}; {here}"


def counted(devices: Sequence[Gpu]) -> str:
    """`NVIDIA A`, or `2 NVIDIA A, 1 NVIDIA B`."""
    names = Counter(gpu.name for gpu in devices)
    return ", ".join(f"{count} {name}" if len(names) > 1 else name for name, count in names.items())


def numbered(devices: Sequence[Gpu]) -> str:
    """`GPUs 0 NVIDIA A and 1 NVIDIA A`; a part, whose number is its GPU's, has its UUID besides."""
    each = [str(gpu) if gpu.is_part else f"{gpu.index} {gpu.name}" for gpu in devices]
    return f"GPU{'s' if len(each) > 1 else ''} {' and '.join(each)}"


def restricted_to(chosen: Sequence[Gpu]) -> dict[str, str]:
    """The variable with which a process has these alone; none: with which it has no GPU."""
    return {VISIBLE: ",".join(gpu.id for gpu in chosen)}


def cannot(gpu: Gpu) -> str:
    """Why CUDA 13 cannot use it, as far as that is known; empty where it can."""
    if gpu.capability is not None and gpu.capability < OLDEST:
        return f"{gpu.name} is {sm(gpu.capability)}, and CUDA 13 is for {sm(OLDEST)} and newer"
    major = gpu.driver.partition(".")[0]
    if major.isdigit() and int(major) < DRIVER:
        return f"its driver is {gpu.driver}, and CUDA 13 needs {DRIVER} or newer"
    return ""


def runs_cuda_13(gpu: Gpu) -> bool:
    """Whether nothing is known that speaks against it."""
    return not cannot(gpu)


def remedy(gpu: Gpu, count: int = 1) -> str:
    """What to do about a card that CUDA 13 cannot use, where `count` are needed: no driver makes a
    card newer."""
    if gpu.capability is None or gpu.capability >= OLDEST:
        return "Update the driver."
    newer = _whole(count, runs_cuda_13)
    if len(newer) >= count:
        return f"No driver mends that: let it have another card ({_named(newer[:count])})."
    what = f"{count} cards" if count > 1 else "a card"
    elsewhere = f"it takes {what} of {sm(OLDEST)} or newer"
    if not newer:
        return f"No driver mends that: {elsewhere}."
    return f"No driver mends that: {elsewhere}, or {PROCESSES}: {len(newer)} with {_named(newer)}."


def emulates_bfloat16(gpu: Gpu) -> bool:
    """Whether it can be used, and has no arithmetic in bfloat16."""
    return gpu.capability is not None and gpu.capability < BFLOAT16 and not cannot(gpu)


def emulation(name: str, capability: tuple[int, int]) -> str:
    """What is told of a card without arithmetic in bfloat16."""
    return f"{name} ({sm(capability)}) has no arithmetic in bfloat16: it is emulated, which is slow"


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


def _shown(setting: str | None, present: tuple[Gpu, ...]) -> tuple[tuple[Gpu, ...], str]:
    """Those that CUDA shows a process, and why no more, where an entry of the setting says so."""
    devices: list[Gpu] = []
    for entry in setting.split(",") if setting is not None else ():
        gpu, why = _find(entry.strip(), present)
        if gpu is None:
            return tuple(devices), why
        if gpu in devices:
            return (), f"{entry.strip()} names one again, and CUDA then shows none"
        devices.append(gpu)
    return present if setting is None else tuple(devices), ""


def _find(text: str, present: Sequence[Gpu]) -> tuple[Gpu | None, str]:
    """What an entry of the setting names, or why it names none."""
    if not text:
        return None, "an empty entry names none"
    if number := re.match(r"\+?\d+", text):
        devices = [gpu for gpu in present if gpu.index == int(number[0])][:1]
    elif not text.startswith(("GPU-", "MIG-")):
        return None, f"{text} is neither a GPU's number nor its UUID"
    elif present and not any(gpu.uuid for gpu in present):
        return Gpu(UNNAMED, uuid=text), ""  # without nvidia-smi nobody says whether it is there
    else:
        devices = [gpu for gpu in present if gpu.uuid.lower().startswith(text.lower())]
    if len(devices) == 1:
        return devices[0], ""
    return None, f"{text} begins several UUIDs" if devices else f"no GPU here is {text}"


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
            devices = tuple(_gpus(tool, rows))
            return devices, "" if devices or not rows else _without_instance(rows)
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


def _without_instance(rows: Sequence[Mapping[str, str]]) -> str:
    names = [f"GPU {row['index']} {row['name']}" for row in rows]
    return f"{' and '.join(names)}: {NO_INSTANCE}"


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
