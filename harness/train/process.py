"""One process's part of a training: its model, the loop, and (the first process) what comes out."""

import contextlib
import fcntl
import os
import resource
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, TypedDict

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from harness.artefact import events, gpus
from harness.artefact.call import KEPT, StageCall, StageResult
from harness.artefact.manifest import MetricValue
from harness.common.device_faults import gpu_room, memory_for
from harness.errors import HarnessError, InputError
from harness.modeling.load import (
    available_device,
    device_name,
    most_positions,
    precision_notes,
    shape_of,
)
from harness.modeling.memory.shapes import Shape
from harness.spec.model_source import ModelSource
from harness.spec.template import Template
from harness.spec.train import Train
from harness.train import arithmetic, checkpoints, micro_batching
from harness.train import model as models
from harness.train.callback import Watch
from harness.train.data import Data
from harness.train.loop import Trainer, train
from harness.train.ops import prepare_triton
from harness.train.run import LOG, MODEL, last_loss
from harness.train.tokenizer_files import Beside, write_beside

FEW = 30
"""Held-out examples, below which a note says that they are few."""


def train_here(
    call: StageCall,
    params: Train,
    source: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    rank: int = 0,
    processes: int = 1,
) -> StageResult:
    """Train in this process, as one of `processes`; all of them leave what the first one says."""
    logging.disable_progress_bar()
    device = available_device()
    if device != "cuda" and (setting := params.of_gpus_alone()):
        raise InputError(f"{setting}, and none is used here")
    if params.liger_kernels:
        prepare_triton()
    notes = precision_notes(device, params.precision) if rank == 0 else []
    threads = _make_repeatable(device, params, processes)
    shape = shape_of(source, call.inputs, len(tokenizer))
    fits = partial(_what_fits, params, shape, data, device)
    with memory_for("training", fits):
        loading = memory_for("loading the model", partial(fits, loading=True))
        with loading, _in_turn(call, source, processes):
            model = models.load(source, call.inputs, tokenizer, params, device)
        parameters = model.num_parameters()
        _check_lengths(data, most_positions(model))
        trainer, watch = train(
            model, tokenizer, data, params, call.folder, call.folder / LOG, device, rank, processes
        )
    machines = _machines(params, processes)
    with memory_for("writing the model", checkpoints.way_on):
        beside = _save(trainer, tokenizer, call, params, source, rank)
    differing = arithmetic.why_not_repeatable(device, params, trainer.model, processes)
    dealt = micro_batching.read(call.folder)
    differing += micro_batching.why_not_repeatable(dealt)
    used = {
        "parameters": parameters,
        "trained_parameters": _trained(trainer.model),
        "device": device_name(device),
        "processes": processes,
        **({"machines": machines} if machines else {}),
        "threads": threads,
        "packed": trainer.schedule.packed,
        "deterministic": not differing,
        "tf32": params.tf32,
        "tokens_per_second": round(watch.tokens_per_second(), 1),
        "peak_memory_bytes": _peak_memory(device),
        "checkpoints": watch.saves,
        "checkpoint_seconds": round(watch.save_seconds, 3),
        "train_seconds": round(watch.seconds(), 3),
    }
    result = _result(call, params, source, data, watch, device)
    result.used = used | result.used
    result.notes += [*notes, *beside.notes]
    result.notes += [f"the same training may give other weights: {why}" for why in differing]
    if any(entry.of_a_step != params.accumulation for entry in dealt):
        result.used["micro_batches"] = micro_batching.record(dealt, params, len(watch.steps))
        result.notes += [
            micro_batching.note(each, params)
            for each in result.used["micro_batches"]
            if each["of_a_step"] != params.accumulation
        ]
    if params.keep:
        result.used["kept_steps"] = params.keep
    if beside.stop:
        result.used["stop_texts"] = beside.stop
    return result


def _result(
    call: StageCall,
    params: Train,
    source: ModelSource,
    data: Data,
    watch: Watch,
    device: str,
) -> StageResult:
    metrics = {"train_loss": MetricValue(value=last_loss(call.folder / LOG))}
    if watch.held_out is not None and data.held_out is not None:
        nats, bits, tokens, size = watch.held_out
        loss = MetricValue(value=nats, examples=len(data.held_out), tokens=tokens)
        metrics["held_out_loss"] = loss
        metrics["bits_per_byte"] = MetricValue(
            value=bits, examples=loss.examples, tokens=tokens, bytes=size
        )
    seeds, notes = {"train": params.seed}, []
    if source.random is not None:
        seeds["model"] = source.random.seed
        notes.append("the base model had random weights")
    if data.held_out is not None and len(data.held_out) < FEW:
        notes.append(f"only {len(data.held_out)} held-out examples: their loss says little")
    if params.quantization is not None and params.lora is not None and params.lora.merge:
        notes.append(
            "the adapter was trained on the quantised base and added to the unquantised one: another "
            "model than the one whose losses are logged"
        )
    if not params.append_end:
        notes.append("answers were trained without an end: the model did not learn to end one")
    notes += data.counts.notes(params.cutoff_length)
    return StageResult(
        keep=[MODEL, LOG, *[KEPT] * bool(params.keep)],
        metrics=metrics,
        counts={
            **asdict(data.counts),
            "steps": len(watch.steps),
            "tokens": watch.tokens,
            "prompt_tokens": watch.prompt_tokens,
        },
        used={} if source.random is None else {"base_model": "random"},
        cost={"gpu_seconds": round(watch.seconds(), 3) if device == "cuda" else 0.0},
        seeds=seeds,
        simulated=["teacher"] if data.simulated else [],
        notes=notes,
    )


