"""Which examples each optimizer step takes, and how they are dealt out to its micro-batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.spec.train import Train


@dataclass(frozen=True)
class Step:
    """One optimizer step. `micro_batches`: accumulation * processes lists of examples, in the order
    of (accumulation, process). A step at an epoch's end may have empty ones."""

    micro_batches: list[list[int]]
    tokens: int
    """Tokens that enter the likelihood, over all micro-batches."""
    examples: int


def expected_steps(params: Train, examples: int) -> int:
    """Optimizer steps; an epoch's last step may have fewer examples than the others."""
    if params.steps is not None:
        return params.steps
    assert params.epochs is not None  # Train checks it
    each = math.ceil(examples / _per_step(params))
    return max(1, math.ceil(round(params.epochs * each, 9)))


def plan_steps(
    params: Train, sizes: Sequence[int], counted: Sequence[int], processes: int
) -> list[Step]:
    """Every step of a run. sizes: tokens of each example; counted: those in the likelihood.

    Each epoch takes all examples in an order of its own, drawn from the seed. The order, and which
    examples share a step, depend on neither accumulation nor processes.
    """
    steps_expected, per_step = expected_steps(params, len(sizes)), _per_step(params)
    steps: list[Step] = []
    epoch = 0
    while len(steps) < steps_expected:
        order = np.random.default_rng([params.seed, epoch]).permutation(len(sizes)).tolist()
        for at in range(0, len(order), per_step):
            chosen = order[at : at + per_step]
            parts = params.accumulation * processes
            deal = _balanced if params.packing else _alike
            tokens = int(sum(counted[i] for i in chosen))
            steps.append(Step(deal(chosen, sizes, parts), tokens, len(chosen)))
        epoch += 1
    return steps[:steps_expected]


def _per_step(params: Train) -> int:
    return params.batch_size * params.accumulation


def _balanced(examples: list[int], sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Parts of like total length: the longest first, each to the part that has the least so far."""
    dealt: list[list[int]] = [[] for _ in range(parts)]
    totals = [0] * parts
    for example in sorted(examples, key=lambda i: (-sizes[i], i)):
        part = totals.index(min(totals))
        dealt[part].append(example)
        totals[part] += int(sizes[example])
    return dealt


def _alike(examples: list[int], sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Parts of like single lengths, so that padding them costs little."""
    ordered = sorted(examples, key=lambda i: (-sizes[i], i))
    each = math.ceil(len(ordered) / parts)
    return [ordered[part * each : (part + 1) * each] for part in range(parts)]
