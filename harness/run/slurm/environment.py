"""What of the caller's variables a job gets: what the harness and its libraries read, and of keys only
those that its own stages need. sbatch is started with no others: Slurm keeps and hands on none.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from harness.artefact.keys import key_names
from harness.common.env_variables import (
    HUB,
    HUB_CLIENT,
    NO_PROXY,
    PROXY,
    RENDEZVOUS,
    of_key,
    restored,
)
from harness.run.plan import StagePlan

NAMES = (
    "PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ",
    "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "SLURM_CONF", "DOCKER_HOST", "CONTAINER_HOST",
)  # fmt: skip
BEGINNINGS = re.compile(
    r"(HARNESS|LC|CUDA|NCCL|GLOO|TORCH|PYTORCH|OMP|MKL|APPTAINER|SINGULARITY|CONTAINERS)_\w+"
)
SECRET = re.compile(
    r"TOKEN(?!IZ)|PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|PRIVATE|_PEM_|API_?KEY"
    r"|(^|_)([^_]*KEYS?|PASS|AUTH|JWT|CREDS?)(_|$)",
    re.IGNORECASE,
)
"""Of names with these beginnings those of secrets, such as a registry's password for Apptainer: a job
gets one where its stage names it, or the place's `export`."""
OF_THE_NODE = ("CUDA_VISIBLE_DEVICES", RENDEZVOUS)
"""Slurm, or the job itself, says these on the node."""


def exported(stages: Sequence[StagePlan], more: Iterable[str] = ()) -> list[str]:
    """Names of the variables that are set here and that the stages' jobs get. `more`: of the place."""
    keys = {
        variable
        for stage in stages
        for endpoint in stage.endpoints
        if endpoint.simulated is None and endpoint.api_key_env
        for variable in of_key(endpoint.api_key_env)
    }
    ways = {*PROXY, *NO_PROXY} if any(stage.pays for stage in stages) else set()
    others = {n for n in os.environ if BEGINNINGS.fullmatch(n) and not SECRET.search(n)}
    named = {*NAMES, *others, *more} - {*OF_THE_NODE, *HUB, *HUB_CLIENT}
    named -= _keys_of_others(stages, keys)
    return sorted(name for name in named | keys | ways if name in os.environ)


@contextlib.contextmanager
def only_variables(names: Iterable[str]) -> Iterator[None]:
    """This process with these variables alone, and those of Slurm's own commands, for a while."""
    chosen = {
        n: v for n, v in os.environ.items() if n in names or n.startswith(("SBATCH_", "SLURM_"))
    }
    with restored():
        os.environ.clear()
        os.environ.update(chosen)
        yield


def _keys_of_others(stages: Sequence[StagePlan], keys: set[str]) -> set[str]:
    """Keys that the rows name for stages that are none of these, whatever they are called."""
    named = {name for stage in stages for name in key_names(stage.owner)}
    return {variable for name in named for variable in of_key(name)} - keys
