"""The same bits each time, or a refusal that names the operator; TF32 where it is asked for."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers.models.qwen2 import modeling_qwen2

from harness.artefact.keys import Files, key_view
from harness.errors import InputError
from harness.row.settings import is_compared
from harness.spec.model_source import ModelSource
from harness.spec.train import Train
from harness.train import arithmetic, model, process
from harness.train.run import run
from tests.modeling.calls import random_model, train_call


@pytest.fixture(autouse=True)
def torchs_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As they were before, afterwards; of the variables none is set."""
    monkeypatch.delenv(arithmetic.WORKSPACE, raising=False)
    monkeypatch.delenv(arithmetic.ALGORITHM, raising=False)
    products, convolutions = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of Ampere's time."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A Card")


@pytest.mark.usefixtures("card")
def test_on_a_gpu_only_kernels_of_the_same_bits_are_allowed_and_not_merely_warned_of() -> None:
    process._make_repeatable("cuda", Train(threads=1), 1)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "NCCL_ALGO" not in os.environ
    process._make_repeatable("cuda", Train(threads=1, deterministic=False), 1)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("card")
def test_several_gpus_sum_their_gradients_along_a_ring_unless_nccl_is_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process._make_repeatable("cuda", Train(threads=1, deterministic=False), 2)
    assert "NCCL_ALGO" not in os.environ
    process._make_repeatable("cuda", Train(threads=1), 2)
    assert os.environ["NCCL_ALGO"] == "Ring"
    monkeypatch.setenv("NCCL_ALGO", "Tree")
    process._make_repeatable("cuda", Train(threads=1), 2)
    assert os.environ["NCCL_ALGO"] == "Tree"


@pytest.mark.usefixtures("card")
def test_a_setting_of_cublas_that_undoes_the_rows_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    arithmetic.prepare(Train(), 1)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    arithmetic.prepare(Train(deterministic=False), 1)
    with pytest.raises(InputError, match=r"CUBLAS_WORKSPACE_CONFIG is :4096:2:16:8"):
        arithmetic.prepare(Train(), 1)


def refused_by_torch(x: Tensor) -> Tensor:
    """An operator that has no kernel of the same bits each time, on a CPU too."""
    return x.clone().put_(torch.tensor([0]), x.flatten()[:1])


class RefusedBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return refused_by_torch(gradients[0])


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("operator", [refused_by_torch, RefusedBackward.apply])
def test_an_operator_without_such_a_kernel_is_named_before_a_step_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operator: Any, packing: bool
) -> None:
    usual = modeling_qwen2.Qwen2MLP.forward
    monkeypatch.setattr(
        modeling_qwen2.Qwen2MLP, "forward", lambda self, x: usual(self, operator(x))
    )
    torch.use_deterministic_algorithms(True)
    call = train_call(tmp_path, packing=packing)
    with pytest.raises(InputError, match=r"train\.deterministic: this model needs put_") as fault:
        run(call)
    assert "train.deterministic: false" in fault.value.hint
    log = call.folder / "trainer_log.jsonl"
    assert not log.exists() or not log.read_text()


def test_an_operator_that_packed_attention_alone_needs_is_no_reason_to_pad_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.train.test_packing import a_model

    small = a_model()
    usual = nn.functional.scaled_dot_product_attention

    def attention(query: Tensor, *others: Any, **settings: Any) -> Tensor:
        return usual(refused_by_torch(query), *others, **settings)

    own = model._own_loss

    def unhindered(*given: Any) -> Tensor:
        loss = own(*given)
        monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attention)
        return loss

    monkeypatch.setattr(model, "_own_loss", unhindered)
    torch.use_deterministic_algorithms(True)
    with pytest.raises(InputError, match="needs put_"):
        model.choose_path(small, packing=True)


def test_other_faults_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^size mismatch$"), arithmetic.refusals_told():
        raise RuntimeError("size mismatch")
    with pytest.raises(torch.OutOfMemoryError), arithmetic.refusals_told():
        raise torch.OutOfMemoryError("CUDA out of memory")


class LigerExperts(nn.Module):
    pass


