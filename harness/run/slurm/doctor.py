"""What `harness doctor` says of Slurm, without a job."""

import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from harness.artefact.file_system import file_system_of
from harness.errors import HarnessError
from harness.run.doctor_check import Check
from harness.run.site import is_configured, slurm_site
from harness.run.slurm import tools
from harness.run.slurm.asking import Asked, check, minutes_asked, partition_of

SUBMIT = "harness submit"


def examine(volume: Path) -> Iterator[Check]:
    if shutil.which("sbatch") is None and not is_configured():
        yield Check(False, "Slurm", "no sbatch here, no [slurm] in harness.toml", SUBMIT)
        return
    try:
        tools.require()
        state = f"{tools.version()}, submitit {version('submitit')}"
    except HarnessError as e:
        yield Check(False, "Slurm", e.message, f"{SUBMIT}. {e.hint}")
        return
    yield Check(True, "Slurm", state)
    yield _jobs()
    yield _volume(volume)


def _jobs() -> Check:
    """Whether Slurm would take a small job with this place's settings."""
    what = "Slurm's jobs"
    try:
        site = slurm_site()
        partition = partition_of(site)
        gpus = 1 if site.accelerator == "cuda" else 0
        check(Asked(1, gpus, None, minutes_asked(None, site, partition), 1), site)
    except HarnessError as e:
        return Check(False, what, e.message, f"{SUBMIT}. {e.hint}")
    names = {
        "partition": site.partition or partition.name,
        "account": site.account,
        "qos": site.qos,
    }
    words = ", ".join(f"{name} {value}" for name, value in names.items() if value)
    return Check(True, what, f"{words}: a job with {gpus or 'no'} GPU would be taken")


def _volume(volume: Path) -> Check:
    """Of a file system of this machine alone it is not known whether others mount it from here."""
    system, what = file_system_of(volume), "volume on Slurm's nodes"
    if system.is_shared:
        return Check(True, what, f"on {system}; `submit` looks whether a node has it")
    return Check(
        False,
        what,
        f"on {system}, of this machine alone",
        "jobs on other machines, unless they mount it from this one",
    )
