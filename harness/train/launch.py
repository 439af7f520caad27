"""Several processes or machines, and DeepSpeed: the same training as workers under torchrun."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from harness.artefact import environment, events, gpus
from harness.artefact.call import CALL_FILE, StageCall, StageResult
from harness.common import env_variables
from harness.common.env_variables import RENDEZVOUS
from harness.errors import HarnessError, InputError, Interrupted
from harness.spec.train import Launch, Train
from harness.train.checkpoints import STOP

OUTCOME = "train_outcome.json"
FAULT = "train_fault.json"
"""What the first worker that failed says, so that it is not lost in torchrun's own report."""
STOP_S = 5
ORDERLY_S = env_variables.stop_seconds() - 2 * STOP_S
"""How long the workers have for a checkpoint; less than this process is given itself."""


def train_under_torchrun(call: StageCall, params: Train) -> StageResult:
    """Run the workers to their end; on several machines, this one's, and wait for the others."""
    if params.deepspeed is not None:
        from harness.train.ops import prepare_deepspeed

        prepare_deepspeed(params.deepspeed.offload_optimizer)
    for name in (OUTCOME, FAULT, STOP):
        (call.folder / name).unlink(missing_ok=True)
    if params.launch.machines > 1:
        events.note(
            f"waiting for {params.launch.machines - 1} more machines at {rendezvous(params.launch)}; "
            "on each: harness join with the same spec and volume"
        )
    code = run_workers(call.folder / CALL_FILE, params.launch, call.key)
    outcome = call.folder / OUTCOME
    # Written when all is on the disk: how the workers then take leave of each other is no matter.
    if outcome.is_file():
        return StageResult.from_json(json.loads(outcome.read_text(encoding="utf-8")))
    raise _fault(call.folder / FAULT, code, params.launch)


def run_workers(
    call_file: Path, launch: Launch, key: str, devices: Mapping[str, str] | None = None
) -> int:
    """torchrun with this machine's workers; its exit code. They write their events to our own
    standard output. `devices`: the variable that names their GPUs, where nothing chose them before."""
    command = [sys.executable, "-m", "torch.distributed.run", *_meeting(launch, key)]
    command += ["--nproc-per-node", str(launch.processes), "--max-restarts", "0"]
    command += ["-m", "harness.train.worker", str(call_file)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**worker_environment(), **(devices or {})},
        preexec_fn=_die_with_parent,
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The workers look for it every few steps; slower ones go on from their last checkpoint.
        (call_file.parent / STOP).touch()
        events.note("stopping within the next steps, with a checkpoint")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ORDERLY_S)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        raise
    finally:
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    """torchrun ends, and with it the workers, when the stage's process is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    # Slurm's warning goes to all processes of a job, and would end these at once.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def join(work: Path, launch: Launch, key: str) -> int:
    """Another machine's part: wait for the call in the shared work folder, run its workers.

    Raises:
        InputError: this machine has fewer GPUs than workers.
    """
    count = launch.processes if environment.accelerator() == "cuda" else 0
    devices = gpus.restricted_to(gpus.choose(count, "this machine's part of the training"))
    is_noted = False
    while not (work / CALL_FILE).is_file():
        if not is_noted:
            events.note(f"waiting for the first machine to begin (for {work / CALL_FILE})")
            is_noted = True
        time.sleep(1)
    return run_workers(work / CALL_FILE, launch, key, devices)


def rendezvous(launch: Launch, environ: Mapping[str, str] = os.environ) -> str:
    """HOST:PORT where several machines meet. Raises InputError where it is not said."""
    address = environ.get(RENDEZVOUS, "")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(
            f"train.launch asks for {launch.machines} machines, and {RENDEZVOUS} does not say where "
            "they meet",
            f"Set it on each machine to an address of one of them: {RENDEZVOUS}=10.0.0.1:29500, and "
            "start `harness join` on the others. Under Slurm `harness submit` does all of it.",
        )
    return address


def _meeting(launch: Launch, key: str) -> list[str]:
    if launch.machines == 1:
        # By name, torchrun would look up an address that a container without a network lacks.
        return ["--standalone", "--local-addr", "127.0.0.1"]
    return [
        "--nnodes", str(launch.machines), "--rdzv-backend", "c10d", "--rdzv-id", key[:16],
        "--rdzv-endpoint", rendezvous(launch),
    ]  # fmt: skip


def worker_environment() -> dict[str, str]:
    """torchrun's workers find the package, the tools beside this Python, and their parent."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    threads = os.environ.get("OMP_NUM_THREADS", "")
    paths = {"PYTHONPATH": path, "PATH": tools, "OMP_NUM_THREADS": threads or "1"}
    # Of `harness join` the caller's variables are all here; a stage's are sorted out already.
    withheld = env_variables.withheld("train", network=False)
    passed = {name: value for name, value in os.environ.items() if name not in withheld}
    return {**passed, **env_variables.given("train"), **paths}


class _Fault(TypedDict):
    message: str
    hint: str
    exit_code: int


def _fault(path: Path, code: int, launch: Launch) -> HarnessError:
    try:
        fault: _Fault = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        where = f" (the machines meet at {rendezvous(launch)})" if launch.machines > 1 else ""
        return HarnessError(
            f"a training process ended with exit code {code} and did not say why{where}",
            "Run the same command again to go on from the last checkpoint. Where the log's last lines "
            "speak of NCCL or a watchdog, NCCL_DEBUG=INFO before the command says which GPU was lost; "
            "a process that was killed (-9) mostly met the end of the CPU's memory.",
        )
    if fault["exit_code"] == Interrupted.exit_code:
        raise KeyboardInterrupt
    kind = InputError if fault["exit_code"] == InputError.exit_code else HarnessError
    return kind(fault["message"], fault["hint"])


def leave_outcome(folder: Path, result: StageResult) -> None:
    (folder / OUTCOME).write_text(json.dumps(result.to_json()), encoding="utf-8")


def leave_fault(folder: Path, message: str, hint: str, exit_code: int) -> None:
    """The first one counts: the others fail because of it."""
    fault: _Fault = {"message": message, "hint": hint, "exit_code": exit_code}
    with contextlib.suppress(FileExistsError), (folder / FAULT).open("x", encoding="utf-8") as file:
        file.write(json.dumps(fault))
