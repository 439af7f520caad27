"""Folders as trainers leave them, made by playing a trainer's counting: no training, no copied data."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.audit import audit_paths
from harness.audit.model import Result

SETTINGS = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
}


def played(
    examples: int,
    batch: int,
    accumulation: int,
    devices: int,
    epochs: float,
    drop_last: bool = False,
    ends: str = "part",
) -> Iterator[tuple[int, float]]:
    """(step, epoch) after each optimizer step. `ends`: what becomes of the micro-batches at an epoch's
    end that do not fill a step: a `part` step, `carried` over, or `left` out."""
    per_batch = batch * devices
    count = examples // per_batch if drop_last else math.ceil(examples / per_batch)
    steps_per_epoch = count // accumulation + (ends == "part" and count % accumulation > 0)
    planned = math.ceil(epochs * max(steps_per_epoch, 1))
    step = gathered = epoch = 0
    while step < planned:
        if ends != "carried":
            gathered = 0
        for micro in range(1, count + 1):
            gathered += 1
            last = micro == count and (ends == "part" or count <= accumulation)
            if gathered == accumulation or last:
                gathered, step = 0, step + 1
                yield step, epoch + micro / count
                if step == planned:
                    return
        epoch += 1


def audited(folder: Path, data: Path | None = None) -> Result:
    (result,) = audit_paths([folder], training_data=data)
    return result


def kinds(result: Result) -> list[str]:
    return [finding.kind for finding in result.findings]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_training(
    folder: Path,
    examples: int,
    batch: int = 8,
    accumulation: int = 1,
    devices: int = 1,
    epochs: float = 3.0,
    drop_last: bool = False,
    ends: str = "part",
    every: int = 10,
    decimals: int | None = None,
    tool: str = "transformers",
    seconds: float | None = None,
) -> list[tuple[int, float]]:
    """A log as `transformers` (trainer_state.json) or `llama_factory` (trainer_log.jsonl) writes it,
    with a line every so many steps. `seconds`: with a summary of the speed."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = list(played(examples, batch, accumulation, devices, epochs, drop_last, ends))
    planned = steps[-1][0]
    lines: list[dict[str, Any]] = [
        {"step": step, "epoch": epoch if decimals is None else round(epoch, decimals),
         "loss": round(3 / (1 + step), 4), "learning_rate": 1e-5}
        for step, epoch in steps if step % every == 0
    ]  # fmt: skip
    end = steps[-1][1] if decimals is None else round(steps[-1][1], decimals)
    summary: dict[str, Any] = {"epoch": end, "train_loss": 0.5}
    if seconds is not None:
        summary |= {
            "train_runtime": round(seconds, 4),
            "train_samples_per_second": round(examples * epochs / seconds, 3),
            "train_steps_per_second": round(planned / seconds, 3),
        }
    if tool == "transformers":
        state = {
            "epoch": steps[-1][1],
            "global_step": planned,
            "max_steps": planned,
            "num_train_epochs": math.ceil(epochs),
            "train_batch_size": batch,
            "best_metric": None,
            "log_history": [*lines, {"step": planned, **summary}],
        }
        (folder / "trainer_state.json").write_text(json.dumps(state))
    else:
        log_lines = [
            {"current_steps": line["step"], "total_steps": planned, "loss": line["loss"],
             "epoch": line["epoch"], "percentage": round(100 * line["step"] / planned, 2),
             "elapsed_time": "0:01:00", "remaining_time": "0:00:00"}
            for line in lines
        ]  # fmt: skip
        log_lines.append({"current_steps": planned, "total_steps": planned, "epoch": end,
                     "percentage": 100.0})  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in log_lines)
        (folder / "trainer_log.jsonl").write_text(text)
        (folder / "train_results.json").write_text(json.dumps(summary))
    return steps


def write_arguments(folder: Path, form: str = "yaml", **arguments: Any) -> Path:
    """The settings of a training as a YAML file, JSON, a shell script or a model card."""
    folder.mkdir(parents=True, exist_ok=True)
    if form == "yaml":
        path, text = folder / "train.yaml", "".join(f"{k}: {v}\n" for k, v in arguments.items())
    elif form == "json":
        path, text = folder / "training_args.json", json.dumps(arguments)
    elif form == "sh":
        flags = " \\\n    ".join(f"--{k} {v}" for k, v in arguments.items() if k != "devices")
        device_numbers = ",".join(str(n) for n in range(arguments.get("devices", 1)))
        path = folder / "run.sh"
        text = f"CUDA_VISIBLE_DEVICES={device_numbers} python src/train_bash.py \\\n    {flags}\n"
    else:
        path = folder / "README.md"
        text = "# A model\n\n### Training hyperparameters\n\nThe following were used:\n" + "".join(
            f"- {k}: {v}\n" for k, v in arguments.items()
        )
    path.write_text(text)
    return path


def write_rows(path: Path, count: int, empty: int = 0) -> Path:
    """A data set of so many different rows, the last `empty` of them without an answer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"instruction": f"Name number {n}.", "input": "",
         "output": "" if n >= count - empty else f"It is {n}."}
        for n in range(count)
    ]  # fmt: skip
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path
