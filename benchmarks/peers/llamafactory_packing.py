"""LLaMA-Factory's SFT with its packing on; `neat`: without attention from one example to another.

Runs in an environment of its own (benchmarks/README.md says how to make it).
"""

import importlib.machinery
import json
import os
import sys
import types
from pathlib import Path

import watch

job = watch.job()
os.environ.update(DISABLE_VERSION_CHECK="1", USE_MODELSCOPE_HUB="0")
# Imported for speech, which is not trained here; its wheel needs CUDA's libraries.
audio = types.ModuleType("torchaudio")
audio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = audio

from llamafactory.train.tuner import run_exp  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

seen = watch.Watch(job)
folder = Path(job["work"])
folder.mkdir(parents=True, exist_ok=True)
rows = [{**row, "output": row["output"] + "<eos>"} for row in watch.examples(job)]
(folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
about = {"rows": {"file_name": "rows.json"}}
(folder / "dataset_info.json").write_text(json.dumps(about), encoding="utf-8")


class Look(TrainerCallback):
    history: list[dict[str, float]] = []  # noqa: RUF012
    rows = there = 0

    def on_train_begin(self, args, state, control, model, train_dataloader, **kwargs):
        seen.count(model)
        packed = train_dataloader.dataset["input_ids"]
        self.rows = len(packed)
        self.there = sum(token != job["pad"] for ids in packed for token in ids)

    def on_log(self, args, state, control, logs, **kwargs):
        self.history.append(dict(logs))


look = Look()
run_exp(
    {
        "model_name_or_path": job["model"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "empty",
        "cutoff_len": job["cutoff"],
        "packing": True,
        "neat_packing": job["neat"],
        "disable_gradient_checkpointing": not job["gradient_checkpointing"],
        "max_steps": job["steps"],
        "per_device_train_batch_size": job["micro"],
        "gradient_accumulation_steps": job["batch"] // job["micro"],
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "output_dir": str(folder / "out"),
    },
    callbacks=[look],
)
seen.write(seen.losses_from(look.history), there=look.there, rows=look.rows)
