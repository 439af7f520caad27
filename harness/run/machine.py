"""What a machine has, and what of it is handed to the stages that run on it at the same time."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.artefact import environment, gpus
from harness.artefact.gpus import Gpu
from harness.modeling.memory.fit import USABLE, machine_memory
from harness.modeling.memory.need import Need
from harness.run.executors import Share, placing
from harness.run.plan import StagePlan
from harness.run.resources import Resources, threads_are_open
from harness.spec.base import server_name

CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Machine:
    """What this process may use of the machine that it runs on."""

    gpus: tuple[Gpu, ...]
    cpus: int
    memory: int
    """Bytes of main memory."""

    @classmethod
    def here(cls) -> "Machine":
        devices = gpus.visible() if environment.accelerator() == "cuda" else ()
        return cls(devices, environment.cpus(), min([machine_memory(), *_memory_limits()]))

    @property
    def usable_memory(self) -> int:
        return int(USABLE * self.memory)


@dataclass(frozen=True)
class Part:
    """What one stage was handed."""

    kind: str
    share: Share
    cpus: int
    memory: int
    endpoints: frozenset[tuple[str | None, str]]

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return self.share.gpus or ()


class Ledger:
    """What of a machine is handed out, and to whom it can be.

    GPUs are handed out one by one. Threads of the CPU are counted for what works on the CPU alone, main
    memory as it is estimated; what needs more of these than there is runs beside no other such. Of
    stages that call the same endpoint one runs at a time: how many calls it is asked at once is in
    their specs.
    """

    def __init__(self, machine: Machine, executor: str, jobs: int | None = None) -> None:
        """`jobs`: how many stages are wanted at once; None: as many as leave each what it has alone."""
        self.machine, self.executor = machine, executor
        self.open_threads = max(1, machine.cpus // jobs) if jobs else machine.cpus
        self._parts: list[Part] = []

    def take(self, stage: StagePlan, wanted: Resources) -> Part | None:
        """What the stage is handed; None while others have it."""
        cpus, share = self._threads(stage, wanted)
        memory = self.machine.usable_memory // 2 if wanted.memory is None else wanted.memory
        part = Part(wanted.kind, share, cpus, memory, endpoints_of(stage))
        if not self._has_room(part):
            return None
        if wanted.gpus:
            chosen = self._choose(stage, wanted.gpus)
            if chosen is None:
                return None
            part = replace(part, share=replace(share, gpus=chosen))
        self._parts.append(part)
        return part

    def give_back(self, part: Part) -> None:
        self._parts.remove(part)

    def _threads(self, stage: StagePlan, wanted: Resources) -> tuple[int, Share]:
        """How many it will use, and what it is told of them."""
        if wanted.kind == "gpu":
            count = max(1, self.machine.cpus * wanted.gpus // max(1, len(self.machine.gpus)))
            return 0, Share(threads=count if count < self.machine.cpus else None)
        if wanted.kind == "network":
            return 0, Share()
        if not threads_are_open(stage):
            return wanted.cpus, Share()
        count = min(wanted.cpus, self.open_threads)
        return count, Share(threads=count if count < self.machine.cpus else None)

    def _has_room(self, part: Part) -> bool:
        if any(part.endpoints & other.endpoints for other in self._parts):
            return False
        used = sum(p.memory for p in self._parts)
        if self._parts and used + part.memory > self.machine.usable_memory:
            return False
        if part.kind != "cpu":
            return True
        threads = sum(p.cpus for p in self._parts)
        return not threads or threads + part.cpus <= self.machine.cpus

    def _choose(self, stage: StagePlan, count: int) -> tuple[Gpu, ...] | None:
        """Of those that nobody has; parts of a GPU first, where one is enough."""
        taken = {gpu for part in self._parts for gpu in part.gpus}
        whole = [gpu for gpu in self.machine.gpus if count == 1 or not gpu.is_part]
        fit = [gpu for gpu in whole if _fits(stage, gpu, self.executor)]
        # Where too few seem to fit, those that it would have were it alone.
        candidates = fit if len(fit) >= count else whole[:count]
        free = [gpu for gpu in candidates if gpu not in taken]
        free.sort(key=lambda gpu: not gpu.is_part)
        return tuple(free[:count]) if len(free) >= count else None


def _fits(stage: StagePlan, gpu: Gpu, executor: str) -> bool:
    """Whether the stage can use the card, as far as that is known, and has room on it."""
    need = stage.need
    if isinstance(need, Need) and gpu.size and need.memory.needed > USABLE * gpu.size:
        return False
    return placing.suits(stage, gpu, executor)


def endpoints_of(stage: StagePlan) -> frozenset[tuple[str | None, str]]:
    """Those that it may pay, and the server that somebody started for it."""
    asked = {(e.server, e.model) for e in stage.endpoints if e.simulated is None}
    server = server_name(stage.served.base_url) if stage.served else None
    return frozenset(asked | ({(server, "")} if server else set()))


def _memory_limits() -> Sequence[int]:
    """Of this process's control groups (version 2): a container's, or a Slurm job's."""
    limits: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        own = OWN_CGROUP.read_text(encoding="utf-8").split("::", 1)[1].strip().lstrip("/")
        for folder in [CGROUPS / own, *(CGROUPS / own).parents]:
            if not folder.is_relative_to(CGROUPS):
                break
            with contextlib.suppress(OSError):
                text = (folder / "memory.max").read_text(encoding="utf-8").strip()
                limits += [int(text)] if text.isdigit() else []
    return limits
