"""Which examples a step takes: the same ones however they are dealt out, each once an epoch."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from harness.spec.train import Train
from harness.train.schedule import Step, expected_steps, plan_steps

SIZES = np.random.default_rng(0).integers(5, 200, 37).tolist()
COUNTED = [size // 2 for size in SIZES]


def plan(processes: int = 1, **train: Any) -> list[Step]:
    return plan_steps(Train.model_validate(train), SIZES, COUNTED, processes)


def taken(step: Step) -> list[int]:
    return sorted(i for part in step.micro_batches for i in part)


def test_every_epoch_takes_each_example_once_in_another_order() -> None:
    steps = plan(epochs=2, batch_size=8)
    assert len(steps) == 10
    first, second = steps[:5], steps[5:]
    for epoch in (first, second):
        assert sorted(i for step in epoch for i in taken(step)) == list(range(37))
    assert [taken(s) for s in first] != [taken(s) for s in second]
    assert [step.examples for step in first] == [8, 8, 8, 8, 5]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize(
    ("processes", "batch_size", "accumulation"), [(1, 2, 4), (2, 8, 1), (2, 2, 4), (4, 4, 2)]
)
def test_accumulation_and_processes_change_no_step(
    packing: bool, processes: int, batch_size: int, accumulation: int
) -> None:
    one = plan(batch_size=8, packing=packing)
    many = plan(processes, batch_size=batch_size, accumulation=accumulation, packing=packing)
    assert [taken(step) for step in one] == [taken(step) for step in many]
    assert [(s.tokens, s.examples) for s in one] == [(s.tokens, s.examples) for s in many]
    assert {len(step.micro_batches) for step in many} == {accumulation * processes}


def test_packed_micro_batches_have_like_numbers_of_tokens() -> None:
    for step in plan(batch_size=4, accumulation=4)[:2]:
        totals = [sum(SIZES[i] for i in part) for part in step.micro_batches]
        assert max(totals) - min(totals) <= max(SIZES[i] for i in taken(step))


def test_padded_micro_batches_hold_examples_of_like_length() -> None:
    def waste(steps: list[Step]) -> int:
        parts = [part for step in steps for part in step.micro_batches if part]
        return sum(max(SIZES[i] for i in part) * len(part) for part in parts) - sum(SIZES)

    alike = plan(epochs=1, batch_size=4, accumulation=8, packing=False)
    assert waste(alike) < waste(plan(epochs=1, batch_size=4)) / 2


def test_the_likelihoods_tokens_are_counted_over_the_whole_step() -> None:
    for step in plan(batch_size=4, accumulation=2):
        assert step.tokens == sum(COUNTED[i] for i in taken(step))


def test_steps_go_on_through_epochs_until_there_are_enough() -> None:
    steps = plan(steps=12, batch_size=8)
    assert len(steps) == 12
    assert Counter(i for step in steps[:5] for i in taken(step)) == Counter(range(37))


def test_a_seed_decides_the_order() -> None:
    assert [taken(s) for s in plan(seed=1)] == [taken(s) for s in plan(seed=1)]
    assert [taken(s) for s in plan(seed=1)] != [taken(s) for s in plan(seed=2)]


@pytest.mark.parametrize(
    ("settings", "examples", "steps"),
    [
        ({"epochs": 1, "batch_size": 4}, 12, 3),
        ({"epochs": 3, "batch_size": 5, "accumulation": 2}, 12, 6),
        ({"epochs": 0.5, "batch_size": 5}, 12, 2),
        ({"epochs": 1.25, "batch_size": 2}, 12, 8),
        ({"steps": 7}, 12, 7),
    ],
)
def test_the_number_of_steps_is_what_the_parameters_say(
    settings: dict[str, Any], examples: int, steps: int
) -> None:
    assert expected_steps(Train.model_validate(settings), examples) == steps
