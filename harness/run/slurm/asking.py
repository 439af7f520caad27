"""What a stage's job asks for: the spec's limits, else what the plan foretells, else the place's."""

import getpass
import math
from dataclasses import dataclass
from typing import Any

from harness.errors import InputError
from harness.run import site as sites
from harness.run.plan import StagePlan
from harness.run.resources import resources_of, seconds_of, threads_are_open
from harness.run.site import LEAST_WARNING, SlurmSite
from harness.run.slurm import tools
from harness.spec.train import Train

SPARE_MEMORY = 1.25
"""An estimate's share: a job over its memory is killed."""
SPARE_TIME, LEAST_TIME = 2.0, 1800
"""An estimate's share, and seconds: another node may be slower, and a start takes its time."""
START_S = 60
"""In which a stage of a job has begun to work: less before Slurm's warning, and it never would."""


@dataclass(frozen=True)
class Asked:
    """Of each of a job's nodes. Rounded up, so that stages alike share an array."""

    cpus: int
    gpus: int
    memory_mib: int | None
    """None: what the partition gives."""
    minutes: int | None
    """None: no end."""
    machines: int


@dataclass(frozen=True)
class Partition:
    name: str
    limit: int | None
    """Seconds; None: no end."""
    default: int | None


def partition_of(site: SlurmSite) -> Partition:
    """The partition that jobs will go to.

    Raises:
        InputError: there is none of this name, none is the default, or what scontrol says of it
            makes no sense.
    """
    said = tools.call(["scontrol", "show", "partition", "--oneliner"])
    lines = [dict(p.split("=", 1) for p in line.split() if "=" in p) for line in said.splitlines()]
    partitions = [p for p in lines if "PartitionName" in p]
    names = [p["PartitionName"] for p in partitions]
    if not names:
        raise InputError(
            "scontrol told of no partition here",
            "`scontrol show partition` should name those that you may use.",
        )
    # sbatch takes several with commas between them: the first says how long.
    wanted = site.partition.split(",") if site.partition else []
    for name in wanted:
        if name not in names:
            raise InputError(
                f"there is no partition {name!r} here; there are {', '.join(names)}",
                tools.ADVICE,
            )
    for found in partitions:
        name = found["PartitionName"]
        if name == wanted[0] if wanted else found.get("Default") == "YES":
            limit, default = (
                sites.seconds(found.get(which, "NONE"), f"scontrol's {which} of partition {name}")
                for which in ("MaxTime", "DefaultTime")
            )
            return Partition(name, limit, default)
    raise InputError(
        f"no partition is the default here; there are {', '.join(names)}", tools.ADVICE
    )


def asked(planned: StagePlan, site: SlurmSite, partition: Partition) -> Asked:
    """Raises InputError where a job would have no time to work before Slurm warns it of its end."""
    takes = resources_of(planned)
    limits, train = planned.owner.limits, planned.params.get("train")
    cpus = takes.cpus if not threads_are_open(planned) or takes.gpus else site.cpus
    cpus = math.ceil(limits.cpus) if limits.cpus else cpus
    machines = 1
    if isinstance(train, Train):
        machines = train.launch.machines
        cpus = max(cpus, train.launch.processes) if not limits.cpus else cpus
    memory = limits.memory_bytes
    if memory is None and takes.memory is not None:
        memory = int(takes.memory * SPARE_MEMORY)
    return Asked(
        max(cpus, 1),
        takes.gpus,
        _rounded(memory / 2**20, 1024) if memory else None,
        minutes_asked(seconds_of(planned), site, partition),
        machines,
    )


def minutes_asked(seconds: float | None, site: SlurmSite, partition: Partition) -> int | None:
    """Until Slurm ends the job; `seconds`: that it is foretold to take. What goes on after a requeue
    may ask for less than it takes in all."""
    if seconds is not None:
        needed: int | None = _rounded(seconds * SPARE_TIME + LEAST_TIME, LEAST_TIME)
    elif site.time is not None:
        needed = sites.seconds(site.time)
    else:
        needed = partition.default or partition.limit
    if partition.limit is not None:
        needed = min(needed, partition.limit) if needed is not None else partition.limit
    if needed is None:
        return None
    minutes = max(math.ceil(needed / 60), 1)
    if minutes * 60 < site.warning_seconds + START_S:
        raise InputError(
            f"a job of partition {partition.name} would have {minutes} min, and be warned of its end "
            f"{site.warning_seconds} s before: no stage would come to work",
            f"Set slurm.time to more, or slurm.warning_seconds to {minutes * 60 - START_S} or less."
            if minutes * 60 - START_S >= LEAST_WARNING
            else "Set slurm.time to more, or name another partition.",
        )
    return minutes


def check(ask: Asked, site: SlurmSite) -> None:
    """Have Slurm look whether such a job could ever start.

    Raises:
        InputError: it could not, or the partition, account or QOS is not there for this user.
    """
    flags = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options(ask, site).items()
    ]
    try:
        tools.call(["sbatch", "--test-only", *flags, "--wrap=true"])
    except tools.NoAnswer:
        raise
    except tools.SlurmFault as e:
        said = e.said.replace("allocation failure: ", "")
        if "invalid account" in said.lower():
            which = f"account {site.account!r}" if site.account else "your default account"
            said = f"{which}: {said}{_accounts()}"
        raise InputError(
            f"Slurm would refuse a job: {said} ({' '.join(flags)})", tools.ADVICE
        ) from None


def _accounts() -> str:
    """Those of this user, as far as Slurm's accounting tells them."""
    command = [
        "sacctmgr",
        "--noheader",
        "--parsable2",
        "show",
        "assoc",
        f"user={getpass.getuser()}",
    ]
    try:
        names = sorted(set(tools.call([*command, "format=account"]).split()))
    except (tools.SlurmFault, OSError, KeyError):  # the last two: this user has no name
        return ""
    return f"; yours are {', '.join(names)}" if names else "; you have none"


def options(ask: Asked, site: SlurmSite) -> dict[str, Any]:
    """As sbatch's long options: name -> value, True for one without."""
    values: dict[str, Any] = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "nodes": ask.machines,
        "ntasks-per-node": 1,
        "cpus-per-task": ask.cpus,
        "gpus-per-node": ask.gpus or None,
        "mem": f"{ask.memory_mib}M" if ask.memory_mib else None,
        "time": ask.minutes if ask.minutes is not None else "UNLIMITED",
        **site.options(),
    }
    return {name: value for name, value in values.items() if value is not None}


def _rounded(least: float, unit: int) -> int:
    """Up, by at most a fourth of it or one unit: what is nearly alike shares an array."""
    step = unit
    while step * 8 < least:
        step *= 2
    return max(math.ceil(least / step), 1) * step
