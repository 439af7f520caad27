"""Slurm's own commands, with their complaints as sentences."""

import shutil
import subprocess
from collections.abc import Sequence

from harness.common.programs import answer_of
from harness.errors import HarnessError, InputError

TIMEOUT_S = 60
ADVICE = (
    "Partition, account and flags are set in harness.toml ([slurm]), or by HARNESS_SLURM_PARTITION, "
    "HARNESS_SLURM_ACCOUNT and HARNESS_SLURM_FLAGS. `sinfo -s` lists partitions, `sacctmgr show assoc "
    "user=$USER` accounts."
)


class SlurmFault(HarnessError):
    """One of Slurm's commands ended with a fault; `said` is what it wrote."""

    def __init__(self, command: str, said: str) -> None:
        super().__init__(
            f"{command}: {said}", "`scontrol ping` says whether the controller answers."
        )
        self.said = said


class NoAnswer(SlurmFault):
    """It may have done what it was asked for or not."""

    def __init__(self, command: str, seconds: float) -> None:
        super().__init__(command, f"no answer within {seconds:.0f} s")


def require(advice: str = "Do this on a login node; elsewhere `harness run`.") -> None:
    """Raises InputError where this machine has no Slurm, or not submitit."""
    lacking = [tool for tool in ("sbatch", "squeue", "scontrol") if shutil.which(tool) is None]
    if lacking:
        *others, last = lacking
        names = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        raise InputError(
            f"there is no Slurm here: {names} not on PATH",
            advice,
        )
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise InputError(
            "the package submitit is not installed here", "`make install` (or `make slim`) does it."
        ) from None


def call(command: Sequence[str], timeout: float = TIMEOUT_S) -> str:
    """What the command writes.

    Raises:
        SlurmFault: it failed, or did not answer.
    """
    try:
        done = answer_of(command, timeout=timeout, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise NoAnswer(command[0], timeout) from None
    except OSError as e:
        raise SlurmFault(command[0], f"cannot be run: {e.strerror}") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise SlurmFault(command[0], said.replace(f"{command[0]}: error: ", "") or "no reason")
    return done.stdout


def version() -> str:
    """Slurm's, such as 22.05.8."""
    return call(["sbatch", "--version"]).split()[-1]
