"""How often checkpoints are written where the row does not say it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.train import callback, checkpoints
from harness.train.callback import LATEST_S, SOONEST_S, Watch


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(callback, "time", found)
    return found


def a_watch(clock: Clock, costs: float, checkpoint_steps: int | None = None) -> Any:
    found: Any = Watch.__new__(Watch)
    found.trainer = SimpleNamespace(params=SimpleNamespace(checkpoint_steps=checkpoint_steps))
    found.saved, found.save_costs = clock.now, costs
    return found


def seconds_until_due(clock: Clock, waiting: Any) -> float:
    began = clock.now
    args, state = SimpleNamespace(world_size=1), SimpleNamespace(global_step=1)
    while not waiting._is_due(args, state):
        clock.now += 1
    return clock.now - began


@pytest.mark.parametrize("costs", [1.0, 2.0, 20.0])
def test_a_checkpoint_waits_until_it_costs_less_than_three_percent(
    clock: Clock, costs: float
) -> None:
    waited = seconds_until_due(clock, a_watch(clock, costs))
    assert costs / (waited + costs) < 0.03
    assert costs / waited > 0.015, "nor is more work put at risk than that needs"


def test_a_cheap_checkpoint_is_not_written_all_the_time_and_a_dear_one_not_never(
    clock: Clock,
) -> None:
    assert SOONEST_S <= seconds_until_due(clock, a_watch(clock, 0.001)) <= SOONEST_S + 1
    assert LATEST_S <= seconds_until_due(clock, a_watch(clock, 600)) <= LATEST_S + 1


def test_where_the_row_says_the_steps_no_clock_is_asked(clock: Clock) -> None:
    waiting = a_watch(clock, 0.001, checkpoint_steps=7)
    clock.now += 1e6
    assert not waiting._is_due(SimpleNamespace(world_size=1), SimpleNamespace(global_step=1))


def test_what_a_checkpoint_costs_is_tried_on_the_disk_and_leaves_nothing(tmp_path: Path) -> None:
    small, large = torch.nn.Linear(8, 8), torch.nn.Linear(4096, 1024)
    assert checkpoints.expected_seconds(small, tmp_path) == 0
    assert checkpoints.expected_seconds(large, tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
    large.requires_grad_(False)
    assert checkpoints.expected_seconds(large, tmp_path) == 0, "only what is trained is written"
