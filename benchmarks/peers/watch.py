"""What every contender of train_speed.py is measured by: the same two hooks, in its own process.

Each script here is called as `python SCRIPT JOB.json` and leaves its figures in the job's `out`.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


class Watch:
    """Notes the time (wall, and of the processor) of each optimizer step's end, and the tokens that
    the model was given."""

    def __init__(self, job: dict[str, Any]):
        self.job = job
        self.tokens = 0
        self.slots = 0
        self.ends: list[dict[str, float]] = []
        torch.set_num_threads(job["threads"])
        register_optimizer_step_post_hook(self._stepped)

    def count(self, model: torch.nn.Module) -> None:
        """Count what each forward pass gets; where nothing is counted, the caller does."""
        model.register_forward_pre_hook(self._given, with_kwargs=True)

    def losses_from(self, history: list[dict[str, Any]]) -> list[float]:
        return [line["loss"] for line in history if "loss" in line]

    def write(self, losses: list[float], **more: Any) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        said = {"ends": self.ends, "losses": losses, "peak_mib": round(peak), **more}
        Path(self.job["out"]).write_text(json.dumps(said), encoding="utf-8")

    def _given(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        self.tokens += self._real(ids, kwargs.get("attention_mask"))
        self.slots += ids.numel()

    def _real(self, ids: torch.Tensor, mask: torch.Tensor | None) -> int:
        """Tokens that are no padding. Without a pad token of its own a mask says which, by row or (0,
        or true, where a token sees itself) by place; without a mask all are."""
        if self.job["pad"] is not None:
            return int((ids != self.job["pad"]).sum())
        if mask is None:
            return ids.numel()
        if mask.dim() == 2:
            return int((mask != 0).sum())
        itself = mask.diagonal(dim1=-2, dim2=-1)
        return int((itself if mask.dtype == torch.bool else itself == 0).sum())

    def _stepped(self, *_: Any) -> None:
        now, cpu = time.perf_counter(), time.process_time()
        self.ends.append({"at": now, "cpu": cpu, "tokens": self.tokens, "slots": self.slots})


def job() -> dict[str, Any]:
    """The job named on the command line. Nothing reaches a network."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", WANDB_DISABLED="true")
    said: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return said


def examples(said: dict[str, Any]) -> list[dict[str, str]]:
    with Path(said["data"]).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def schedule(said: dict[str, Any]) -> dict[str, Any]:
    """The rate of learning; a peer's own where the job has none."""
    if said["learning_rate"] is None:
        return {}
    return {"learning_rate": said["learning_rate"], "lr_scheduler_type": said["scheduler"]}
