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
        self.tokens += int((ids != self.job["pad"]).sum())
        self.slots += ids.numel()

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
