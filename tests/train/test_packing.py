"""Batches without padding: the same losses and gradients as each example by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.spec.train import Train
from harness.train import packing
from harness.train.batches import collate
from harness.train.data import ANSWER, COUNTED, EncodedExamples
from harness.train.model import choose_path
from harness.train.objectives import loss_parts
from harness.train.packing import ATTENTION, SPLIT_ATTENTION, add_label_loss
from harness.train.run import run
from tests.modeling.calls import random_model, train_call

VOCABULARY = 97


def a_model(kind: str = "qwen2", **changes: Any) -> Any:
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings | changes))
    add_label_loss(model)
    return model


def sequences(*lengths: int, pairs: bool = False) -> EncodedExamples:
    """Random tokens; the first third of each is its prompt."""
    import numpy as np

    draw = np.random.default_rng(0)
    marks = [np.where(np.arange(n) < n // 3, 0, ANSWER | COUNTED).astype(np.uint8) for n in lengths]
    return EncodedExamples(
        draw.integers(0, VOCABULARY, sum(lengths)).astype(np.int32),
        np.concatenate(marks),
        np.cumsum([0, *lengths]),
        np.array(lengths),
        pairs,
    )


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten().cpu() for p in model.parameters()])


def one_by_one(model: Any, data: EncodedExamples) -> tuple[float, torch.Tensor]:
    """The mean loss and its gradient from the model's own forward, one text at a time."""
    model.zero_grad()
    total, count = torch.zeros((), device=model.device), 0
    for example in range(len(data)):
        for ids, marks in data.sequences(example):
            labels = torch.from_numpy(ids.astype("int64")).to(model.device)
            counted = torch.from_numpy((marks & COUNTED) > 0)[1:].to(model.device)
            logits = model(labels[None], use_cache=False).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits, labels[1:], reduction="none")
            total = total + losses[counted].sum()
            count += int(counted.sum())
    (total / count).backward()
    return float(total.detach() / count), gradients(model)


def together(model: Any, data: EncodedExamples, packed: bool) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    batch = collate(data, range(len(data)), packed, pad=0).to(model.device)
    batch.step_tokens, batch.step_examples = int(data.counted().sum()), len(data)
    loss = loss_parts(model, batch, Train())[0]
    loss.backward()
    return float(loss.detach()), gradients(model)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "mistral", "phi3", "gemma", "qwen3"])
@pytest.mark.parametrize("packing", [True, False])
def test_a_batch_has_the_loss_and_the_gradients_of_its_examples_one_by_one(
    kind: str, packing: bool
) -> None:
    model, data = a_model(kind), sequences(9, 4, 17, 6)
    expected = one_by_one(model, data)
    assert choose_path(model, packing) is packing
    loss, found = together(model, data, packing)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert torch.allclose(found, expected[1], rtol=1e-4, atol=1e-6)


def test_a_sliding_window_shorter_than_the_examples_is_kept() -> None:
    model = a_model("mistral", sliding_window=4)
    data = sequences(20, 11)
    expected = one_by_one(model, data)
    whole = a_model("mistral", sliding_window=None)
    assert one_by_one(whole, data)[0] != pytest.approx(expected[0], rel=1e-4)
    assert choose_path(model, packing=True)
    loss, found = together(model, data, True)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert torch.allclose(found, expected[1], rtol=1e-4, atol=1e-6)


def test_no_example_sees_another() -> None:
    """With another first example the second one's gradient stays, bit for bit."""
    model = a_model()
    assert choose_path(model, packing=True)
    first, data = [], sequences(9, 9)
    for change in (0, 1):
        ids = data.ids.copy()
        ids[:9] = (ids[:9] + change) % VOCABULARY
        changed = EncodedExamples(ids, data.marks.copy(), data.bounds, data.answer_bytes)
        changed.marks[:9] = 0
        model.zero_grad()
        first.append(together(model, changed, True))
    assert first[0][0] == first[1][0]
    assert torch.equal(first[0][1], first[1][1])


