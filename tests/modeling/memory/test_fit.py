"""What would make a training fit: the least intrusive way first, and only ways that do fit."""

from typing import Any

import pytest

from harness.modeling.memory import fit as fitting
from harness.modeling.memory import shapes
from harness.modeling.memory.fit import USABLE, describe, what_fits
from harness.modeling.memory.need import of_training
from harness.spec.train import Train

GIB = 2**30
QWEN = {
    "model_type": "qwen2", "hidden_size": 1024, "intermediate_size": 2816,
    "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16,
    "tie_word_embeddings": True,
}  # fmt: skip
LLAMA = {"model_type": "llama"}


def training(**settings: Any) -> Train:
    return Train.model_validate(settings)


def changed(train: Train, changes: Any) -> Train:
    return Train.model_validate({**train.model_dump(), **changes})


@pytest.mark.parametrize("gibibytes", [2, 4, 8, 16, 24, 80])
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"batch_size": 12, "accumulation": 5}, {"method": "lora"}, {"objective": "orpo"},
        {"optimizer": "sgd"}, {"deepspeed": {"stage": 2}}, {"method": "qlora"},
        {"launch": {"processes": 2}, "batch_size": 6},
    ],
)  # fmt: skip
def test_every_way_fits_by_the_estimate_and_is_a_training_that_a_spec_can_state(
    gibibytes: int, settings: dict[str, Any]
) -> None:
    train = training(**settings)
    for config in (QWEN, LLAMA):
        shape = shapes.from_config(config)
        assert shape is not None
        for fit in what_fits(train, config, gibibytes * GIB):
            then = changed(train, fit.changes)
            assert then != train
            assert of_training(then, shape).needed <= USABLE * gibibytes * GIB
            examples = then.batch_size * then.accumulation
            assert examples == train.batch_size * train.accumulation
            assert then.batch_size % train.launch.processes == 0
            free = {"gradient_checkpointing", "batch_size", "accumulation"}
            assert fit.deviates == bool(set(fit.changes) - free)


def test_what_leaves_the_result_as_it_is_comes_first_and_as_little_of_it_as_will_do() -> None:
    found = what_fits(training(batch_size=16), QWEN, 24 * GIB)
    ways = [dict(fit.changes) for fit in found if not fit.deviates]
    assert ways == [{"gradient_checkpointing": True}, {"batch_size": 4, "accumulation": 4}]
    deviates = [fit.deviates for fit in found]
    assert deviates == sorted(deviates)
    words = describe(training(batch_size=16), QWEN, 24 * GIB)
    assert "would fit with gradient_checkpointing: true (about 1" in words
    assert "or batch_size: 4, accumulation: 4 (about 1" in words
    assert "the same result but for rounding" in words
    assert "deviation" not in words


def test_both_harmless_changes_together_are_offered_where_neither_alone_will_do() -> None:
    first = what_fits(training(batch_size=64, cutoff_length=4096), QWEN, 12 * GIB)[0]
    assert not first.deviates
    assert set(first.changes) == {"gradient_checkpointing", "batch_size", "accumulation"}


def test_where_only_another_result_fits_it_is_said_to_be_a_deviation() -> None:
    train = training(gradient_checkpointing=True, batch_size=1)
    found = what_fits(train, LLAMA, 24 * GIB)
    assert found
    assert all(fit.deviates for fit in found)
    methods = [fit.changes.get("method") for fit in found]
    assert methods[-1] in ("lora", "qlora")
    assert "as a deviation in the result" in describe(train, LLAMA, 24 * GIB)


def test_offloading_is_offered_only_where_the_cpu_has_room_for_it_and_says_how_much() -> None:
    def offloads(cpu: float) -> list[str]:
        found = what_fits(training(), LLAMA, 32 * GIB, cpu_bytes=cpu)
        return [str(fit) for fit in found if "deepspeed" in fit.changes]

    assert offloads(64 * GIB) == []
    assert "GiB of the CPU's" in offloads(512 * GIB)[0]


