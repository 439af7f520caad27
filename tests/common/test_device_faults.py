"""Faults of the machine: which errors tell of memory that ran out, which of a GPU that failed."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from harness.common import device_faults
from harness.common.device_faults import (
    OutOfMemory,
    Room,
    as_fault,
    is_accelerators,
    memory_for,
    pass_on,
    ran_out_of_memory,
)
from harness.errors import HarnessError, InputError

CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
NCCL = (
    "NCCL error in: NCCLUtils.hpp:340, unhandled cuda error (run with NCCL_DEBUG=INFO for details)\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
)
LATE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace "
    "below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
)


def accelerator(text: str) -> Exception:
    return torch.AcceleratorError(text)  # type: ignore[no-untyped-call]


def nccl(text: str) -> Exception:
    return torch.distributed.DistBackendError(NCCL + text)


def raised(do: Callable[[], Any]) -> Exception:
    try:
        do()
    except Exception as e:
        return e
    raise AssertionError("nothing was raised")


MEMORY: dict[str, Exception] = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
    "the driver": RuntimeError("CUDA driver error: out of memory"),
    "CUDA": accelerator("CUDA error: out of memory" + LATE),
    "cuBLAS": RuntimeError(CUBLAS),
    "cuBLAS's first call": RuntimeError(CUBLAS.replace("ALLOC_FAILED", "NOT_INITIALIZED")),
    "cuBLASLt's": RuntimeError(
        CUBLAS.replace("ALLOC_FAILED", "NOT_INITIALIZED").replace("sC", "sLtC")
    ),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuDNN 9": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "NCCL": nccl("Cuda failure 'out of memory'"),
    "NCCL's buffers": nccl("Failed to CUDA calloc 8388608 bytes"),
    "without NVML": RuntimeError(
        'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":830, '
        "please report a bug to PyTorch."
    ),
    "bitsandbytes": RuntimeError("Error out of memory at line 82 in file /src/csrc/ops.cu"),
}
ON_CPU: dict[str, Exception] = {
    "torch's allocator": raised(lambda: torch.empty(1 << 50)),
    "Python": MemoryError(),
    "the kernel": OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "model.safetensors"),
    "a mapped file": RuntimeError(
        "unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)"
    ),
    "safetensors": SafetensorError("Cannot allocate memory (os error 12)"),
}
FAILED: dict[str, Exception] = {
    "an index": accelerator("CUDA error: device-side assert triggered" + LATE),
    "a kernel": accelerator("CUDA error: an illegal memory access was encountered" + LATE),
    "a launch": RuntimeError("CUDA error: unspecified launch failure"),
    "ECC": accelerator("CUDA error: uncorrectable ECC error encountered"),
    "cuBLAS after an index": RuntimeError(
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"
    ),
    "NCCL": nccl("Cuda failure 999 'unknown error'"),
    "a timeout": RuntimeError("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)"),
}
OTHERS: dict[str, Exception] = {
    "a library loaded too late": RuntimeError(
        "libgomp.so.1.0.0: cannot allocate memory in static TLS block"
    ),
    "words of a text": RuntimeError("no answer for sample 17: 'My program says out of memory'"),
    "recursion": RecursionError("CUDA out of memory"),
    "Triton's shared memory": RuntimeError(
        "out of resource: shared memory, Required: 131072, Hardware limit: 101376"
    ),
    "/dev/shm": RuntimeError("unable to allocate shared memory(shm) for file </torch_1>"),
    "a kernel for newer cards": RuntimeError("FlashAttention only supports Ampere GPUs or newer."),
    "a shape": RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    "a text of a user's": ValueError("'CUDA error: out of memory' is no instruction"),
    "a harness error": HarnessError("CUDA error: out of memory"),
    "a file": FileNotFoundError(errno.ENOENT, "No such file", "a"),
}
UNSUPPORTED: dict[str, Exception] = {
    "a type": RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`"),
    "a card": accelerator("CUDA error: no kernel image is available for execution on the device"),
}


@pytest.mark.parametrize("error", [*MEMORY.values(), *ON_CPU.values()], ids=[*MEMORY, *ON_CPU])
def test_whatever_tells_that_memory_ran_out_is_known_as_that(error: Exception) -> None:
    assert ran_out_of_memory(error)
    assert not is_accelerators(error)
    fault = as_fault(error)
    assert isinstance(fault, OutOfMemory)
    assert fault.on_cpu == (error in ON_CPU.values())
    assert fault.message == f"the {'CPU' if fault.on_cpu else 'GPU'}'s memory ran out"
    assert ("limits.memory" if fault.on_cpu else "GPU with more memory free") in fault.hint
    with pytest.raises(type(error)):
        pass_on(error)


@pytest.mark.parametrize("error", OTHERS.values(), ids=OTHERS)
def test_other_faults_are_left_to_those_who_know_them(error: Exception) -> None:
    assert not ran_out_of_memory(error)
    assert as_fault(error) is None
    pass_on(error)


@pytest.mark.parametrize("error", FAILED.values(), ids=FAILED)
def test_a_gpu_that_failed_is_no_fault_of_the_model_and_is_told_in_one_line(
    error: Exception,
) -> None:
    assert is_accelerators(error)
    with pytest.raises(type(error)):
        pass_on(error)
    fault = as_fault(error)
    assert fault is not None
    assert fault.message.startswith("the GPU failed: ")
    assert "\n" not in fault.message
    assert "asynchronously" not in fault.message
    assert fault.hint


def test_what_to_do_follows_from_what_failed() -> None:
    def hint(error: Exception) -> str:
        fault = as_fault(error)
        assert fault is not None
        return fault.hint

    assert "CUDA_LAUNCH_BLOCKING=1" in hint(FAILED["an index"])
    assert "out of range" in hint(FAILED["an index"])
    assert "dmesg" in hint(FAILED["ECC"])
    assert "Run the same command again" in hint(FAILED["a launch"])
    for name in ("NCCL", "a timeout"):
        assert "NCCL_DEBUG=INFO" in hint(FAILED[name])
    assert "docs/machines.md" in hint(UNSUPPORTED["a card"])


@pytest.mark.parametrize("error", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_a_gpu_does_not_support_leaves_another_way_of_computing_to_be_tried(
    error: Exception,
) -> None:
    pass_on(error)
    assert as_fault(error) is not None


def test_the_error_underneath_counts_but_not_where_it_is_none_of_the_cause() -> None:
    outer = RuntimeError("the weights could not be converted")
    outer.__cause__ = MEMORY["torch"]
    assert ran_out_of_memory(outer)
    told = InputError("the folder lacks config.json")
    told.__cause__ = MEMORY["torch"]
    assert not ran_out_of_memory(told)


@contextmanager
def gpu(monkeypatch: pytest.MonkeyPatch, room: Room | None) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(device_faults, "gpu_room", lambda: room)
        yield


def test_the_innermost_block_says_what_memory_was_for_and_the_innermost_hint_what_to_do() -> None:
    with (
        pytest.raises(OutOfMemory) as caught,
        memory_for("training", "the outer hint"),
        memory_for("loading the model", lambda on_cpu: f"on the CPU: {on_cpu}"),
        memory_for("reading a weight"),
    ):
        torch.empty(1 << 50)
    assert caught.value.message == "the CPU's memory ran out while reading a weight"
    assert caught.value.hint == "on the CPU: True"
    assert caught.value.exit_code == 1
    with pytest.raises(ValueError, match="other"), memory_for("training"):
        raise ValueError("other")


def test_memory_that_others_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(total=80 * 2**30, free=2**30, used_by_others=60 * 2**30)
    for each, told in ((room, True), (room._replace(used_by_others=2**30), False)):
        with gpu(monkeypatch, each):
            fault = as_fault(MEMORY["torch"])
        assert fault is not None
        assert fault.message.startswith("the GPU's memory (80.0 GiB) ran out")
        assert ("60.0 GiB are in use by others (nvidia-smi" in fault.message) == told


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_what_a_gpu_says_when_its_memory_runs_out_is_known(small_gpu: None) -> None:
    error = raised(lambda: torch.empty(1 << 40, device="cuda"))
    assert ran_out_of_memory(error)
    fault = as_fault(error)
    assert fault is not None
    assert "GiB) ran out" in fault.message


def test_the_log_has_a_devices_words_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    """A server may answer with the key that it was sent."""
    for cause in (MEMORY["torch"], RuntimeError("no such key: sk-1234567890")):
        fault = HarnessError("told in our words")
        fault.__cause__ = cause
        device_faults.log(fault)
    err = capsys.readouterr().err
    assert str(MEMORY["torch"]) in err
    assert "sk-" not in err
    assert "our words" not in err
