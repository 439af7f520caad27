"""On a GPU: the attention kernel for sequences of various lengths, and a training in bfloat16."""

import json
from pathlib import Path

import pytest
import torch

from harness.train import run
from harness.train.model import choose_path
from harness.train.packing import ATTENTION
from tests.modeling.calls import random_model, train_call
from tests.train.test_packing import a_model, gradients, one_by_one, sequences, together

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def test_the_kernel_for_various_lengths_has_the_losses_and_gradients_of_each_alone() -> None:
    data = sequences(90, 4, 170, 6)
    model = a_model(hidden_size=128, max_position_embeddings=256).to("cuda")
    expected = one_by_one(model, data)
    assert choose_path(model, packing=True, precision="bfloat16")
    assert model.config._attn_implementation == ATTENTION
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss, _ = together(model, data, True)
    assert loss == pytest.approx(expected[0], rel=2e-2)
    cosine = torch.nn.functional.cosine_similarity(gradients(model), expected[1], dim=0)
    assert cosine > 0.99


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_training_in_bfloat16_learns_and_says_what_memory_it_took(
    tmp_path: Path, method: str
) -> None:
    model = random_model(hidden_size=128, intermediate_size=256)
    call = train_call(
        tmp_path, model=model, method=method, precision="bfloat16", epochs=20, learning_rate=1e-2
    )
    result = run(call)
    log = [json.loads(line) for line in (call.folder / "trainer_log.jsonl").open()]
    assert [line["step"] for line in log] == list(range(1, 61))
    assert log[-1]["loss"] < log[0]["loss"] / 2
    assert result.used["packed"]
    assert 0 < result.used["peak_memory_bytes"] < torch.cuda.mem_get_info()[1]
