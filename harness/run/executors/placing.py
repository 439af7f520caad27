"""Which GPUs a planned stage will get, and why it could not start on this machine: the same to a plan,
which asks ahead, and to an executor, which refuses. Without torch, and without asking Docker."""

import importlib.util
import os
from collections.abc import Iterable, Sequence

from harness.answer.engines.vllm import VLLM_IMAGE, VllmEngine
from harness.artefact import environment, gpus
from harness.artefact.gpus import Gpu
from harness.common.executor_names import BY_SERVICE, IN_IMAGES
from harness.errors import InputError
from harness.run.executors import gpus_of
from harness.run.executors.serving import URL_VARIABLE, no_server, running_url, served
from harness.run.plan import StagePlan, command_for, engine_of
from harness.spec.train import Train
from harness.train import compilers

TENSOR_PARALLEL = "tensor_parallel of the engine vllm"
PACKAGES = {
    "gen": ("openai", "aiohttp", "rapidfuzz", "numba"),
    "train": ("torch", "transformers", "trl"),
    "answer": ("torch", "transformers", "openai"),
    "judge": ("torch", "transformers", "openai", "alpaca_eval"),
}
"""Of each stage: what tells an environment that can run it from one that lacks the stage's packages."""


def check(stages: Sequence[StagePlan], executor: str) -> None:
    """Raises InputError where one of the stages cannot have its GPUs; see place."""
    for stage in stages:
        place(stage, executor)


def missing_packages(stages: Iterable[str]) -> list[str]:
    """Those of the stages' packages that this environment lacks."""
    packages = dict.fromkeys(package for stage in stages for package in PACKAGES.get(stage, ()))
    return [package for package in packages if importlib.util.find_spec(package) is None]


def place(stage: StagePlan, executor: str) -> tuple[Gpu, ...]:
    """The GPUs of a stage and of the server beside it; empty: it works on the CPU.

    Raises:
        InputError: its engine cannot take the model; its packages are not installed here; there are too
            few; a driver, a card or torch here cannot do; a compiler is not there; no GPU is used and
            the training asks for what only they can do, or whether one is there is not known; no server
            is named, and none is to be started.
    """
    train, row = stage.params.get("train"), f"row {stage.row}: "
    work = f"{row}its {stage.stage} stage"
    answers = engine_of(stage.params)
    if answers is not None:
        stage.check_engine(answers, f"{row}eval.{stage.stage}.engine: ")
    if executor == "local" and (lacking := missing_packages([stage.stage])):
        raise InputError(
            f"{work} needs {', '.join(lacking)}, not installed in this environment",
            "`make install` installs all that stages need; --executor docker runs them in images.",
        )
    count, engine = gpus_of(stage.stage, stage.params), _unnamed_server(stage, executor)
    if count or engine is not None:
        check_cpu_is_meant(work)
        _check_limit(stage, count, engine, work)
    if engine is not None and executor not in BY_SERVICE:
        _refuse_unnamed_server(stage, work)
    chosen: tuple[Gpu, ...] = ()
    if environment.accelerator() == "cuda":
        chosen = _usable(count, work, executor)
        if count and executor == "local" and environment.lacks_cuda():
            raise InputError(
                f"{work} is to run on a GPU, and torch here is a build for the CPU",
                _other_torch(stage),
            )
    if isinstance(train, Train):
        _check_training(train, chosen, row, executor)
    return chosen if engine is None else chosen + of_server(engine, f"{row}vLLM")


def _check_limit(stage: StagePlan, count: int, engine: VllmEngine | None, work: str) -> None:
    """Raises InputError where the stage works on more GPUs than its spec lets it have."""
    most = stage.owner.limits.gpus
    needed = max(count, engine.tensor_parallel if engine is not None else 0)
    if most is not None and needed > most and environment.accelerator() == "cuda":
        setting = gpus.PROCESSES if needed == count else TENSOR_PARALLEL
        raise InputError(
            f"{work} works on {needed} GPUs ({setting}), and limits.gpus is {most}",
            f"Write limits.gpus: {needed}, or a smaller {setting}.",
        )


def suits(stage: StagePlan, gpu: Gpu, executor: str) -> bool:
    """Whether `place` has nothing against this card for the stage."""
    train, engine = stage.params.get("train"), _unnamed_server(stage, executor)
    needs_13 = executor != "local" or environment.has_cuda_13() or environment.lacks_cuda()
    if needs_13 and gpus.cannot(gpu):
        return False
    if gpu.capability is None:
        return True
    if isinstance(train, Train) and train.tf32 and gpu.capability < gpus.TF32:
        return False
    in_bfloat16 = engine is not None and engine.precision == "bfloat16"
    return not (in_bfloat16 and gpu.capability < gpus.BFLOAT16)


