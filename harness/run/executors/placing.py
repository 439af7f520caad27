"""Which GPUs a planned stage will get, and why it could not start on this machine: the same to a plan,
which asks ahead, and to an executor, which refuses. Without torch, and without asking Docker."""

import os
from collections.abc import Sequence

from harness.answer.engine import VllmEngine
from harness.artefact import environment, gpus
from harness.artefact.gpus import Gpu
from harness.errors import InputError
from harness.run.executors import gpus_of
from harness.run.executors.serving import URL_VARIABLE
from harness.run.plan import StagePlan
from harness.spec.train import Train
from harness.train import compilers

TENSOR_PARALLEL = "tensor_parallel of the engine vllm"


def check(stages: Sequence[StagePlan], executor: str) -> None:
    """Raises InputError where one of the stages cannot have its GPUs; see place."""
    for stage in stages:
        place(stage, executor)


def place(stage: StagePlan, executor: str) -> tuple[Gpu, ...]:
    """The GPUs of a stage and of the server beside it; empty: it works on the CPU.

    Raises:
        InputError: there are too few; a driver, a card or torch here cannot do; a compiler is not
            there; no GPU is used and the training asks for what only they can do, or whether one is
            there is not known.
    """
    train, work = stage.params.get("train"), f"row {stage.row}: its {stage.stage} stage"
    count, beside = gpus_of(stage.stage, stage.params), _server(stage, executor)
    if environment.accelerator() != "cuda":
        if count or beside is not None:
            _check_cpu_is_meant(work)
        if isinstance(train, Train) and (setting := train.of_gpus_alone()):
            raise InputError(
                f"row {stage.row}: {setting}, and none is used here",
                f"Set {setting.partition(':')[0]}: false, or run it where there is one "
                "(`harness doctor` shows what is here).",
            )
        return ()
    if count and executor == "local" and environment.lacks_cuda():
        raise InputError(
            f"{work} is to run on a GPU, and torch here is a build for the CPU",
            f"{gpus.INSTALL_CUDA}. Or: {gpus.CPU_INSTEAD}.",
        )
    chosen = gpus.choose(count, work)
    if executor == "docker" or environment.has_cuda_13():
        _check_cuda_13(chosen, work)
    if executor == "local" and isinstance(train, Train) and train.liger_kernels:
        compilers.check_for_triton()
    return chosen if beside is None else chosen + of_server(beside, f"row {stage.row}: vLLM")


def of_server(engine: VllmEngine, title: str) -> tuple[Gpu, ...]:
    """As many as vLLM parts the model among.

    Raises:
        InputError: there are fewer, or they do not calculate in the engine's precision.
    """
    if environment.accelerator() != "cuda":
        return ()
    elsewhere = f"base_url or {URL_VARIABLE} can name a server elsewhere"
    chosen = gpus.choose(engine.tensor_parallel, title, TENSOR_PARALLEL, elsewhere)
    for gpu in chosen if engine.precision == "bfloat16" else ():
        if gpu.capability is not None and gpu.capability < gpus.BFLOAT16:
            raise InputError(
                f"{title} refuses bfloat16 on GPU {gpu}, which is {gpus.sm(gpu.capability)}",
                f"Take precision: float16, or a card of {gpus.sm(gpus.BFLOAT16)} or newer.",
            )
    return chosen


def _server(stage: StagePlan, executor: str) -> VllmEngine | None:
    """The engine of the server that is to run on this machine: outside the docker executor a person
    starts it, once its model is there."""
    engine = stage.served
    if engine is None or engine.base_url is not None:
        return None
    elsewhere = environment.current_image() is not None or os.environ.get(URL_VARIABLE)
    return None if executor == "local" and elsewhere else engine


def _check_cpu_is_meant(work: str) -> None:
    fault = environment.fault_of_gpu()
    if fault:
        raise InputError(
            f"{work} would work on the CPU, for nvidia-smi is there and fails: {fault}",
            f"With a GPU: {gpus.MEND_DRIVER} Without: {gpus.CPU_INSTEAD}.",
        )


def _check_cuda_13(chosen: Sequence[Gpu], work: str) -> None:
    for gpu in chosen:
        if why := gpus.cannot(gpu):
            raise InputError(
                f"{work} cannot use GPU {gpu}: {why}",
                f"{gpus.remedy(gpu)} {gpus.CPU_INSTEAD}, in the images for it.",
            )
