"""A look at one free node before jobs queue: whether it has the volume, this Python, this checkout and
the stages' images, and what its clock says. The node's part is
`python -m harness.run.slurm.probe FOLDER TOKEN EXECUTOR STAGE...`."""

import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.common.progress import say
from harness.errors import HarnessError, InputError
from harness.run.site import SlurmSite
from harness.run.slurm import checkout, tools
from harness.run.slurm.checkout import Checkout
from harness.run.slurm.environment import exported, only_variables

WAIT_S, ANSWER_S = 5, 90
"""How long a free node is waited for, and its answer."""
APART_S = 5.0
"""Seconds by which clocks may differ before it is said."""
OF_JOBS = frozenset({
    "batch", "bb", "bbf", "begin", "hold", "ignore-pbs", "mail-type", "mail-user", "time", "time-min",
    "wait-all-nodes",
})  # fmt: skip
"""Of the place's flags those that srun lacks, or that would have the look wait or tell somebody."""
ANSWER = ("node", "sees", "checkout", "lack", "time")
"""What a node's answer has."""
BUSY = ("Unable to allocate resources", "Immediate execution impossible")


def look(site: SlurmSite, stages: Iterable[str], records: Path, console: Console) -> None:
    """Ask one node; where none is free, the jobs themselves look. `stages`: their names.

    Raises:
        InputError: the node lacks something, or has another checkout.
    """
    token = f"probe-{uuid.uuid4().hex[:12]}"
    (records / token).touch()
    before = time.time()
    try:
        with only_variables(exported([], site.export)):
            said = tools.call(_command(site, sorted(set(stages)), records, token), ANSWER_S)
        told = json.loads(said.splitlines()[-1])
        answer = {name: told[name] for name in ANSWER}
    except tools.SlurmFault as e:
        if not any(b in e.said for b in BUSY) and "no answer" not in e.said:
            raise InputError(
                f"a node could not even begin: {e.said}",
                f"Nodes start {sys.executable}: it, and the checkout beside it, must stand there too.",
            ) from None
        say(console, "no node was free to be looked at beforehand: each job looks at its own")
        return
    except (ValueError, LookupError, TypeError):
        raise InputError("a node answered nothing that makes sense", f"It said: {said}") from None
    finally:
        (records / token).unlink(missing_ok=True)
    _judge(answer, records, before, time.time(), console)


def _command(site: SlurmSite, stages: Sequence[str], records: Path, token: str) -> list[str]:
    chosen = {"partition": site.partition, "account": site.account, "qos": site.qos}
    flags = [f for f in site.flags if f.removeprefix("--").partition("=")[0] not in OF_JOBS]
    return [
        "srun", "--quiet", f"--immediate={WAIT_S}", "--nodes=1", "--ntasks=1", "--time=2",
        "--job-name=harness-probe", "--export=ALL",
        *(f"--{name}={value}" for name, value in chosen.items() if value),
        *flags, sys.executable, "-m", "harness.run.slurm.probe", str(records), token, site.executor,
        *stages,
    ]  # fmt: skip


def _judge(
    answer: dict[str, Any], records: Path, before: float, after: float, console: Console
) -> None:
    node = answer["node"]
    if not answer["sees"]:
        raise InputError(
            f"the node {node} does not see the volume {records.parent}",
            "Name a volume on a file system that the nodes share, with --volume or HARNESS_DATA.",
        )
    theirs = Checkout(**answer["checkout"])
    if what := checkout.differing(checkout.here(), theirs, node):
        raise InputError(what, checkout.WAY_OUT)
    if answer["lack"]:
        message, hint = answer["lack"]
        raise InputError(f"on the node {node}: {message}", hint)
    apart = max(before - answer["time"], answer["time"] - after, 0.0)
    if apart > APART_S:
        say(
            console,
            f"warning: the clocks of {node} and of this machine are {apart:.0f} s apart; times in "
            "manifests and in `harness status` are each machine's own",
            "yellow",
        )


def _lack(executor: str, stages: Sequence[str], volume: Path) -> list[str]:
    """What of the executor or of the stages' images is not here, and the way out."""
    if executor == "local":
        return []
    from harness.run.executors import make
    from harness.run.executors.docker import DockerExecutor
    from harness.run.executors.process import ProcessExecutor

    try:
        made = make(executor, volume)
        if isinstance(made, DockerExecutor | ProcessExecutor):
            for stage in stages:
                made.find_image(stage)
    except HarnessError as e:
        return [e.message, e.hint]
    return []


def main(arguments: list[str]) -> None:
    """The node's part."""
    folder, token, executor, *stages = arguments
    sees = (Path(folder) / token).is_file()
    answer = {
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "sees": sees,
        "checkout": asdict(checkout.here()),
        "lack": _lack(executor, stages, Path(folder).parent) if sees else [],
        "time": time.time(),
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
