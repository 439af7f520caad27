"""The estimate of a training's memory beside the memory of real trainings, and what follows from it."""

from functools import cache
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.artefact.keys import Files
from harness.modeling.memory import need as memory
from harness.modeling.memory import shapes
from harness.modeling.memory.need import Need, of_training
from harness.spec.model_source import ModelSource
from harness.spec.train import Train

CONFIG = {
    "model_type": "qwen2", "vocab_size": 500, "hidden_size": 128, "intermediate_size": 384,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}  # fmt: skip
SHAPE = shapes.from_config(CONFIG)
assert SHAPE is not None
TOKENS = 256
LLAMA = shapes.from_config({"model_type": "llama"})
assert LLAMA is not None


def training(**settings: Any) -> Train:
    return Train.model_validate(settings)


def size(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@cache
def model_of(method: str, precision: str) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    from harness.train.packing import add_label_loss

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**CONFIG)).train()
    add_label_loss(model)
    if method == "full":
        return model
    model.to(getattr(torch, precision))
    return get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))


def saved_by_autograd(train: Train) -> int:
    """Bytes of what the layers of a real model keep of a batch, weights apart."""
    import torch
    from peft.helpers import disable_input_dtype_casting

    from harness.train.loop import _is_cast_by_autocast
    from harness.train.packing import ATTENTION, Lengths

    model = model_of(train.method, train.precision)
    core = model if train.method == "full" else model.base_model.model
    if train.gradient_checkpointing:
        core.activation_checkpointing_enable()
    core.set_attn_implementation(ATTENTION)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    bfloat16 = train.precision == "bfloat16"
    with (
        disable_input_dtype_casting(model, active=_is_cast_by_autocast(train)),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16),
    ):
        core.model(
            input_ids=torch.zeros((1, TOKENS), dtype=torch.long),
            packed=Lengths.of([TOKENS]),
            use_cache=False,
        )
    core.activation_checkpointing_disable()
    core.set_attn_implementation("sdpa")
    shapes_of_weights = {tuple(p.shape) for p in model.parameters()}
    # Autocast's copies of weights are counted with the weights.
    own = [
        t
        for t in kept.values()
        if {tuple(t.shape), tuple(t.shape)[::-1]}.isdisjoint(shapes_of_weights)
    ]
    return sum(t.untyped_storage().nbytes() for t in own)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_activations_are_what_autograd_keeps_of_a_real_model(
    method: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: grouped heads are expanded where its kernels do not take them."""
    from harness.train import packing

    monkeypatch.setattr(packing, "takes_grouped_heads", lambda _: precision == "bfloat16")
    train = training(method=method, precision=precision)
    real = saved_by_autograd(train)
    assert memory.saved_bytes(train, SHAPE, TOKENS) == pytest.approx(real, rel=0.05)


def test_with_checkpointing_autograd_keeps_the_layers_inputs_and_then_one_layer() -> None:
    train = training(gradient_checkpointing=True)
    one_layer = TOKENS * memory.layer_bytes(train, SHAPE)
    real = saved_by_autograd(train) + one_layer
    assert memory.saved_bytes(train, SHAPE, TOKENS) == pytest.approx(real, rel=0.05)
    assert (
        memory.saved_bytes(train, SHAPE, TOKENS) < memory.saved_bytes(training(), SHAPE, TOKENS) / 2
    )


@pytest.mark.parametrize("method", ["full", "lora"])
def test_weights_gradients_and_states_are_those_of_a_real_training(method: str) -> None:
    import torch

    model = model_of(method, "float32")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(input_ids=torch.zeros((1, 4), dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    states = [t for s in optimizer.state.values() for t in s.values() if t.numel() > 1]
    found = of_training(training(method=method), SHAPE)
    assert found.weights == size(model.parameters())
    assert found.gradients == size(p.grad for p in trained)
    assert found.optimizer == size(states)
    optimizer.zero_grad()


def test_an_8_bit_optimizers_states_are_those_of_bitsandbytes() -> None:
    import torch
    from bitsandbytes.optim import AdamW8bit

    weight = torch.nn.Parameter(torch.zeros(512, 512))
    weight.grad = torch.ones_like(weight)
    optimizer = AdamW8bit([weight])
    optimizer.step()
    state = optimizer.state[weight]
    real = size(state[name] for name in ("state1", "state2", "absmax1", "absmax2"))
    assert real == memory.ADAM_8BIT_BYTES * weight.numel()


@pytest.mark.parametrize("double", [True, False])
def test_four_bit_weights_take_what_bitsandbytes_makes_of_them(double: bool) -> None:
    import torch
    from bitsandbytes.functional import quantize_4bit

    weight = torch.randn(512, 512, dtype=torch.bfloat16)
    made, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    real = size([made, state.absmax, *([state.state2.absmax] if double else [])])
    bits = memory.DOUBLE_CONSTANT_BITS if double else memory.CONSTANT_BITS
    assert (memory.FOUR_BIT + bits / 8) * weight.numel() == pytest.approx(real, rel=0.01)


def test_a_quantised_base_is_a_quarter_of_a_bfloat16_one_but_for_embedding_and_head() -> None:
    lora = of_training(training(method="lora", precision="bfloat16"), LLAMA)
    qlora = of_training(training(method="qlora", precision="bfloat16"), LLAMA)
    ends = 2 * 2 * LLAMA.vocabulary * LLAMA.hidden
    adapters = 6 * memory.trained_parameters(training(method="lora"), LLAMA)
    assert lora.weights == pytest.approx(2 * LLAMA.parameters + adapters)
    base = qlora.weights - ends - adapters
    assert base == pytest.approx((lora.weights - ends - adapters) / 4, rel=0.05)
    assert (qlora.gradients, qlora.optimizer) == (lora.gradients, lora.optimizer)


def test_adapters_are_counted_where_they_are_put() -> None:
    some = training(method="lora", lora={"rank": 4, "target_modules": ["q_proj", "v_proj"]})
    assert memory.trained_parameters(some, LLAMA) == 32 * 2 * 4 * (4096 + 4096)


def test_zero_shares_one_thing_more_with_each_stage_and_offloading_moves_it_to_the_cpu() -> None:
    def under(stage: int, **offload: bool) -> memory.Memory:
        settings = {"stage": stage, **offload}
        return of_training(training(launch={"processes": 4}, deepspeed=settings), LLAMA)

    first, second, third = under(1), under(2), under(3)
    full = 4 * LLAMA.parameters
    assert (first.weights, first.gradients) == (full, full)
    assert (second.weights, second.gradients) == (full, full / 4)
    assert full / 4 < third.weights < full / 2
    # Two states, and the optimizer's own copy of the weights.
    assert first.optimizer == second.optimizer == third.optimizer == 3 * full / 4
    moved = under(2, offload_optimizer=True)
    assert (moved.optimizer, moved.cpu) == (0, 4 * full)
    assert under(3, offload_optimizer=True, offload_parameters=True).weights < full / 8


def test_states_of_the_other_optimizers() -> None:
    def states(optimizer: str) -> float:
        return of_training(training(optimizer=optimizer), LLAMA).optimizer

    assert states("sgd") == 0
    assert states("paged_adamw") == states("adamw") == 8 * LLAMA.parameters
    assert states("adafactor") < 0.01 * states("adamw")
    paged = of_training(training(optimizer="paged_adamw"), LLAMA)
    assert paged.needed == paged.total - paged.optimizer


def test_activations_grow_with_the_tokens_of_a_micro_batch_and_not_with_their_square() -> None:
    def activations(**settings: Any) -> float:
        return of_training(training(**settings), LLAMA).activations

    long, short = activations(cutoff_length=4096), activations(cutoff_length=1024)
    assert 3 < long / short < 4.1
    assert activations(cutoff_length=1024, batch_size=32) == long
    assert activations(batch_size=32, launch={"processes": 4}) == short


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_logit_takes_at_the_peak_what_the_real_loss_takes(precision: str) -> None:
    """The losses of many labels take what one piece of them takes."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from transformers import AutoConfig, AutoModelForCausalLM

    from harness.train.packing import add_label_loss

    vocabulary, labels = 20_000, 2 * shapes.LABELS_AT_ONCE
    config = CONFIG | {"vocab_size": vocabulary, "hidden_size": 8, "num_hidden_layers": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    add_label_loss(model)
    hidden = torch.randn(1, labels, 8, requires_grad=True)
    model.model.forward = lambda **_: SimpleNamespace(last_hidden_state=hidden)
    at, targets = torch.arange(labels), torch.zeros(labels, dtype=torch.long)
    with (
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found,
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        model(label_at=at, targets=targets).backward()
    events = found.profiler.kineto_results.events()
    sizes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    peak = max(accumulate(size for _, size in sizes))
    size = memory.FLOAT32 if precision == "float32" else memory.BFLOAT16
    piece = memory.LOGIT_BYTES[size] * shapes.LABELS_AT_ONCE * vocabulary
    assert peak == pytest.approx(piece, rel=0.1)


def test_on_a_gpu_more_labels_have_their_logits_at_a_time_up_to_a_gibibyte() -> None:
    assert shapes.labels_at_once(151_936, on_gpu=False) == 512
    assert shapes.labels_at_once(151_936, on_gpu=True) == 1766
    assert shapes.labels_at_once(32_000, on_gpu=True) == 8388
    assert shapes.labels_at_once(10**7, on_gpu=True) == 512
    few, many = (of_training(training(batch_size=n), LLAMA).activations for n in (2, 16))
    assert many < 8 * few


def test_a_micro_batch_has_the_tokens_of_its_examples_and_never_more_than_the_cutoff() -> None:
    tokens = memory.micro_batch_tokens
    assert tokens(training(batch_size=4, cutoff_length=100)) == 400
    assert tokens(training(batch_size=4, cutoff_length=100), [10] * 50) == 40
    assert tokens(training(batch_size=4, cutoff_length=100), [10] * 49 + [900]) <= 400
    assert tokens(training(batch_size=1, cutoff_length=100), [10] * 49 + [900]) == 100
    padded = training(batch_size=4, cutoff_length=100, packing=False)
    assert tokens(padded, [10] * 49 + [50]) == 200
    orpo = training(objective="orpo", batch_size=4, cutoff_length=100)
    assert tokens(orpo) == 800
    assert tokens(orpo, [150] * 9) == 600


def test_few_random_batches_are_larger_than_the_one_that_is_expected() -> None:
    import random

    draw = random.Random(0)
    lengths = [min(int(draw.lognormvariate(5, 0.8)) + 1, 1024) for _ in range(5000)]
    expected = memory.micro_batch_tokens(training(batch_size=16), lengths)
    sums = [sum(draw.sample(lengths, 16)) for _ in range(1000)]
    assert sum(s > expected for s in sums) < 20
    assert expected < 2 * sum(sums) / len(sums)


def stage(model: dict[str, Any], data: Path | None = None, **settings: Any) -> dict[str, Any]:
    from harness.spec.base import DataPath

    given = DataPath(path=str(data)) if data else None
    source = ModelSource.model_validate(model)
    return {"train": training(**settings), "model": source, "data": given}


def test_a_stages_need_is_found_from_its_model_and_its_data(tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text('{"instruction": "12345", "output": "12345"}\n' * 3)
    config = {k: v for k, v in CONFIG.items() if k != "vocab_size"}
    params = stage({"random": {"config": config}}, data)
    need = memory.of_stage(params, Files(None, None), None, None)
    assert isinstance(need, Need)
    assert need.shape.vocabulary == 258
    assert need.lengths == [10 + memory.TEMPLATE_TOKENS] * 3
    assert need.memory.activations < need.most.activations / 10


def test_why_nothing_can_be_estimated_is_said_in_words(tmp_path: Path) -> None:
    def why(model: dict[str, Any], hub: Path | None = None) -> Any:
        return memory.of_stage(stage(model), Files(None, None), hub, None)

    hub = {"hub": {"id": "a/b", "revision": "0" * 40}}
    assert "not on the volume yet" in why(hub, tmp_path / "absent")
    assert "does not say enough" in why(hub, tmp_path)
    assert "does not say enough" in why({"random": {"config": {"model_type": "mamba"}}})
    assert "is not there" in why({"path": str(tmp_path / "absent")})
