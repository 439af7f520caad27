"""On a GPU: the attention kernel for sequences of various lengths, and a training in bfloat16."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.attention.varlen

from harness.train.loop import GPU_LOG_STEPS
from harness.train.model import choose_path
from harness.train.packing import ATTENTION, Lengths, packed_attention
from harness.train.run import run
from tests.modeling.calls import log_of, random_model, train_call
from tests.train.test_packing import a_model, gradients, one_by_one, sequences, together

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A value for each call of the kernel: whether it is of a training step."""
    calls: list[bool] = []
    plain = torch.nn.attention.varlen.varlen_attn

    def counted(query: torch.Tensor, *rest: Any, **more: Any) -> Any:
        calls.append(torch.is_grad_enabled())
        return plain(query, *rest, **more)

    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", counted)
    return calls


def grouped_model() -> dict[str, Any]:
    """Heads of 64, two for each head of keys, and no dropout, which the kernel has not."""
    return random_model(
        hidden_size=256, intermediate_size=512, num_attention_heads=4, attention_dropout=0.0
    )


def test_the_kernel_for_various_lengths_has_the_losses_and_gradients_of_each_alone(
    kernel_calls: list[bool],
) -> None:
    data = sequences(90, 4, 170, 6)
    model = a_model(hidden_size=128, max_position_embeddings=256).to("cuda")
    expected = one_by_one(model, data)
    assert choose_path(model, packing=True, precision="bfloat16")
    assert model.config._attn_implementation == ATTENTION
    kernel_calls.clear()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss, _ = together(model, data, True)
    assert kernel_calls == [True] * 2
    assert loss == pytest.approx(expected[0], rel=2e-2)
    cosine = torch.nn.functional.cosine_similarity(gradients(model), expected[1], dim=0)
    assert cosine > 0.99


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_training_in_bfloat16_learns_by_the_kernel_and_says_what_memory_it_took(
    tmp_path: Path, method: str, kernel_calls: list[bool]
) -> None:
    call = train_call(
        tmp_path, model=grouped_model(), method=method, precision="bfloat16", epochs=20,
        learning_rate=1e-2,
    )  # fmt: skip
    result = run(call)
    assert kernel_calls.count(True) == 2 * 60, "once a layer and micro-batch"
    log = log_of(call)
    assert [line["step"] for line in log] == list(range(1, 61))
    assert log[-1]["loss"] < log[0]["loss"] / 2
    assert result.used["packed"]
    assert 0 < result.used["peak_memory_bytes"] < torch.cuda.mem_get_info()[1]


def waits(folder: Path, steps: int, **settings: Any) -> int:
    """How often the GPU was waited for, over a whole training."""
    folder.mkdir()
    call = train_call(
        folder, model=grouped_model(), precision="bfloat16", steps=steps, batch_size=2,
        merge_micro_batches=False, **settings,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode(1)
        try:
            run(call)
        finally:
            torch.cuda.set_sync_debug_mode(0)
    return sum("synchroniz" in str(warning.message) for warning in found)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_between_two_logs_no_step_and_no_micro_batch_waits_for_the_gpu(
    tmp_path: Path, method: str
) -> None:
    few = waits(tmp_path / "few", 1, method=method)
    assert waits(tmp_path / "longer", GPU_LOG_STEPS - 1, method=method) == few
    assert waits(tmp_path / "split", GPU_LOG_STEPS - 1, method=method, accumulation=3) == few


def peak_of_attention(length: int, heads: int, key_heads: int) -> int:
    """Bytes, of one example in float32, forward and backward, without the inputs."""
    shapes = ((1, h, length, 64) for h in (heads, key_heads, key_heads))
    inputs = [torch.randn(shape, device="cuda", requires_grad=True) for shape in shapes]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    lengths = Lengths.of([length]).to(torch.device("cuda"))
    out, _ = packed_attention(torch.nn.Module(), *inputs, None, packed=lengths)
    out.sum().backward()
    return torch.cuda.max_memory_allocated() - before


def test_the_memory_of_grouped_heads_in_float32_is_linear_in_the_length() -> None:
    short, long = (peak_of_attention(n, 14, 2) for n in (1024, 4096))
    assert long < 5 * short
    scores = 14 * 4096 * 4096 * 4
    assert long < scores / 2


def test_a_step_with_room_goes_through_the_model_at_once(
    tmp_path: Path, kernel_calls: list[bool]
) -> None:
    call = train_call(
        tmp_path, model=grouped_model(), precision="bfloat16", steps=3, batch_size=2, accumulation=4
    )
    used = run(call).used
    assert used["micro_batches"] == [{"steps": [1, 3], "of_a_step": 1, "examples": 8}]
    assert kernel_calls.count(True) == 2 * 3
