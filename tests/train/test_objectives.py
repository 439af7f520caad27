"""ORPO's loss is TRL's, and a step's loss does not depend on how its examples are split."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from trl.experimental.orpo import ORPOTrainer

from harness.spec.train import Train
from harness.train.batches import MicroBatch, collate
from harness.train.data import ANSWER, COUNTED, EncodedExamples
from harness.train.model import choose_path
from harness.train.objectives import loss_parts, parts_of
from tests.train.test_packing import a_model, gradients, sequences

ORPO = Train.model_validate({"objective": "orpo", "orpo": {"weight": 0.3}})


def preferences(train_on_prompt: bool = False) -> EncodedExamples:
    data = sequences(9, 12, 7, 5, 14, 6, pairs=True)
    if train_on_prompt:
        data.marks |= COUNTED
    return data


def trl_says(model: Any, data: EncodedExamples, weight: float) -> dict[str, float]:
    """What TRL's own trainer computes from the same tokens, padded."""
    batch: dict[str, torch.Tensor] = {}
    for place, name in enumerate(("chosen", "rejected")):
        rows = [data.sequences(n)[place] for n in range(len(data))]
        width = max(len(ids) for ids, _ in rows)
        ids, labels = np.zeros((len(rows), width)), np.full((len(rows), width), -100)
        for row, (tokens, marks) in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            labels[row, : len(tokens)] = np.where(marks & ANSWER, tokens, -100)
        lengths = torch.tensor([len(tokens) for tokens, _ in rows])
        batch[f"{name}_input_ids"] = torch.from_numpy(ids).long()
        batch[f"{name}_labels"] = torch.from_numpy(labels).long()
        batch[f"{name}_attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
    gather = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda value: value)
    trainer: Any = ORPOTrainer.__new__(ORPOTrainer)
    trainer.beta, trainer.is_encoder_decoder, trainer.aux_loss_enabled = weight, False, False
    trainer.padding_value, trainer.accelerator = 0, gather
    loss, metrics = trainer.get_batch_loss_metrics(model, batch)
    return {"loss": float(loss), **{name: float(value) for name, value in metrics.items()}}


def step_of(data: EncodedExamples, parts: list[list[int]], packed: bool) -> list[MicroBatch]:
    batches = [collate(data, part, packed, pad=0) for part in parts]
    for batch in batches:
        batch.step_tokens, batch.step_examples = int(data.counted().sum()), len(data)
    return batches


@pytest.mark.parametrize("packed", [True, False])
def test_orpo_with_the_prompt_counted_is_trls_under_trls_names(packed: bool) -> None:
    model, data = a_model(), preferences(train_on_prompt=True)
    theirs = trl_says(model, data, 0.3)
    assert choose_path(model, packed) is packed
    (batch,) = step_of(data, [[0, 1, 2]], packed)
    ours = dict(zip(parts_of(ORPO), loss_parts(model, batch, ORPO).tolist(), strict=True))
    assert len(ours) == 8
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], rel=1e-5), name


def test_by_default_the_prompt_is_left_out_of_orpos_likelihood() -> None:
    model = a_model()
    assert choose_path(model, True)
    losses = []
    for train_on_prompt in (False, True):
        (batch,) = step_of(preferences(train_on_prompt), [[0, 1, 2]], True)
        losses.append(loss_parts(model, batch, ORPO).tolist())
    assert losses[0][1] != pytest.approx(losses[1][1], rel=1e-3)
    assert losses[0][2:] == pytest.approx(losses[1][2:], rel=1e-5)


@pytest.mark.parametrize("params", [Train(), ORPO], ids=["sft", "orpo"])
def test_a_steps_loss_and_gradient_do_not_depend_on_its_micro_batches(params: Train) -> None:
    data = preferences() if params.objective == "orpo" else sequences(9, 12, 7)
    model = a_model()
    assert choose_path(model, True)
    found = []
    for parts in ([[0, 1, 2]], [[1], [2, 0]]):
        model.zero_grad()
        shares = [loss_parts(model, batch, params) for batch in step_of(data, parts, True)]
        for share in shares:
            share[0].backward()
        found.append((torch.stack(shares).sum(0).detach(), gradients(model)))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-5)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)


def test_a_batch_that_stands_in_for_an_empty_one_adds_nothing() -> None:
    model = a_model()
    assert choose_path(model, True)
    for params, data in ((Train(), sequences(9)), (ORPO, preferences())):
        (batch,) = step_of(data, [[0]], True)
        batch.weight = 0.0
        model.zero_grad()
        parts = loss_parts(model, batch, params)
        parts[0].backward()
        assert not parts.any()
        assert not gradients(model).any()