def test_a_model_whose_layers_leak_between_examples_is_padded() -> None:
    """Its attention ignores where examples end; the losses of two texts laid end to end show it."""
    model = a_model()
    layer = model.model.layers[0]
    inner = layer.self_attn.forward

    def leaking(hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        out, weights = inner(hidden_states=hidden_states, **kwargs)
        return out + hidden_states.cumsum(1), weights

    layer.self_attn.forward = leaking
    assert choose_path(model, packing=True) is False
    assert model.config._attn_implementation != ATTENTION


def test_a_model_that_caps_its_scores_is_padded_and_right() -> None:
    model = a_model("gemma2", attn_logit_softcapping=5.0, head_dim=8, query_pre_attn_scalar=8)
    model.set_attn_implementation("eager")
    data = sequences(9, 4)
    expected = one_by_one(model, data)
    packed = choose_path(model, packing=True)
    loss, found = together(model, data, packed)
    assert not packed
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert torch.allclose(found, expected[1], rtol=1e-4, atol=1e-6)


def test_logits_that_the_model_scales_are_not_computed_past_it() -> None:
    """Granite divides its logits: the hidden states times the head's weights are not its logits."""
    model = a_model("granite", logits_scaling=4.0)
    data = sequences(9, 4)
    expected = one_by_one(model, data)
    assert choose_path(model, packing=True)
    assert model.harness_plain_head
    assert together(model, data, True)[0] == pytest.approx(expected[0], rel=1e-5)


def test_dropout_of_a_quantised_layers_neighbours_is_off_while_measuring() -> None:
    from harness.train.model import set_evaluating

    model = a_model()
    model.train()
    set_evaluating(model)
    assert not any(module.training for module in model.modules())


def test_the_way_is_tried_in_the_precision_of_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = a_model()
    seen = []
    inner = model.model.layers[0].self_attn.q_proj.forward

    def watching(x: torch.Tensor) -> torch.Tensor:
        out = inner(x)
        seen.append(out.dtype)
        return out

    model.model.layers[0].self_attn.q_proj.forward = watching
    assert choose_path(model, packing=True, precision="bfloat16")
    assert set(seen) == {torch.bfloat16}


def test_where_the_whole_kernel_fails_each_example_is_a_call_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def failing(*given: Any, **more: Any) -> Any:
        raise RuntimeError("no kernel for this device")

    model, data = a_model(), sequences(9, 4, 17)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, ATTENTION, failing)
    expected = one_by_one(model, data)
    assert choose_path(model, packing=True)
    assert model.config._attn_implementation == SPLIT_ATTENTION
    assert together(model, data, True)[0] == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.parametrize(("longest", "packed"), [(8, True), (40, False)])
def test_a_window_that_is_computed_wrongly_is_seen_where_an_example_is_longer(
    longest: int, packed: bool
) -> None:
    """Llama 4 looks at chunks of its text, which attention by examples knows nothing of."""
    model = a_model(
        "llama4_text", attention_chunk_size=8, head_dim=8, num_local_experts=1,
        intermediate_size_mlp=64, interleave_moe_layer_step=1, no_rope_layers=[1, 1],
        layer_types=["chunked_attention", "chunked_attention"],
    )  # fmt: skip
    assert choose_path(model, packing=True, longest=longest) is packed


@dataclass(frozen=True)
class KernelCall:
    dtypes: set[torch.dtype]
    heads: tuple[int, int]
    """Of queries, of keys."""
    lengths: list[int]
    is_training: bool


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[KernelCall]:
    """The calls of the GPU's kernel for sequences of various lengths, which a loop stands in for: the
    model is packed as it would be on a GPU."""
    calls = []

    def kernel(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor,
        key_bounds: torch.Tensor, longest: int, longest_key: int, *, scale: float | None,
        window_size: Sequence[int], enable_gqa: bool,
    ) -> torch.Tensor:  # fmt: skip
        assert bounds.dtype == torch.int32
        assert torch.equal(bounds, key_bounds)
        lengths = bounds.diff().tolist()
        assert longest == longest_key == max(lengths)
        assert tuple(window_size) == (-1, 0)
        calls.append(
            KernelCall(
                {query.dtype, key.dtype, value.dtype},
                (query.shape[1], key.shape[1]),
                lengths,
                torch.is_grad_enabled(),
            )
        )
        parts = zip(
            *(t.transpose(0, 1).split(lengths, 1) for t in (query, key, value)), strict=True
        )
        return torch.cat(
            [
                torch.nn.functional.scaled_dot_product_attention(
                    *part, is_causal=True, scale=scale, enable_gqa=enable_gqa
                )
                for part in parts
            ],
            dim=1,
        ).transpose(0, 1)

    takes = packing.whole_kernel_takes
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(packing, "whole_kernel_takes", lambda _, *call: takes("cuda", *call))
    return calls