@pytest.mark.parametrize(
    ("train", "layer", "processes", "algorithm", "reason"),
    [
        ({}, nn.Linear(1, 1), 1, None, None),
        ({"liger_kernels": True}, nn.Linear(1, 1), 1, None, None),
        ({"deterministic": False}, nn.Linear(1, 1), 1, None, "train.deterministic: false"),
        ({"liger_kernels": True}, LigerExperts(), 1, None, "Liger's kernel for experts"),
        ({"launch": {"processes": 2}}, nn.Linear(1, 1), 2, "Ring", None),
        ({"launch": {"processes": 2}}, nn.Linear(1, 1), 2, "Tree", "NCCL_ALGO is Tree"),
        ({"launch": {"machines": 2}}, nn.Linear(1, 1), 2, "Ring", "several machines"),
    ],
)
def test_the_same_bits_are_claimed_only_where_nothing_is_known_to_change_them(
    monkeypatch: pytest.MonkeyPatch,
    train: dict[str, Any],
    layer: nn.Module,
    processes: int,
    algorithm: str | None,
    reason: str | None,
) -> None:
    if algorithm:
        monkeypatch.setenv("NCCL_ALGO", algorithm)
    whole, params = nn.Sequential(layer), Train.model_validate(train)
    reasons = arithmetic.why_not_repeatable("cuda", params, whole, processes)
    assert [text for text in reasons if reason and reason in text] == reasons
    assert bool(reasons) == bool(reason)
    assert arithmetic.why_not_repeatable("cpu", params, whole, processes) == []


@pytest.mark.parametrize("reasons", [[], ["the order is not fixed"]])
def test_the_manifest_says_whether_another_training_has_the_same_bits_and_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reasons: list[str]
) -> None:
    monkeypatch.setattr(arithmetic, "why_not_repeatable", lambda *_: reasons)
    result = run(train_call(tmp_path, steps=1))
    assert result.used["deterministic"] is (not reasons)
    assert result.used["tf32"] is False
    notes = [note for note in result.notes if "same training" in note]
    assert notes == [f"the same training may give other weights: {r}" for r in reasons]


def test_tf32_is_in_the_key_and_a_setting_that_rows_are_compared_in() -> None:
    assert key_view(Train(), Files(None, None))["tf32"] is False
    assert key_view(Train(tf32=True), Files(None, None))["tf32"] is True
    assert is_compared(Train, "tf32", "train")


def test_tf32_is_refused_where_it_would_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: None
) -> None:
    with pytest.raises(ValidationError, match="tf32 has no effect with precision: bfloat16"):
        Train(tf32=True, precision="bfloat16")
    with pytest.raises(InputError, match=r"train\.tf32: .* none is used here"):
        run(train_call(tmp_path, tf32=True))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(InputError, match=r"train\.tf32: A Card has no TF32"):
        arithmetic.prepare(Train(tf32=True), 1)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("tf32", [False, True])
def test_products_and_convolutions_are_rounded_as_the_row_says(tf32: bool) -> None:
    arithmetic.prepare(Train(tf32=not tf32), 1)
    arithmetic.prepare(Train(tf32=tf32), 1)
    assert torch.backends.cuda.matmul.fp32_precision == ("tf32" if tf32 else "ieee")
    assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is tf32


def test_angles_of_rotary_embeddings_are_computed_in_whole_float32_all_the_same() -> None:
    params = Train(tf32=True)
    tokenizer: Any = model_tokenizer()
    source = ModelSource.model_validate(random_model())
    loaded = model.load(source, {}, tokenizer, params, "cpu")
    arithmetic.set_tf32(True)
    rounded: dict[str, bool] = {}

    def note(module: nn.Module, *_: Any) -> None:
        rounded[type(module).__name__] = torch.backends.cuda.matmul.allow_tf32

    for module in loaded.modules():
        module.register_forward_pre_hook(note)
    loaded(input_ids=torch.ones(1, 5, dtype=torch.long))
    assert rounded["Qwen2RotaryEmbedding"] is False
    assert rounded["Qwen2MLP"] is True
    assert torch.backends.cuda.matmul.allow_tf32
    whole = model.load(source, {}, tokenizer, Train(), "cpu")
    whole(input_ids=torch.ones(1, 5, dtype=torch.long))
    assert torch.backends.cuda.matmul.allow_tf32


def model_tokenizer() -> Any:
    from harness.modeling.load import bytes_tokenizer

    return bytes_tokenizer()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_two_trainings_on_a_gpu_leave_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """With the kernel for sequences of various lengths, whose gradients are atomic sums unless told."""
    from torch.nn.attention import varlen

    calls: list[int] = []
    kernel = varlen.varlen_attn
    monkeypatch.setattr(
        varlen, "varlen_attn", lambda *q, **kw: (calls.append(1), kernel(*q, **kw))[1]
    )
    shape = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    small = random_model(attention_dropout=0.0, max_position_embeddings=2048, **shape)
    rows = [
        {"instruction": f"Say {n}.", "input": "", "output": "tea and " * (40 + 10 * n)}
        for n in range(12)
    ]
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        call = train_call(
            tmp_path / name,
            rows,
            small,
            method=method,
            precision="bfloat16",
            epochs=4,
            batch_size=6,
        )
        result = run(call)
        assert result.used["deterministic"] is True
        made.append({p.name: p.read_bytes() for p in (call.folder / "model").glob("*.safetensors")})
    assert calls
    assert made[0]
    assert made[0] == made[1]
