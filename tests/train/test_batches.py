"""Micro-batches reach a GPU without waiting, and no step waits for what it computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.train.batches import collate
from harness.train.run import run
from tests.modeling.calls import random_model, train_call
from tests.train.test_packing import sequences

ROWS = [
    {"instruction": f"{n}", "output": f"answer {n} " * 2, "chosen": f"yes {n}", "rejected": "no"}
    for n in range(24)
]
READ_BACK = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
"""Operators for whose result a GPU would be waited for."""


class ReadBacks(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += any(name in str(func) for name in READ_BACK)
        return func(*args, **(kwargs or {}))


def read_backs(folder: Path, **train: Any) -> int:
    """Of a whole training."""
    folder.mkdir()
    names = ("chosen", "rejected") if "objective" in train else ("output",)
    rows = [{n: row[n] for n in ("instruction", *names)} for row in ROWS]
    model = random_model(attention_dropout=0.0)
    call = train_call(folder, rows, model=model, steps=3, batch_size=2, **train)
    with ReadBacks() as found:
        run(call)
    return found.count


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "bfloat16"}, {"objective": "orpo"}, {"method": "lora"}],
    ids=["float32", "bfloat16", "orpo", "lora"],
)
def test_no_micro_batch_reads_back_what_it_computed(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """With three times as many, as many values are read: at the beginning, the logs and the end."""
    few = read_backs(tmp_path / "few", **settings)
    assert read_backs(tmp_path / "many", accumulation=3, **settings) == few > 0


@pytest.mark.parametrize("packed", [True, False])
def test_every_tensor_goes_to_a_gpu_from_pinned_memory_without_waiting(
    packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: set[int] = set()
    sent: list[tuple[bool, bool]] = []

    def pin(self: torch.Tensor) -> torch.Tensor:
        pinned.add(id(self))
        return self

    def to(self: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        assert device.type == "cuda"
        sent.append((id(self) in pinned, non_blocking))
        return self

    batch = collate(sequences(9, 4, 17), range(3), packed, pad=0)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    batch.to(torch.device("cuda"))
    # label_at, targets, sequence, counted, answer; tokens, and where they stand or which are none.
    assert sent == [(True, True)] * (8 if packed else 7)
