"""TRL's SFTTrainer, or its ORPOTrainer, as it stands; float32, no checkpoints.

A row's prompt and answer are texts, or with `chat` turns of a chat, which TRL renders by the
tokenizer's own template. `settings`: what else its configuration is given.
"""

import watch

job = watch.job()
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

Config, Trainer = SFTConfig, SFTTrainer
answers = {"completion": "output"}
if job.get("objective") == "orpo":
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    Config, Trainer = ORPOConfig, ORPOTrainer
    answers = {"chosen": "chosen", "rejected": "rejected"}


def turn(role, text):
    return [{"role": role, "content": text}] if job.get("chat") else text


Trainer._send_telemetry = lambda self: None
seen = watch.Watch(job)
rows = [
    {"prompt": turn("user", row["instruction"] + job.get("between", ""))}
    | {name: turn("assistant", row[ours]) for name, ours in answers.items()}
    for row in watch.examples(job)
]
trainer = Trainer(
    model=AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32"),
    args=Config(
        output_dir=job["work"],
        max_steps=job["steps"],
        per_device_train_batch_size=job["micro"],
        gradient_accumulation_steps=job["batch"] // job["micro"],
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **watch.schedule(job),
        **{"max_length": job["cutoff"], **job.get("settings", {})},
    ),
    train_dataset=Dataset.from_list(rows),
    processing_class=AutoTokenizer.from_pretrained(job["model"]),
)
columns = [name for name in trainer.train_dataset.column_names if name.endswith("input_ids")]
there = sum(len(ids) for name in columns for ids in trainer.train_dataset[name])
seen.count(trainer.model)
trainer.train()
seen.write(seen.losses_from(trainer.state.log_history), there=there)
