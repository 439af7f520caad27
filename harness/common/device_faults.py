"""Faults of the machine under a model: memory that ran out, of a GPU or the CPU, and a GPU that failed.

The libraries tell them in many ways, mostly as a RuntimeError like any other. Here is the one place
that knows which they are. Without torch: every stage asks here last of all.
"""

import contextlib
import errno
import re
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from harness.common.numbers import byte_size
from harness.errors import HarnessError

CPU_ALLOCATION = re.compile(
    r"(can't|cannot) allocate memory(?! in static TLS)|DefaultCPUAllocator|std::bad_alloc", re.I
)
"""Of torch's allocator, the kernel's (ENOMEM, as mmap has it) and C++'s. A library that is loaded too
late for its thread-local data is no want of memory."""
ALLOCATION = re.compile(
    # torch's and CUDA's own, cuMemCreate's ("driver error"), bitsandbytes', NCCL's, Triton's loader.
    r"\b(CUDA|HIP|NCCL|Error)\b[^\n]{0,80}out of memory"
    r"|failed to CUDA (host )?[cm]?alloc"
    r"|\b[A-Z]+(_STATUS|_STATUS_INTERNAL_ERROR_\w+)?_ALLOC(ATION)?_FAILED\b"
    # What a library that cannot allocate its own working memory says when it is first called.
    r"|CUBLAS_STATUS_NOT_INITIALIZED when calling `cublas(Lt)?Create"
    r"|CUDNN_STATUS_NOT_INITIALIZED"
    # torch's allocator, about to tell that memory ran out, in a container without NVML.
    r"|NVML_SUCCESS == .*CUDACachingAllocator",
    re.I | re.S,
)
ACCELERATOR = re.compile(
    r"\b(CUDA|HIP)( driver| runtime)? error\b|device-side assert"
    r"|\bCU(BLAS|DNN|SOLVER|SPARSE|FFT)_\w+|\bcuDNN error|\bNCCL error|\bnccl\w+Error"
    r"|collective operation timeout"
)
UNSUPPORTED = re.compile(
    r"NOT_SUPPORTED|ARCH_MISMATCH|no kernel image|invalid (configuration )?argument"
)
"""Faults of one call: another way of computing the same may do."""
COLLECTIVE = re.compile(r"\bNCCL\b|\bnccl\w+Error|collective operation")
BESIDE_TORCH = 2 * 2**30
"""Bytes of a GPU that CUDA and its libraries may take beside torch's: no sign of another process."""
KEPT = "With more memory free the same command goes on: what is done is kept."
RUN_AGAIN = "Run the same command again: what is finished stays. "


class OutOfMemory(HarnessError):
    """Memory ran out. `on_cpu`: the machine's own, not a GPU's."""

    def __init__(self, message: str, hint: str, on_cpu: bool) -> None:
        super().__init__(message, hint)
        self.on_cpu = on_cpu


class Room(NamedTuple):
    """Bytes of a GPU's memory: all, what was free, and what other processes seem to hold."""

    total: int
    free: int
    used_by_others: int


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of any device, says the error or one that it came of."""
    return any(_is_memory(e) for e in _causes(error))


def is_accelerators(error: BaseException) -> bool:
    """Whether a GPU, a library on it or the way between several failed, but for want of memory."""
    return not ran_out_of_memory(error) and any(_is_accelerators(e) for e in _causes(error))


def pass_on(error: BaseException) -> None:
    """To be called first where any fault is taken for one of what is tried: raises `error` again where
    it is the machine's, which says nothing of a model, a folder or a way to compute."""
    broken = is_accelerators(error) and not UNSUPPORTED.search(str(error))
    if broken or ran_out_of_memory(error):
        raise error


@contextlib.contextmanager
def memory_for(what: str, hint: "str | Callable[[bool], str]" = "") -> Iterator[None]:
    """Raises OutOfMemory, with the way out, where memory runs out in the block.

    `what` it was wanted for, as in `the GPU's memory ran out while ...`. `hint`, or what makes one,
    given whether it was the CPU's memory. Of blocks in each other the innermost says what for, and the
    innermost with a hint what to do.
    """
    try:
        yield
    except Exception as e:
        fault = as_out_of_memory(e, what)
        if fault is None:
            raise
        if not fault.hint:
            fault.hint = hint if isinstance(hint, str) else hint(fault.on_cpu)
        if fault is e:
            raise
        raise fault from e


