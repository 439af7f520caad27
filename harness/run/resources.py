"""What a stage takes of a machine while it runs. Rough, and said so: nothing is limited to it."""

import os
from dataclasses import dataclass
from typing import Literal

from harness.artefact import environment
from harness.modeling.memory.need import Need
from harness.run.executors import gpus_of
from harness.run.executors.serving import URL_VARIABLE
from harness.run.foretold import foretold
from harness.run.plan import StagePlan, engine_of
from harness.run.weights import weights_of
from harness.spec.train import Train

PROCESS, MODEL_PROCESS = 150 * 2**20, 600 * 2**20
"""Bytes of a stage's process without a model of its own, and of one with PyTorch and its libraries, the
smoke rows' tiny model included: the most that theirs were seen to have, rounded up."""


@dataclass(frozen=True)
class Resources:
    """What a stage takes while it runs."""

    kind: Literal["network", "cpu", "gpu"]
    """network: it calls an endpoint or a server, and has no model and no GPU of its own."""
    gpus: int
    """0 where none."""
    cpus: int
    """Threads it can use well, at least 1."""
    memory: int | None
    """Bytes of main memory; None where not known."""


def resources_of(planned: StagePlan) -> Resources:
    """What a planned stage takes on this machine, or on one like it."""
    gpus, limit = _gpus(planned), _limit(planned)
    if gpus:
        memory = limit or _memory(planned, on_gpu=True)
        return Resources("gpu", gpus, gpus, memory)
    if has_model(planned) or _serves_here(planned):
        cpus = _threads(planned) or environment.cpus()
        memory = limit or _memory(planned, on_gpu=False)
        return Resources("cpu", 0, cpus, memory)
    calls = planned.pays or planned.served is not None
    return Resources("network" if calls else "cpu", 0, 1, PROCESS)


def seconds_of(planned: StagePlan) -> float | None:
    """What alike stages took before, by the volume's manifests; None where there is none."""
    planner = planned.planner
    return foretold(planner.store).seconds(planned) if planner is not None else None


def has_model(planned: StagePlan) -> bool:
    """Whether the stage's own process holds a model."""
    return bool(gpus_of(planned.stage, planned.params))


def threads_are_open(planned: StagePlan) -> bool:
    """Whether the spec leaves it to the machine how many threads the stage's model works with; not of
    several processes, which part what the machine has among them."""
    train = planned.params.get("train")
    is_launched = isinstance(train, Train) and train.launch.processes > 1
    return has_model(planned) and _threads(planned) is None and not is_launched


def _gpus(planned: StagePlan) -> int:
    """Those of its own process, or of the server that is started beside it, which shares them."""
    if environment.accelerator() != "cuda":
        return 0
    engine = planned.served if _serves_here(planned) else None
    beside = engine.tensor_parallel if engine is not None else 0
    return max(gpus_of(planned.stage, planned.params), beside)


def _serves_here(planned: StagePlan) -> bool:
    """Whether a server is started beside it, on this machine."""
    engine = planned.served
    if engine is None or engine.base_url is not None:
        return False
    is_local = planned.planner is None or planned.planner.executor == "local"
    return not (is_local and os.environ.get(URL_VARIABLE))


def _threads(planned: StagePlan) -> int | None:
    """As its spec has them, of all its processes."""
    train, judge = planned.params.get("train"), planned.params.get("judge")
    for part in (train, engine_of(planned.params), judge):
        threads: int | None = getattr(part, "threads", None)
        if threads is not None:
            return threads * (part.launch.processes if isinstance(part, Train) else 1)
    return None


def _limit(planned: StagePlan) -> int | None:
    """Bytes that its container cannot pass; None where it is in none, or has no limit."""
    planner = planned.planner
    if planner is None or planner.executor == "local":
        return None
    return planned.owner.limits.memory_bytes


def _memory(planned: StagePlan, on_gpu: bool) -> int | None:
    """Of its processes, and of their models where these are not on GPUs."""
    need = planned.need
    if isinstance(need, Need):
        processes = need.train.launch.processes
        each = MODEL_PROCESS + (0 if on_gpu else int(need.memory.needed))
        return processes * each + int(need.memory.cpu)
    if on_gpu:
        return MODEL_PROCESS
    weights = _answering(planned)
    return None if weights is None else MODEL_PROCESS + weights


def _answering(planned: StagePlan) -> int | None:
    """Bytes of the weights of a model that answers or is scored: what was trained is as large."""
    model, planner = planned.inputs.get("model"), planned.planner
    if planner is None or planned.stage == "train":
        return None
    if planned.judge_model is None and model is not None and isinstance(model.need, Need):
        return int(model.need.memory.weights)
    return weights_of(planned, planner.store, planner.files)
