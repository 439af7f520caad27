"""One of several training processes, started by torchrun: `-m harness.train.worker CALL.json`."""

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path

from harness.artefact import events
from harness.artefact.call import StageCall
from harness.common import device_faults
from harness.common.paths import DISK_FULL
from harness.errors import HarnessError, Interrupted
from harness.train import launch


def main(argv: list[str]) -> int:
    events.claim_stdout()
    # Nothing is lost by dying at once, and a process that waits for another hears no signal.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive torchrun
    call = StageCall.read(Path(argv[0]))
    try:
        _work(call)
        sys.stderr.flush()
        # Threads that still talk to the other processes would abort an orderly end now and then.
        os._exit(0)
    except HarnessError as e:
        device_faults.log(e)
        fault = e.message, e.hint, e.exit_code
    except KeyboardInterrupt:
        fault = "stopped", "", Interrupted.exit_code
    except Exception as e:
        fault = _unforeseen(e)
    launch.leave_fault(call.folder, *fault)
    sys.stderr.flush()
    # Without waiting for the others, which wait for this one.
    os._exit(fault[2])


def _unforeseen(error: Exception) -> tuple[str, str, int]:
    fault = device_faults.as_fault(error)
    if fault is not None:
        device_faults.log(error)
        return fault.message, fault.hint, fault.exit_code
    traceback.print_exc()
    if not isinstance(error, OSError):
        return f"{type(error).__name__}: {error}", "The log has the details.", 1
    full = error.errno in DISK_FULL
    what = "no space left on the device" if full else f"{type(error).__name__}: {error}"
    return what, "Run the same command again; what is finished stays.", 1


def _work(call: StageCall) -> None:
    import torch

    from harness.train.process import train_here
    from harness.train.run import read_inputs

    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    params, _, source, tokenizer, data = read_inputs(call)
    result = train_here(call, params, source, tokenizer, data, rank, processes)
    if rank == 0:
        launch.leave_outcome(call.folder, result)
    if torch.distributed.is_initialized():
        with contextlib.suppress(RuntimeError):
            torch.distributed.barrier()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
