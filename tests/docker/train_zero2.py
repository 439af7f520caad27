"""Run by torchrun in the train image: a few steps of ZeRO-2 with its optimizer on the CPU."""

import json
import os
import sys

import torch
from datasets import Dataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

ZERO_2 = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "weight_decay": "auto"},
    },
}

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
)
rows = torch.arange(16).repeat(32, 1).tolist()
trainer = Trainer(
    model,
    TrainingArguments(
        sys.argv[1],
        deepspeed=ZERO_2,
        use_cpu=True,  # without it the processes do not find each other
        per_device_train_batch_size=2,
        max_steps=8,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    ),
    train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}),
    data_collator=default_data_collator,
)
trainer.train()
if trainer.is_world_process_zero():
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    report = {
        "losses": losses,
        "optimizer": type(optimizer).__name__,
        "processes": trainer.args.world_size,
    }
    print(json.dumps(report), flush=True)
# As the harness's own workers end: an orderly end is aborted now and then by the group's threads.
torch.distributed.barrier()
os._exit(0)
