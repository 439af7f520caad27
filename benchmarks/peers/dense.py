"""The dense limit: a plain loop over rows of one length, each full of tokens.

The same weights, and the tokens of the same texts laid end to end and cut into rows of `row`
tokens: no padding, plain causal attention, transformers' own forward pass and loss over every
position, AdamW (fused), the gradient's norm clipped at 1. `batch` rows make a step, `micro` rows a
forward pass. With `labels`, logits and loss are made at that share of the places alone, drawn at
random, as a training on answers needs no others.
"""

from typing import Any

import torch
import watch

job = watch.job()
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402

seen = watch.Watch(job)
tokenizer = PreTrainedTokenizerFast.from_pretrained(job["model"])
ids = [
    token
    for row in watch.examples(job)
    for token in tokenizer(row["instruction"] + " " + row["output"] + "<eos>")["input_ids"]
]
count = job["batch"] * job["row"]
while len(ids) < count * job["steps"]:
    ids += ids
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).train()
seen.count(model.model)
optimizer = torch.optim.AdamW(model.parameters(), lr=job["learning_rate"], fused=True)
losses = []


def loss_of(part: torch.Tensor) -> Any:
    if "labels" not in job:
        return model(input_ids=part, labels=part, use_cache=False).loss
    hidden = model.model(input_ids=part, use_cache=False).last_hidden_state[:, :-1]
    chosen = torch.rand(hidden.shape[:2]) < job["labels"]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[chosen]), part[:, 1:][chosen])


for step in range(job["steps"]):
    rows = torch.tensor(ids[step * count : (step + 1) * count]).view(-1, job["row"])
    parts = rows.split(job["micro"])
    total = 0.0
    for part in parts:
        loss = loss_of(part) / len(parts)
        loss.backward()
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(float(total))
seen.write(losses)