def test_processes_that_can_share_the_states_are_told_to_before_anything_is_offloaded() -> None:
    train = training(launch={"processes": 8}, gradient_checkpointing=True)
    stages = [
        fit.changes["deepspeed"]
        for fit in what_fits(train, LLAMA, 80 * GIB)
        if "deepspeed" in fit.changes
    ]
    assert stages[0] == {"stage": 2}
    alone = what_fits(training(gradient_checkpointing=True), LLAMA, 80 * GIB)
    assert all(fit.changes.get("deepspeed") != {"stage": 2} for fit in alone)


def test_a_model_too_large_for_all_of_it_is_said_to_be() -> None:
    assert what_fits(training(), LLAMA, 2 * GIB, cpu_bytes=GIB) == []
    assert "smaller model or a larger GPU" in describe(training(), LLAMA, 2 * GIB, cpu_bytes=GIB)
    assert "cannot be estimated" in describe(training(), {"model_type": "mamba"}, GIB)


def test_after_a_run_out_of_memory_nothing_is_offered_that_would_hardly_need_less() -> None:
    train = training(method="qlora", precision="bfloat16")
    shape = shapes.from_config(QWEN)
    assert shape is not None
    before = of_training(train, shape).needed
    found = what_fits(train, QWEN, 80 * GIB, ran_out=True)
    assert found
    assert all(fit.memory.needed <= 0.8 * before for fit in found)
    assert describe(train, QWEN, 80 * GIB, ran_out=True).startswith("It needs about ")


def test_micro_batches_are_merged_as_far_as_there_is_room_and_sense() -> None:
    """Of one step: its examples stay, and the fewest micro-batches that fit are taken."""
    shape, lengths = shapes.from_config(QWEN), [200] * 500
    assert shape is not None
    train = training(batch_size=4, accumulation=32, precision="bfloat16")
    parts = []
    for gibibytes in (4, 12, 16, 24, 141):
        found = fitting.merged(train, shape, gibibytes * GIB, lengths)
        parts.append(found.accumulation)
        assert found.batch_size * found.accumulation == 128
        assert found.model_copy(update={"batch_size": 4, "accumulation": 32}) == train
        if found != train:
            needed = of_training(found, shape, lengths).total
            assert needed <= fitting.MERGED * gibibytes * GIB
    assert parts == sorted(parts, reverse=True)
    assert (parts[0], parts[-1]) == (32, 1)
    assert len(set(parts)) > 2
    long = fitting.merged(train, shape, 10_000 * GIB, [1024] * 500)
    assert long.batch_size * 1024 == fitting.ENOUGH_TOKENS
    five = training(batch_size=2, accumulation=5)
    assert fitting.merged(five, shape, 30 * GIB).accumulation in (1, 5)


def test_a_paged_optimizers_states_are_not_paged_out_for_a_larger_micro_batch() -> None:
    shape = shapes.from_config(QWEN)
    assert shape is not None
    paged = training(optimizer="paged_adamw", batch_size=4, accumulation=8)
    lengths = [20] * 50
    room = of_training(paged, shape, lengths).total / fitting.MERGED
    whole = training(optimizer="paged_adamw", batch_size=32)
    assert of_training(whole, shape, lengths).needed < fitting.MERGED * room
    assert fitting.merged(paged, shape, room, lengths) == paged
    assert fitting.merged(paged, shape, 2 * room, lengths) == whole


def test_sharing_helps_no_gpu_that_cannot_first_load_the_weights_whole() -> None:
    """Each process loads all weights before ZeRO shares them: 25.1 GiB."""
    shape = shapes.from_config(LLAMA)
    assert shape is not None
    shared = training(deepspeed={"stage": 3, "offload_optimizer": True, "offload_parameters": True})
    assert of_training(shared, shape).needed >= 4 * shape.parameters
    for gibibytes, helps in ((24, False), (32, True)):
        found = what_fits(training(), LLAMA, gibibytes * GIB)
        assert any("deepspeed" in fit.changes for fit in found) == helps


def test_where_loading_ran_out_only_smaller_weights_are_offered() -> None:
    train = training(batch_size=16, precision="bfloat16")
    text = describe(train, LLAMA, 24 * GIB, ran_out=True, loading=True)
    assert "25.1 GiB for its weights alone" in text
    assert "would fit, as a deviation in the result, with method: lora" in text
    found = what_fits(train, LLAMA, 24 * GIB, ran_out=True, loading=True)
    assert {fit.changes["method"] for fit in found} == {"lora", "qlora"}