def _make_repeatable(device: str, params: Train, processes: int) -> int:
    """The same call gives the same weights on the same machine. Returns the number of threads."""
    if device == "cuda":
        if processes == 1 and torch.cuda.device_count() > 1:
            raise HarnessError(
                f"this process sees {torch.cuda.device_count()} GPUs, and the row trains on one",
                "`harness run` shows a stage its own alone. Where you start harness.stage yourself, "
                "set CUDA_VISIBLE_DEVICES=0.",
            )
        arithmetic.prepare(params, processes)
    torch.manual_seed(params.seed)
    if params.threads is not None:
        torch.set_num_threads(params.threads)
    elif processes > 1:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // params.launch.processes))
    return int(torch.get_num_threads())


def _check_lengths(data: Data, limit: int | None) -> None:
    longest = data.train.longest()
    if limit is not None and longest > limit:
        raise InputError(
            f"the longest example has {longest} tokens, the model takes {limit}",
            f"Set train.cutoff_length to {limit} or less.",
        )
    if limit is not None and data.held_out is not None and data.held_out.longest() > limit:
        raise InputError(
            f"the longest held-out example has {data.held_out.longest()} tokens, the model takes "
            f"{limit}, and held-out examples are never cut",
            "Leave it out of the data set, or hold out others with train.validation.seed.",
        )


class _Machine(TypedDict):
    rank: int
    gpus: list[dict[str, object]]


def _machines(params: Train, processes: int) -> list[_Machine]:
    """Of several machines the GPUs of each, by its rank; all processes ask together. The call knows
    those of the machine that began."""
    if params.launch.machines == 1:
        return []
    first = os.environ["LOCAL_RANK"] == "0"
    here = {"rank": int(os.environ["GROUP_RANK"]), "gpus": gpus.record(gpus.visible())}
    gathered: list[Any] = [None] * processes
    torch.distributed.all_gather_object(gathered, here if first else None)
    return sorted(filter(None, gathered), key=lambda machine: int(machine["rank"]))


def _trained(model: Any) -> int:
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)


def _peak_memory(device: str) -> int:
    """On a GPU what torch had in use there at the peak; else the process's resident memory."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def _in_turn(call: StageCall, source: ModelSource, processes: int) -> Iterator[None]:
    """Of this machine's processes one at a time, where each makes a whole model on the CPU first:
    random weights. Those of a folder go to the device one by one."""
    if processes == 1 or source.random is None:
        yield
        return
    # Of each machine its own: the work folder is shared between them.
    with (call.folder / f".loading-{socket.gethostname()}").open("a") as file:
        if os.environ.get("LOCAL_RANK") == "0":
            events.note(
                f"{processes} processes make the model's random weights one after the other"
            )
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _what_fits(
    params: Train,
    shape: Shape | None,
    data: Data,
    device: str,
    of_the_cpu: bool,
    loading: bool = False,
) -> str:
    """What to do where memory did not suffice."""
    from harness.modeling.memory.fit import describe, machine_memory

    if of_the_cpu and device != "cpu":
        zero = params.deepspeed
        offloads = zero is not None and (zero.offload_optimizer or zero.offload_parameters)
        less = "no offloading, with which the training begins anew, or " if offloads else ""
        return checkpoints.way_on(of_the_cpu, less)
    machine, room = machine_memory(), gpu_room()
    memory = machine if room is None else room.total - room.used_by_others
    lengths = data.train.sizes().tolist()
    fits = describe(params, shape or {}, memory, lengths, True, machine, loading)
    return f"{fits} With other settings the training begins anew. {checkpoints.GOES_ON}"


def _save(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    call: StageCall,
    params: Train,
    source: ModelSource,
    rank: int,
) -> Beside:
    started = time.monotonic()
    state = models.gathered(trainer)
    if rank != 0:
        return Beside([], [])
    folder = call.folder / MODEL
    with checkpoints.honest_disk_faults(call.folder):
        models.write(trainer.accelerator.unwrap_model(trainer.model), folder, state)
        kept = [call.folder / KEPT / str(step) / MODEL for step in params.keep]
        if params.lora is not None and params.lora.merge:
            events.note("adding the adapter to the base model")
            del trainer
            for adapter in (*kept, folder):
                models.merge(source, call.inputs, tokenizer, adapter, params.precision)
        template = Template.model_validate(call.params["template"])
        for weights in (*kept, folder):
            beside = write_beside(weights, tokenizer, template, source, call.inputs)
    if time.monotonic() - started > 2:
        events.note(f"the model was written in {time.monotonic() - started:.0f} s")
    return beside
