"""The `train` stage: full supervised fine-tuning of a causal language model on answers.

Every parameter is a field of harness.spec.models.Train. What decides the weights beside them: the
data's bytes, the tokenizer, the library versions, the kind of device and (on a CPU) the number of
threads. `bfloat16` is mixed precision: the weights and the optimizer stay in float32.

Raises InputError for a data set, a model or a template that cannot be used as it stands,
HarnessError where the loss is no longer a number, and OSError for a full disk.
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from harness.call import StageCall, StageResult
from harness.errors import HarnessError, InputError
from harness.modeling.load import (
    available_device,
    device_name,
    load_model,
    load_tokenizer,
    most_positions,
)
from harness.spec.models import ModelSource, Template, Train
from harness.train import checkpoints
from harness.train.data import Encoded, data_file, encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODEL = "model"
LOG = "trainer_log.jsonl"


def run(call: StageCall) -> StageResult:
    """Train, or go on training from the last finished checkpoint in the work folder."""
    params = Train.model_validate(call.params["train"])
    source = ModelSource.model_validate(call.params["model"])
    template = Template.model_validate(call.params["template"])

    tokenizer = load_tokenizer(source, call.inputs)
    data = encode(data_file(call), template, tokenizer, params.cutoff_length)

    device = available_device()
    threads = _make_repeatable(device, params.threads)
    model = load_model(source, call.inputs, tokenizer, "float32", device)
    _check_lengths(data, most_positions(model))

    from transformers.utils import logging

    from harness.train.loop import train

    logging.disable_progress_bar()
    log = call.folder / LOG
    watch = train(model, tokenizer, data, params, call.folder, log, use_cpu=device == "cpu")
    _save(model, tokenizer, call.folder / MODEL)

    used = {
        "parameters": model.num_parameters(),
        "device": device_name(device),
        "threads": threads,
        "tokens_per_second": round(watch.tokens_per_second(), 1),
    }
    notes = []
    if source.random is not None:
        used["base_model"] = "random"
        notes.append("the base model had random weights")
    return StageResult(
        keep=[MODEL, LOG],
        metrics={"train_loss": {"value": _last_loss(log)}},
        counts={
            "records": data.records,
            "examples": len(data.input_ids),
            "dropped_empty": data.dropped_empty,
            "dropped_cut": data.dropped_cut,
            "truncated": data.truncated,
            "steps": watch.steps,
            "tokens": watch.tokens,
            "prompt_tokens": watch.prompt_tokens,
        },
        used=used,
        cost={"gpu_seconds": round(watch.seconds(), 3) if device == "cuda" else 0.0},
        seeds={"train": params.seed}
        | ({"model": source.random.seed} if source.random is not None else {}),
        simulated=["teacher"] if data.simulated else [],
        notes=notes,
    )


def _make_repeatable(device: str, threads: int | None) -> int:
    """The same call gives the same weights on the same machine. Returns the number of threads."""
    import torch

    if device == "cuda":
        if torch.cuda.device_count() > 1:
            raise HarnessError(
                f"there are {torch.cuda.device_count()} GPUs and training runs on one",
                "Choose it: set CUDA_VISIBLE_DEVICES=0.",
            )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    if threads is not None:
        torch.set_num_threads(threads)
    return int(torch.get_num_threads())


def _check_lengths(data: Encoded, limit: int | None) -> None:
    longest = max(len(ids) for ids in data.input_ids)
    if limit is not None and longest > limit:
        raise InputError(
            f"the longest example has {longest} tokens, the model takes {limit}",
            f"Set train.cutoff_length to {limit} or less.",
        )


def _save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    with checkpoints.honest_disk_faults(folder.parent):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _last_loss(log: Path) -> float:
    return float(json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["loss"])
