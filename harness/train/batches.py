"""Micro-batches as tensors: one flat row without padding, or rows padded on the right."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.train.data import ANSWER, COUNTED, Array, EncodedExamples
from harness.train.packing import Inputs, Lengths, sent
from harness.train.schedule import Step


@dataclass
class MicroBatch:
    """One micro-batch. Its N labels are all tokens that any part of the loss needs.

    inputs: what the model is called with. label_at: (N,), the place before each label in the
    flattened batch; targets: (N,), the labels. sequence: (N,), the sequence of each label; counted
    and answer: (N,), whether it enters the likelihood, whether it is part of the answer.
    """

    inputs: Inputs
    label_at: Tensor
    targets: Tensor
    sequence: Tensor
    counted: Tensor
    answer: Tensor
    sequences: int
    tokens: int
    """Real ones, padding left out."""
    weight: float = 1.0
    """0 for a batch that only stands in for an empty one."""
    step_tokens: int = 1
    """Tokens in the likelihood over the whole optimizer step."""
    step_examples: int = 1

    def to(self, device: torch.device) -> "MicroBatch":
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = sent(value, device)
        moved["inputs"] = {
            n: v.to(device) if isinstance(v, Lengths) else sent(v, device)
            for n, v in self.inputs.items()
        }
        return MicroBatch(**moved)


def collate(data: EncodedExamples, examples: Sequence[int], packed: bool, pad: int) -> MicroBatch:
    """The examples' sequences as one batch; for pairs, chosen and rejected by turns."""
    sequences = [s for example in examples for s in data.sequences(example)]
    lengths = [len(ids) for ids, _ in sequences]
    width = max(lengths)
    starts = np.cumsum([0, *lengths[:-1]]) if packed else np.arange(len(lengths)) * width
    at, targets, numbers, marks = [], [], [], []
    for number, ((ids, mark), start) in enumerate(zip(sequences, starts, strict=True)):
        is_counted = (number % data.each == 0) & ((mark & COUNTED) > 0)
        labels = np.flatnonzero((is_counted | ((mark & ANSWER) > 0))[1:]) + 1
        at.append(labels - 1 + start)
        targets.append(ids[labels])
        numbers.append(np.full(len(labels), number))
        marks.append(np.where(is_counted, mark, mark & ~np.uint8(COUNTED))[labels])
    mark = _tensor(np.concatenate(marks))
    return MicroBatch(
        _flat(sequences, lengths) if packed else _padded(sequences, lengths, pad),
        _tensor(np.concatenate(at)),
        _tensor(np.concatenate(targets)),
        _tensor(np.concatenate(numbers)),
        (mark & COUNTED) > 0,
        (mark & ANSWER) > 0,
        len(sequences),
        sum(lengths),
    )


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))


def _flat(sequences: list[tuple[Array, Array]], lengths: list[int]) -> Inputs:
    positions = np.concatenate([np.arange(n) for n in lengths])
    return {
        "input_ids": _tensor(np.concatenate([ids for ids, _ in sequences]))[None],
        "position_ids": _tensor(positions)[None],
        "packed": Lengths.of(lengths),
    }


def _padded(sequences: list[tuple[Array, Array]], lengths: list[int], pad: int) -> Inputs:
    shape = len(sequences), max(lengths)
    ids, mask = np.full(shape, pad), np.zeros(shape)
    for row, (tokens, _) in enumerate(sequences):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return {"input_ids": _tensor(ids), "attention_mask": _tensor(mask)}


class Schedule(Dataset[MicroBatch]):  # type: ignore[misc]
    """The micro-batches of one process, over all steps, in order."""

    def __init__(
        self,
        data: EncodedExamples,
        steps: list[Step],
        packed: bool,
        pad: int,
        rank: int,
        processes: int,
    ) -> None:
        self.data, self.packed, self.pad = data, packed, pad
        self.shortest = int(np.argmin(data.sizes()))
        self.batches = [
            (examples, step) for step in steps for examples in step.micro_batches[rank::processes]
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> MicroBatch:
        examples, step = self.batches[number]
        batch = collate(self.data, examples or [self.shortest], self.packed, self.pad)
        batch.weight = 1.0 if examples else 0.0
        batch.step_tokens, batch.step_examples = step.tokens, step.examples
        return batch

    def loader(self) -> "DataLoader[MicroBatch]":
        return DataLoader(self, batch_size=1, shuffle=False, collate_fn=lambda items: items[0])
