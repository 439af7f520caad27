"""On a node: plans the row again, finds the stage that was submitted by its key, and carries it out.

Imports of what is heavy, and of what reads its environment when imported, stand in the functions: the
login node imports this too, for what a job is handed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from harness.common.env_variables import RENDEZVOUS, STOP_SECONDS
from harness.common.logs import BEGINNING
from harness.errors import HarnessError, InputError, Interrupted
from harness.run.slurm import checkout
from harness.run.slurm.records import Attempt, MachineFault, Order, Records

if TYPE_CHECKING:
    from harness.run.plan import RowPlan, StagePlan
    from harness.run.runner import Runner, Turn

FIRST_TELLS_S = 60
FOREVER_S = 3600
"""Longer than Slurm takes to end a job that it was asked to requeue."""
FIRST_PORT, PORTS = 20_000, 12_000
"""Below those that Linux gives out by itself."""


def main(arguments: list[str]) -> None:
    """The job of `python -m harness.run.slurm.job FOLDER SUBMISSION [array]`; FOLDER: the volume's
    `slurm`, where the orders lie."""
    root, submission, *array = arguments
    # Read when the executors and the training's launch are imported, on whichever of its machines.
    os.environ.setdefault(STOP_SECONDS, "inf")
    index = int(os.environ["SLURM_ARRAY_TASK_ID"]) if array else None
    records = Records(Path(root))
    path = records.order_path(submission, index)
    for stream in (sys.stdout, sys.stderr):
        # Slurm appends to what an earlier start wrote.
        print(f"{BEGINNING}start {_restart() + 1} on {_node()}", file=stream, flush=True)
    try:
        order = Order.from_json(json.loads(path.read_text(encoding="utf-8")))
        if int(os.environ.get("SLURM_PROCID", "0")):
            _take_part_or_tell(records, order, submission)
        else:
            _Node(records, order, submission).carry_out()
    except HarnessError as e:
        print(f"error: {e}", file=sys.stderr, flush=True)
        sys.exit(e.exit_code)


class _Node:
    """One start of a stage's job."""

    def __init__(self, records: Records, order: Order, submission: str) -> None:
        self.records, self.order, self.submission = records, order, submission
        self.job = _job()
        self.node = _node()
        self.restart = _restart()
        self.warned: int | None = None
        """The signal with which Slurm told that the job must end."""

    def carry_out(self) -> None:
        """Raises HarnessError where the stage cannot be carried out, after noting why."""
        order = self.order
        os.chdir(order.cwd)
        self._begin()
        _meet(order)
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._warn)
        try:
            self._check()
            plan, planned, runner = plan_again(order, self.node)
            runner.run_stage(planned, _turn(runner, planned))
            runner.remember(planned, [plan])
        except (Interrupted, KeyboardInterrupt):
            self._go_on_later()
        except HarnessError as e:
            if self.warned is not None:
                self._go_on_later()
            refused = isinstance(e, InputError)
            self._end("refused" if refused else "failed", e)
            raise
        except Exception as e:
            self._end("failed", HarnessError(f"{type(e).__name__}: {e}"))
            raise
        else:
            self.records.end(order.stage, order.key, "done")

    def _begin(self) -> None:
        attempt = Attempt(
            job=self.job,
            submission=self.submission,
            node=self.node,
            started=time.time(),
            restart=self.restart,
            skew=round(self._skew(), 1),
            behind=round(max(self.order.submitted - time.time(), 0), 1),
        )
        self.records.begin(self.order.stage, self.order.key, attempt)

    def _skew(self) -> float:
        probe = self.records.root / f".clock-{self.job}"
        probe.touch()
        ahead = time.time() - probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return ahead

    def _check(self) -> None:
        checkout.check_same(self.order.checkout, self.node)
        if self.restart > self.order.requeues:
            raise HarnessError(
                f"it was started {self.restart + 1} times and did not end",
                "slurm.requeues in harness.toml says how often; a longer slurm.time needs fewer.",
            )

    def _warn(self, number: int, frame: FrameType | None) -> None:
        """Slurm signals every process of the job. Of SIGUSR2 a stage knows nothing: it is told to stop
        as by Ctrl-C. A SIGTERM reaches a local stage too, and a second would cut its checkpoint off."""
        first = self.warned is None
        self.warned = number if first else self.warned
        if first and number == signal.SIGUSR2:
            # Not by print: what is interrupted may be just at that.
            os.write(1, f"its time is up in {self.order.warning_seconds} s or more\n".encode())
        if first and (number == signal.SIGUSR2 or self.order.executor != "local"):
            raise KeyboardInterrupt

    def _go_on_later(self) -> None:
        """Have Slurm start the job again, where it warned of its end. Does not return.

        A SIGTERM comes with a cancellation and with a preemption alike, and only Slurm knows which it
        is: to wait for the end lets it queue again what it preempts, and end what is cancelled.
        """
        if self.warned != signal.SIGUSR2:
            self._note("stopped", "Slurm asked it to end")
            if self.warned is not None and not self._is_cancelled():
                time.sleep(FOREVER_S)
            sys.exit(Interrupted.exit_code)
        why = "its time was up"
        if self.restart >= self.order.requeues:
            self._note(
                "failed",
                f"{why}, for the {self.restart + 1}th time" if self.restart else why,
                "What it has made is kept: submit again to go on. slurm.time in harness.toml gives "
                "jobs more time, slurm.requeues more starts.",
            )
            sys.exit(HarnessError.exit_code)
        self._note("requeued", why)
        print(f"{why}: what is made is kept, the job is queued again", flush=True)
        done = subprocess.run(["scontrol", "requeue", self.job], check=False)
        if done.returncode == 0:
            time.sleep(FOREVER_S)
        sys.exit(Interrupted.exit_code)

    def _is_cancelled(self) -> bool:
        """By `harness cancel`, which notes it beforehand."""
        try:
            record = self.records.submitted(self.order.stage, self.order.key)
        except InputError:
            return False
        return record is not None and record.cancelled

    def _end(self, outcome: str, error: HarnessError) -> None:
        self._note(outcome, error.message, error.hint)

    def _note(self, outcome: str, message: str, hint: str = "") -> None:
        self.records.end(self.order.stage, self.order.key, outcome, message, hint)


