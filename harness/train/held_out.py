"""The loss on held-out examples, in nats a token and in bits a byte."""

import math
from typing import Any

import torch

from harness.modeling.load import set_evaluating
from harness.train.batches import collate
from harness.train.data import EncodedExamples
from harness.train.packing import sent

BATCH_TOKENS = 4096


def held_out_loss(
    model: Any, data: EncodedExamples, packed: bool, pad: int, rank: int = 0, processes: int = 1
) -> tuple[float, float, int, int]:
    """(nats a token, bits a byte, answer tokens, answer bytes) of the answers of `data`, of which
    preference data give the chosen ones.

    Bits a byte = nats / ln 2 / UTF-8 bytes of the answers' text: the same text counts the same
    whatever the tokenizer, so models with different ones compare. The end token is counted in the
    nats and has no bytes.
    """
    with torch.no_grad():
        return _measured(model, data, packed, pad, rank, processes)


def _measured(
    model: Any, data: EncodedExamples, packed: bool, pad: int, rank: int, processes: int
) -> tuple[float, float, int, int]:
    was_training = model.training
    chosen = _chosen(data)
    set_evaluating(model)
    nats = torch.zeros(2, dtype=torch.float64, device=_device(model))
    for examples in _batches(chosen)[rank::processes]:
        batch = collate(chosen, examples, packed, pad)
        # Not the mask itself: its length would have to be read back from a GPU.
        answer = sent(batch.answer.nonzero().flatten(), nats.device)
        batch = batch.to(nats.device)
        losses = model(**batch.inputs, label_at=batch.label_at, targets=batch.targets, each=True)
        nats += torch.stack([losses[answer].double().sum(), batch.answer.sum().double()])
    if processes > 1:
        torch.distributed.all_reduce(nats)
    if was_training:
        model.train()
    size = int(chosen.answer_bytes.sum())
    total, tokens = float(nats[0]), int(nats[1])
    return total / tokens, total / math.log(2) / max(size, 1), tokens, size


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device


def _chosen(data: EncodedExamples) -> EncodedExamples:
    """Of pairs, the chosen answers alone."""
    if not data.pairs:
        return data
    import numpy as np

    parts = [data.sequences(example)[0] for example in range(len(data))]
    return EncodedExamples(
        np.concatenate([ids for ids, _ in parts]),
        np.concatenate([marks for _, marks in parts]),
        np.cumsum([0, *(len(ids) for ids, _ in parts)]),
        data.answer_bytes[0::2],
    )


def _batches(data: EncodedExamples) -> list[list[int]]:
    """Examples of like length together, the longest first."""
    sizes = data.sizes()
    batches: list[list[int]] = []
    room = 0
    for example in sorted(range(len(data)), key=lambda i: (-int(sizes[i]), i)):
        if not batches or room < sizes[example]:
            batches.append([])
            room = BATCH_TOKENS
        batches[-1].append(example)
        room -= int(sizes[example])
    return batches
