"""Tokens drawn with little float64: those that float64 throughout would draw, at every border."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from harness.answer.decoding.batch import sample

VOCABULARY = 3000
LAST = 1 - 2**-53
"""The largest of the random numbers that are drawn."""


def sums_in_float64(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The cumulative probabilities, in float64 but for softmax itself: (rows, vocabulary)."""
    logits = logits.double()
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature
    probabilities = scaled.float().softmax(-1).double()
    if top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        kept = ranked * (ranked.cumsum(-1) - ranked < top_p)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, kept)
    return probabilities.cumsum(-1)


def drawn_in_float64(sums: torch.Tensor, draws: torch.Tensor) -> list[int]:
    """The first token whose sum is over the random number's share of the total."""
    total = sums[:, -1:].contiguous()
    first = (sums <= draws[:, None] * total).sum(-1)
    return torch.minimum(first, (sums < total).sum(-1)).tolist()


def logits_of(kind: str, rows: int) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(len(kind))
    logits = 3 * torch.randn(rows, VOCABULARY, generator=drawn)
    match kind:
        case "flat":
            return torch.zeros(rows, VOCABULARY)
        case "ties":
            return logits.round()
        case "bfloat16":
            return logits.bfloat16()
        case "large":
            return 1e4 + 100 * logits
    return logits


@pytest.mark.parametrize("kind", ["plain", "flat", "ties", "bfloat16", "large"])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5, 2.0])
def test_every_token_is_the_one_that_float64_throughout_draws(
    kind: str, top_p: float, temperature: float
) -> None:
    rows = 8
    logits = logits_of(kind, rows)
    sums = sums_in_float64(logits, temperature, top_p)
    drawn = torch.Generator().manual_seed(1)
    trials = [torch.rand(rows, generator=drawn, dtype=torch.float64) for _ in range(60)]
    trials += [torch.full((rows,), at, dtype=torch.float64) for at in (0.0, 0.5, LAST)]
    for _ in range(30):
        # At a border between two tokens, and on either side of it by one last bit and by a few.
        token = torch.randint(0, VOCABULARY, (rows, 1), generator=drawn)
        border = (sums.gather(-1, token) / sums[:, -1:])[:, 0]
        trials += [border, border.nextafter(torch.zeros(())), border.nextafter(torch.ones(()))]
        trials += [border * (1 - 2**-50), border * (1 + 2**-50)]
    for draws in trials:
        draws = draws.clamp(0, LAST)
        found = sample(logits, temperature, top_p, draws).tolist()
        assert found == drawn_in_float64(sums, draws)


@pytest.mark.parametrize("kind", ["plain", "large"])
@pytest.mark.parametrize("min_p", [0.1, 0.9])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.5, 1.0), (0.7, 0.9)])
def test_min_p_draws_from_the_distribution_that_transformers_warpers_leave(
    kind: str, min_p: float, temperature: float, top_p: float
) -> None:
    points = 1000
    logits = logits_of(kind, 1)
    scores = logits.float()
    warpers: list[Any] = [TemperatureLogitsWarper(temperature)] if temperature != 1 else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    for warper in [*warpers, MinPLogitsWarper(min_p)]:
        scores = warper(torch.zeros(1, 1, dtype=torch.long), scores)
    expected = scores.softmax(-1).double()[0]
    draws = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    drawn = sample(logits.expand(points, -1), temperature, top_p, draws, min_p)
    tokens = drawn.bincount(minlength=VOCABULARY)
    # Each token is drawn for its share of the unit interval, to the grid's point at either end.
    assert (tokens / points - expected).abs().max() <= 1.01 / points
    assert not tokens[expected == 0].any()


class Outputs(TorchDispatchMode):
    """Counts operators by the type of what they make, where that is as large as the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.types: Counter[torch.dtype] = Counter()
        self.sorted: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func._schema.name == "aten::sort":
            self.sorted.add(args[0].dtype)
        if isinstance(made, torch.Tensor) and made.shape[-1:] == (VOCABULARY,):
            self.types[made.dtype] += 1
        return made


@pytest.mark.parametrize(
    ("temperature", "top_p", "most"), [(1.0, 1.0, 1), (0.7, 1.0, 2), (1.0, 0.9, 3), (0.7, 0.9, 4)]
)
def test_float64_is_kept_to_what_decides(temperature: float, top_p: float, most: int) -> None:
    draws = torch.full((2,), 0.5, dtype=torch.float64)
    with Outputs() as made:
        sample(logits_of("plain", 2), temperature, top_p, draws)
    assert made.sorted <= {torch.float32}
    assert made.types[torch.float64] <= most