def as_out_of_memory(error: BaseException, what: str = "") -> OutOfMemory | None:
    """The fault in words, yet without a hint; None where it is none of memory."""
    if isinstance(error, OutOfMemory):
        return error
    if not ran_out_of_memory(error):
        return None
    during = f" while {what}" if what else ""
    if any(_is_cpus(e) for e in _causes(error)):
        return OutOfMemory(f"the CPU's memory ran out{during}", "", True)
    room = gpu_room()
    size = f" ({byte_size(room.total)})" if room is not None else ""
    message = f"the GPU's memory{size} ran out{during}"
    if room is not None and room.used_by_others > BESIDE_TORCH:
        message += (
            f": {byte_size(room.used_by_others)} are in use by others (nvidia-smi lists them)"
        )
    return OutOfMemory(message, "", False)


def as_fault(error: BaseException) -> HarnessError | None:
    """A fault of the machine for the person at the terminal; None for every other."""
    memory = as_out_of_memory(error)
    if memory is not None:
        memory.hint = memory.hint or f"Take {more_memory(memory.on_cpu)}."
    if memory is not None or not is_accelerators(error):
        return memory
    first = next(e for e in _causes(error) if _is_accelerators(e))
    text = " ".join(str(first).split("CUDA kernel errors might")[0].split())[:300]
    return HarnessError(f"the GPU failed: {text or type(first).__name__}", _what_to_do(text))


def log(error: BaseException) -> None:
    """Write what the libraries said of a device into the stage's log, where the person at the terminal
    is told it in our words. Of other faults nothing: a server's answer may hold what no log may."""
    for cause in _chain(error):
        if _is_memory(cause) or _is_accelerators(cause):
            print(f"{type(cause).__name__}: {cause}", file=sys.stderr)


def more_memory(on_cpu: bool) -> str:
    """What always helps."""
    return "more memory for the stage (limits.memory)" if on_cpu else "a GPU with more memory free"


def smaller_batch(setting: str, size: int, precision: str) -> str:
    """What to do where memory ran out with so many at a time, of a stage that keeps what is done."""
    less = f"Set {setting}: {size // 2}, with which the stage begins anew: it is part of the key."
    if size == 1:
        less = f"It was one at a time already: take {_smaller_model(precision)}."
    return f"{less} {KEPT}"


def smaller_model(precision: str) -> Callable[[bool], str]:
    """What to do where no setting but the model's own made memory run out; see smaller_batch."""
    return lambda on_cpu: f"Take {_smaller_model(precision)}, or {more_memory(on_cpu)}. {KEPT}"


def _smaller_model(precision: str) -> str:
    return (
        "a smaller model" if precision == "bfloat16" else "precision: bfloat16 or a smaller model"
    )


def _what_to_do(text: str) -> str:
    if "no kernel image" in text or "ARCH_MISMATCH" in text:
        return (
            "This build of torch has no code for this GPU; docs/machines.md says for which it has."
        )
    if "assert" in text:
        return (
            "Most often an index is out of range, as a token's that the model has no row for. "
            "CUDA_LAUNCH_BLOCKING=1 before the same command names the call; on the CPU it is plain."
        )
    if COLLECTIVE.search(text):
        return RUN_AGAIN + (
            "Mostly another process ended or a GPU could not be reached: NCCL_DEBUG=INFO before the "
            "command says which."
        )
    return RUN_AGAIN + (
        "If it comes back: `dmesg | grep Xid` shows a broken GPU, and CUDA_LAUNCH_BLOCKING=1 before "
        "the command names the call."
    )


def gpu_room() -> Room | None:
    """Of this process's GPU; None without one, or where it does not answer any more."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    try:
        free, total = torch.cuda.mem_get_info()
        return Room(total, free, max(0, total - free - torch.cuda.memory_reserved()))
    except RuntimeError:
        return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it came of; a HarnessError has said already what it is."""
    for cause in _chain(error):
        if isinstance(cause, HarnessError):
            return
        yield cause


def _chain(error: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)


def _is_memory(error: BaseException) -> bool:
    torchs_own = type(error).__name__ == "OutOfMemoryError"
    failed = _is_of_libraries(error) and ALLOCATION.search(str(error))
    return torchs_own or _is_cpus(error) or bool(failed)


def _is_cpus(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    failed = _is_of_libraries(error) and CPU_ALLOCATION.search(str(error))
    return isinstance(error, MemoryError) or bool(failed)


def _is_accelerators(error: BaseException) -> bool:
    is_by_type = type(error).__name__ in ("AcceleratorError", "DistBackendError")
    return is_by_type or (_is_of_libraries(error) and bool(ACCELERATOR.search(str(error))))


def _is_of_libraries(error: BaseException) -> bool:
    is_runtimes = isinstance(error, RuntimeError) and not isinstance(error, RecursionError)
    return is_runtimes or type(error).__name__ == "SafetensorError"