def of_server(
    engine: VllmEngine, title: str, among: Sequence[Gpu] | None = None
) -> tuple[Gpu, ...]:
    """As many as vLLM, started beside a stage, parts the model among; `among`: see gpus.choose.

    Raises:
        InputError: there are fewer, or they do not calculate in the engine's precision; the image is
            the harness's own, which works on GPUs alone, and none is used.
    """
    elsewhere = "base_url can name a server elsewhere"
    if environment.accelerator() != "cuda":
        if engine.image == VLLM_IMAGE:
            raise InputError(
                f"{title}: its image works on NVIDIA GPUs alone, and none is used here",
                f"Use the engine transformers, or run it where there is one (HARNESS_ACCELERATOR=cpu "
                f"uses none; `harness doctor` shows what is here); {elsewhere}.",
            )
        return ()
    count = engine.tensor_parallel
    chosen = gpus.choose(count, title, TENSOR_PARALLEL, elsewhere, among=among)
    for gpu in chosen if engine.precision == "bfloat16" else ():
        if gpu.capability is not None and gpu.capability < gpus.BFLOAT16:
            raise InputError(
                f"{title} refuses bfloat16 on GPU {gpu}, which is {gpus.sm(gpu.capability)}",
                f"Take precision: float16, or a card of {gpus.sm(gpus.BFLOAT16)} or newer.",
            )
    return chosen


def check_cpu_is_meant(work: str) -> None:
    """Raises InputError where the CPU would be used with nobody having said so: nvidia-smi is there and
    finds no GPU that can be used."""
    if fault := environment.fault_of_gpu():
        raise InputError(
            f"{work} would work on the CPU, for nvidia-smi is there and finds no GPU: {fault}",
            f"With a GPU: {gpus.mend()} Without: {gpus.CPU_INSTEAD}.",
        )


def _unnamed_server(stage: StagePlan, executor: str) -> VllmEngine | None:
    """The engine of a server that nobody has named."""
    engine = stage.served
    if engine is None or engine.base_url is not None:
        return None
    return None if executor not in BY_SERVICE and os.environ.get(URL_VARIABLE) else engine


def _refuse_unnamed_server(stage: StagePlan, work: str) -> None:
    """Raises InputError; where the model is there, with how to start its server."""
    if command := _makes_what_is_served(stage):
        raise no_server(f"{work}: ", f"first make what it serves: {command}\n{_THEN}")
    assert stage.planner is not None
    folders = {name: stage.planner.store.hub_folder(*hub) for name, hub in stage.hubs().items()}
    model = stage.inputs.get("model")
    if model is not None and model.artefact is not None:
        folders["model"] = model.artefact.folder
    serve = served(stage, folders, stage.planner.files)
    assert serve is not None
    running_url(serve, f"{work}: ")


_THEN = "and the same command then says how to start it."


def _makes_what_is_served(stage: StagePlan) -> str:
    """The command that trains or downloads the model; empty where it is there."""
    model, planner = stage.inputs.get("model"), stage.planner
    if model is not None and model.artefact is None:
        lacks_data = any(source.artefact is None for source in model.inputs.values())
        return command_for(model, stage, "gen,train" if lacks_data else "")
    hub = stage.hubs().get("hub" if stage.judge_model is None else "judge_hub")
    if hub is None or planner is None or planner.store.hub_folder(*hub).is_dir():
        return ""
    return environment.command_line("fetch", stage.target, "fetch")


def _usable(count: int, work: str, executor: str) -> tuple[Gpu, ...]:
    """Raises InputError where there are fewer, or CUDA 13, which is here or is to be installed, cannot
    use one of them."""
    if executor == "local" and not (environment.has_cuda_13() or environment.lacks_cuda()):
        return gpus.choose(count, work)
    chosen = gpus.choose(count, work, is_usable=gpus.runs_cuda_13)
    for gpu in chosen:
        if why := gpus.cannot(gpu):
            raise InputError(
                f"{work} cannot use GPU {gpu}: {why}",
                f"{gpus.remedy(gpu, count)} {environment.cpu_instead(executor)}.",
            )
    return chosen


def _other_torch(stage: StagePlan) -> str:
    """What a twin is for works on the CPU."""
    if stage.owner.scale == "tiny":
        return f"A twin needs no GPU: {gpus.CPU_INSTEAD}. Or: {gpus.INSTALL_CUDA}."
    return f"{gpus.INSTALL_CUDA}. Or: {gpus.CPU_INSTEAD}."


def _check_training(train: Train, chosen: Sequence[Gpu], row: str, executor: str) -> None:
    """Raises InputError for what only GPUs, or newer ones, can carry out, and for a compiler that is
    lacking where the training runs in this environment."""
    setting = train.of_gpus_alone()
    if setting and not chosen:
        raise InputError(
            f"{row}{setting}, and none is used here",
            f"Set {setting.partition(':')[0]}: false, or run it where there is one "
            "(`harness doctor` shows what is here).",
        )
    for gpu in chosen if train.tf32 else ():
        if gpu.capability is not None and gpu.capability < gpus.TF32:
            raise InputError(
                f"{row}train.tf32: GPU {gpu} is {gpus.sm(gpu.capability)}, which has no TF32",
                f"Set train.tf32: false, or take a card of {gpus.sm(gpus.TF32)} or newer.",
            )
    if executor in IN_IMAGES:
        return
    if train.liger_kernels:
        compilers.check_for_triton(row)
    if train.deepspeed is not None and environment.current_image() is None:
        for extension in compilers.to_be_compiled(train.deepspeed):
            compilers.check_for_deepspeed(extension, row)