def test_the_kernel_for_various_lengths_is_a_gpus_and_for_half_precision_without_dropout() -> None:
    takes = packing.whole_kernel_takes
    assert takes("cuda", torch.bfloat16, 0.0)
    assert takes("cuda", torch.float16, 0.0)
    assert not takes("cuda", torch.float32, 0.0)
    assert not takes("cuda", torch.bfloat16, 0.1)
    assert not takes("cpu", torch.bfloat16, 0.0)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen3"])
def test_float32_weights_under_autocast_reach_the_kernel_in_half_precision_once_a_layer(
    kind: str, kernel_calls: list[KernelCall]
) -> None:
    """Rotary tables, and norms of heads, are float32 where embeddings are."""
    model, data = a_model(kind), sequences(9, 4, 17, 6)
    expected = one_by_one(model, data)
    assert choose_path(model, packing=True, precision="bfloat16")
    assert model.config._attn_implementation == ATTENTION
    kernel_calls.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, found = together(model, data, True)
    assert kernel_calls == [KernelCall({torch.bfloat16}, (4, 2), [9, 4, 17, 6], True)] * 2
    assert loss == pytest.approx(expected[0], rel=2e-2)
    assert torch.nn.functional.cosine_similarity(found, expected[1], dim=0) > 0.99


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_every_method_calls_the_kernel_once_a_layer_and_micro_batch(
    tmp_path: Path, method: str, kernel_calls: list[KernelCall]
) -> None:
    model = random_model(
        hidden_size=64, intermediate_size=128, num_attention_heads=4, attention_dropout=0.0
    )
    call = train_call(
        tmp_path, model=model, method=method, precision="bfloat16", steps=3, batch_size=2,
        accumulation=2,
    )  # fmt: skip
    run(call)
    training = [call for call in kernel_calls if call.is_training]
    assert len(training) == 2 * 3 * 2
    assert {len(call.lengths) for call in training} == {2}
    assert all(call.dtypes == {torch.bfloat16} and call.heads == (4, 2) for call in training)


def test_a_real_model_with_grouped_heads_calls_the_kernel_once_a_layer(
    real_model: Path, kernel_calls: list[KernelCall]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32)
    add_label_loss(model)
    assert choose_path(model, packing=True, precision="bfloat16")
    config = model.config
    heads = config.num_attention_heads, config.num_key_value_heads
    assert heads[0] > heads[1]
    first = kernel_calls[: config.num_hidden_layers]
    assert first == [KernelCall({torch.bfloat16}, heads, [7, 5], False)] * config.num_hidden_layers
    assert len(kernel_calls) == 2 * config.num_hidden_layers


@pytest.mark.parametrize("window", [None, 4])
def test_where_torch_keeps_the_scores_of_grouped_heads_each_head_gets_its_own_keys(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 on a GPU; the losses and gradients are the same."""
    assert not packing.takes_grouped_heads("cuda")
    assert packing.takes_grouped_heads("cpu")
    model, data = a_model("mistral", sliding_window=window), sequences(9, 4, 17, 6)
    expected = one_by_one(model, data)
    grouped = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        grouped.append(more["enable_gqa"] or query.shape[1] != key.shape[1])
        return plain(query, key, *rest, **more)

    monkeypatch.setattr(packing, "takes_grouped_heads", lambda _: False)
    assert choose_path(model, packing=True)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    loss, found = together(model, data, True)
    assert grouped == [False] * 2 * 4
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert torch.allclose(found, expected[1], rtol=1e-4, atol=1e-6)
