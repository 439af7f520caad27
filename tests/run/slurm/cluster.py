"""A real Slurm of three nodes on this machine: Debian's packages unpacked into a folder, a
configuration of its own, no installation and no account. For tests, and by hand:

    python -m tests.run.slurm.cluster FOLDER    start it; prints the variables, and what ends it
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

PACKAGES = (
    "slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "libmunge2",
    "libhwloc15",
)  # fmt: skip
NODES = ("n1", "n2", "n3")
LIBRARIES = "usr/lib/x86_64-linux-gnu"


class NoSlurm(Exception):
    """Why there can be none here."""


def unpacked() -> Path:
    """The folder with Slurm's files, kept from one test run to the next.

    Raises:
        NoSlurm: the packages cannot be had, or this user cannot start it.
    """
    kept = os.environ.get("HARNESS_SLURM_FILES")
    folder = Path(kept) if kept else Path(tempfile.gettempdir()) / "harness-slurm"
    if os.getuid():
        raise NoSlurm("only root can start a Slurm of its own that runs jobs as their user")
    if not all(map(shutil.which, ("apt-get", "dpkg"))):
        raise NoSlurm("there is no apt-get here, which fetches Debian's Slurm")
    with FileLock(f"{folder}.lock"):
        if not (folder / "usr").is_dir():
            _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *PACKAGES]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            # An image without the list of packages.
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            raise NoSlurm(f"Debian's Slurm cannot be had: {done.stderr.strip().splitlines()[-1:]}")
        unfinished = folder.with_name(f"{folder.name}.making")
        shutil.rmtree(unfinished, ignore_errors=True)
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, unfinished], check=True)
        unfinished.rename(folder)


class Cluster:
    """slurmctld and three slurmd; `env` is what a login node's shell has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = unpacked()
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        libraries = self.files / LIBRARIES
        self.env = {
            **{n: v for n, v in os.environ.items() if not n.startswith(("HARNESS_", "SLURM_"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "LD_LIBRARY_PATH": f"{libraries}:{libraries / 'slurm-wlm'}",
            "PATH": f"{self.files / 'usr/bin'}:{os.environ['PATH']}",
        }
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "slurm.conf").write_text(self._configuration())

    def _configuration(self) -> str:
        ports = _free_ports(1 + len(NODES))
        host, folder = socket.gethostname(), self.folder
        nodes = "".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 "
            "RealMemory=16000 State=UNKNOWN\n"
            for node, port in zip(NODES, ports[1:], strict=True)
        )
        return f"""\
ClusterName=harness
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/none
CredType=cred/none
# Else a job that is queued again waits for two minutes.
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
PluginDir={self.files / LIBRARIES / "slurm-wlm"}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=5
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=2 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=2 State=UP
"""

    def start(self) -> None:
        self._start("slurmctld", "slurmctld-wlm", "-D", "-i")
        for node in NODES:
            self.start_node(node)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Raises NoSlurm where a node does not come up within half a minute."""
        end = time.monotonic() + 30
        states = ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%t"]
        while self.call(*states, check=False).split() != ["idle"] * len(NODES):
            if time.monotonic() > end:
                raise NoSlurm(f"a node does not come up: {self.call('sinfo', '-N', check=False)}")
            time.sleep(0.1)

    @contextmanager
    def node_that_sees(self, node: str, *mounts: str) -> Iterator[None]:
        """The node with mounts (mount's own words) of its own, as another machine has."""
        command = " && ".join([*(f"mount {words}" for words in mounts), 'exec "$@"'])
        self.kill_node(node)
        self.start_node(node, before=("unshare", "--mount", "sh", "-c", command, "sh"))
        self.wait_until_idle()
        try:
            yield
        finally:
            self.kill_node(node)
            self.start_node(node)
            self.wait_until_idle()

    def start_node(self, node: str, before: tuple[str, ...] = ()) -> None:
        """`before`: a command that the node's daemon is started by, such as unshare."""
        step = str(self.files / "usr/sbin/slurmstepd-wlm")
        self._start(node, "slurmd-wlm", "-D", "-N", node, "-d", step, before=before)

    def _start(self, name: str, tool: str, *options: str, before: tuple[str, ...] = ()) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                [*before, str(self.files / "usr/sbin" / tool), *options],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def kill_node(self, node: str) -> None:
        """As a machine that loses its power: the daemon, and all that it runs, at once."""
        daemon = self.daemons.pop(node)
        daemon.kill()
        daemon.wait()
        for pid in self.processes(node):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self, node: str) -> list[int]:
        """Of the jobs that run there, with the step daemons above them."""
        jobs = [pid for pid in _processes() if self._is_of(pid, node)]
        parents = {_parent(pid) for pid in jobs}
        return [pid for pid in parents if "slurmstepd" in _words(pid)] + jobs

    def _is_of(self, pid: int, node: str) -> bool:
        conf = self.env["SLURM_CONF"]
        return _variable(pid, "SLURMD_NODENAME") == node and _variable(pid, "SLURM_CONF") == conf

    def call(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def stop(self) -> None:
        self.call("scancel", "--user=root", "--signal=KILL", check=False)
        for node in NODES:
            if node in self.daemons:
                with suppress(KeyError):
                    self.kill_node(node)
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


def _words(pid: int) -> str:
    with suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    return ""


def _variable(pid: int, name: str) -> str:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            variable, _, value = entry.partition(b"=")
            if variable.decode(errors="replace") == name:
                return value.decode(errors="replace")
    return ""


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]).resolve()
    cluster = Cluster(folder)
    cluster.start()
    for name in ("SLURM_CONF", "LD_LIBRARY_PATH", "PATH"):
        print(f"export {name}={cluster.env[name]}")
    print(f"# kill {' '.join(str(daemon.pid) for daemon in cluster.daemons.values())}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
