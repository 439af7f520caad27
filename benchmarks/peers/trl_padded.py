"""TRL's SFTTrainer as it stands: padded batches, loss on the completion; float32, no checkpoints."""

import watch

job = watch.job()
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

SFTTrainer._send_telemetry = lambda self: None
seen = watch.Watch(job)
rows = [
    {"prompt": row["instruction"] + " ", "completion": row["output"]} for row in watch.examples(job)
]
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32"),
    args=SFTConfig(
        output_dir=job["work"],
        max_steps=job["steps"],
        per_device_train_batch_size=job["micro"],
        gradient_accumulation_steps=job["batch"] // job["micro"],
        max_length=job["cutoff"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type="constant",
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **({} if job["gradient_checkpointing"] else {"gradient_checkpointing": False}),
    ),
    train_dataset=Dataset.from_list(rows),
    processing_class=PreTrainedTokenizerFast.from_pretrained(job["model"]),
)
there = sum(len(ids) for ids in trainer.train_dataset["input_ids"])
seen.count(trainer.model)
trainer.train()
seen.write(seen.losses_from(trainer.state.log_history), there=there)
