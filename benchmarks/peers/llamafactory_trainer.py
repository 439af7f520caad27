"""LLaMA-Factory's SFT, or its ORPO, as it stands; float32, no checkpoints.

Rows are rendered by the template `empty`, as they are, with `end` after each answer; or by the one that
`settings`, what else it is given, names. Runs in an environment of its own (benchmarks/README.md).
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
is_orpo = job.get("objective") == "orpo"
answers = ("chosen", "rejected") if is_orpo else ("output",)
rows = [
    {"input": "", **row, **{name: row[name] + job.get("end", "<eos>") for name in answers}}
    for row in watch.examples(job)
]
(folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
about = {"rows": {"file_name": "rows.json"}}
if is_orpo:
    about["rows"] |= {
        "ranking": True,
        "columns": {"prompt": "instruction", **{n: n for n in answers}},
    }
(folder / "dataset_info.json").write_text(json.dumps(about), encoding="utf-8")


class Look(TrainerCallback):
    history: list[dict[str, float]] = []  # noqa: RUF012
    rows = there = 0

    def on_train_begin(self, args, state, control, model, train_dataloader, **kwargs):
        seen.count(model)
        columns = [n for n in train_dataloader.dataset.column_names if n.endswith("input_ids")]
        texts = [ids for name in columns for ids in train_dataloader.dataset[name]]
        self.rows = len(texts)
        self.there = sum(token != job["pad"] for ids in texts for token in ids)

    def on_log(self, args, state, control, logs, **kwargs):
        self.history.append(dict(logs))


look = Look()
run_exp(
    {
        "model_name_or_path": job["model"],
        **({"stage": "dpo", "pref_loss": "orpo"} if is_orpo else {"stage": "sft"}),
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "empty",
        "cutoff_len": job["cutoff"],
        "max_steps": job["steps"],
        "per_device_train_batch_size": job["micro"],
        "gradient_accumulation_steps": job["batch"] // job["micro"],
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "output_dir": str(folder / "out"),
        **watch.schedule(job),
        **job.get("settings", {}),
    },
    callbacks=[look],
)
seen.write(seen.losses_from(look.history), there=look.there, rows=look.rows)