def _job() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def plan_again(order: Order, node: str) -> "tuple[RowPlan, StagePlan, Runner]":
    """The row as this node plans it, the stage in it, and what runs it.

    Raises:
        InputError: it has another key here, or could only fail.
    """
    from rich.console import Console

    from harness.artefact.keys import Files, key_names
    from harness.artefact.store import Store
    from harness.llm import prices
    from harness.row.load import load_rows
    from harness.row.twin import scaled
    from harness.run import ready
    from harness.run.executors import make
    from harness.run.plan import Planner
    from harness.run.runner import Runner

    store = Store(Path(order.volume))
    inputs = Path(order.inputs) if order.inputs is not None else None
    files = Files(inputs, store.root / "cache" / "digests.json", store.files_folder)
    planner = Planner(store, files, order.executor, prices.load())
    (loaded,) = load_rows([Path(order.spec)])
    plan = planner.plan(scaled(loaded) if order.scale == "tiny" else loaded)
    planned = _found(order, plan.stages, node)
    executor = make(order.executor, store.root)
    runner = Runner(store, files, executor, Console(emoji=False, soft_wrap=True))
    runner.started_by = partial(facts, node)
    runner.downloads.keys = key_names([plan.row])
    ready.check_stage(planned, [order.stage], store, executor.name)
    executor.check([planned])
    return plan, planned, runner


def _turn(runner: "Runner", planned: "StagePlan") -> "Turn":
    """On as many threads as Slurm gives the job: not every cluster hides the other CPUs from it."""
    from harness.common.progress import ProgressView
    from harness.run.executors import Share
    from harness.run.runner import Turn

    cpus = os.environ.get("SLURM_CPUS_PER_TASK", "")
    share = Share(threads=int(cpus)) if cpus.isdigit() else Share()
    return Turn(runner.executor, ProgressView(runner.console, planned.title), share)


def _found(order: Order, stages: "Sequence[StagePlan]", node: str) -> "StagePlan":
    from harness.artefact.keys import differences

    for stage in stages:
        if stage.id == (order.stage, order.key):
            return stage
    same = [s for s in stages if s.stage == order.stage]
    if not same:
        raise InputError(f"{order.spec}, as {node} reads it, has no {order.stage} stage any more")

    def distance(stage: "StagePlan") -> int:
        return len(differences(order.document, stage.document))

    nearest = min(same, key=distance)
    reasons = "; ".join(differences(order.document, nearest.document))
    raise InputError(
        f"submitted with the key {order.key[:12]}, but on {node} the stage has the key "
        f"{nearest.key[:12]}: {reasons}",
        "Submit again, once login node and nodes have the same packages and accelerator "
        "(HARNESS_ACCELERATOR) and read the same specs and files.",
    )


def _meet(order: Order) -> None:
    """Say where the machines of a training meet: at the first, at a port that is the job's own."""
    if order.machines > 1:
        port = FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % PORTS
        # The node that started the tasks, which is the first, by its address.
        os.environ[RENDEZVOUS] = f"{os.environ['SLURM_LAUNCH_NODE_IPADDR']}:{port}"


def _take_part_or_tell(records: Records, order: Order, submission: str) -> None:
    """Slurm ends all machines with the first that ends with a fault, and the others know no reason."""
    try:
        _take_part(order)
    except Exception as e:
        error = e if isinstance(e, HarnessError) else HarnessError(f"{type(e).__name__}: {e}")
        fault = MachineFault(
            submission,
            _restart(),
            int(os.environ["SLURM_PROCID"]),
            _node(),
            "refused" if isinstance(e, InputError) else "failed",
            error.message,
            error.hint,
        )
        records.tell_fault(order.stage, order.key, fault)
        raise


def _restart() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _take_part(order: Order) -> None:
    """Another machine's part of a training. The first one notes what becomes of it, and has Slurm start
    both again where their time is up."""
    from harness.artefact.store import Store
    from harness.run.executors import placing
    from harness.run.join import take_part

    os.chdir(order.cwd)
    warned = []
    signal.signal(signal.SIGUSR2, lambda *of_the_signal: warned.append(True))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node = _node()
    checkout.check_same(order.checkout, node)
    _meet(order)
    _, planned, _ = plan_again(order, node)
    placing.check([planned], "local")
    if planned.artefact is not None:
        return
    try:
        take_part(planned, Store(Path(order.volume)))
    except HarnessError:
        # An end with a fault ends the first machine's part too, which has yet to say what it was.
        time.sleep(FOREVER_S if warned else FIRST_TELLS_S)
        raise


def facts(node: str) -> dict[str, Any]:
    """Of a manifest's environment: what started the stage, and where."""
    from importlib.metadata import version

    from harness.run.slurm import tools

    try:
        slurm = tools.version()
    except HarnessError:
        slurm = ""
    return {"slurm": slurm, "submitit": version("submitit"), "node": node, "job": _job()}


if __name__ == "__main__":
    main(sys.argv[1:])
