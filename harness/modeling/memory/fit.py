"""Which settings would make a training fit a GPU, from the least intrusive to the most."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from harness.common.numbers import byte_size
from harness.modeling.memory import shapes
from harness.modeling.memory.need import Memory, Need, micro_batch_tokens
from harness.modeling.memory.shapes import Shape
from harness.spec.train import Train

USABLE = 0.92
"""Of a GPU's memory: the rest is CUDA's own, and what its allocator cannot use."""
LESS = 0.8
"""After a run that ran out of memory, a setting must need this much less than the estimate was."""
MERGED = 0.75
"""Of the room on a GPU, what micro-batches that are run at once may need by the estimate, which is
rough."""
ENOUGH_TOKENS = 32_768
"""More at once make no GPU's matrix products faster."""
SHOWN = 3
BATCH = ("batch_size", "accumulation")

_OFFLOAD_2 = {"stage": 2, "offload_optimizer": True}
_OFFLOAD_3 = {"stage": 3, "offload_optimizer": True, "offload_parameters": True}
DEVIATIONS: Sequence[Mapping[str, Any]] = (
    {"precision": "bfloat16"},
    {"optimizer": "adamw_8bit"},
    {"deepspeed": {"stage": 2}},
    {"deepspeed": {"stage": 3}},
    {"deepspeed": _OFFLOAD_2},
    {"precision": "bfloat16", "optimizer": "adamw_8bit"},
    {"precision": "bfloat16", "deepspeed": _OFFLOAD_3},
    {"method": "lora"},
    {"method": "lora", "precision": "bfloat16"},
    {"method": "qlora", "precision": "bfloat16"},
)
"""Settings that change the result, in the order in which they are tried."""


@dataclass(frozen=True)
class Fit:
    """A way to fit: the settings to change, and what the training would then need."""

    changes: Mapping[str, Any]
    memory: Memory
    deviates: bool
    """Whether the result changes in more than rounding."""

    def __str__(self) -> str:
        text = ", ".join(f"{k}: {_as_yaml(v)}" for k, v in self.changes.items())
        cpu = f", and {byte_size(self.memory.cpu)} of the CPU's" if self.memory.cpu else ""
        return f"{text} (about {byte_size(self.memory.needed)}{cpu})"


def machine_memory() -> int:
    """Bytes of the CPU's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def what_fits(
    train: Train,
    model: Shape | Mapping[str, Any],
    memory_bytes: float,
    lengths: Sequence[int] | None = None,
    ran_out: bool = False,
    cpu_bytes: float = math.inf,
    loading: bool = False,
) -> list[Fit]:
    """Ways to train on a device of `memory_bytes`, the least intrusive first; none: an empty list.

    `model`: its shape, or its configuration (nothing is found for an unknown kind). `lengths`:
    tokens of each example. `ran_out`: the training as it stands did not fit, whatever the estimate.
    `cpu_bytes`: what can be offloaded. `loading`: it did not fit while the weights were loaded, and
    only smaller ones will help.
    """
    shape = model if isinstance(model, Shape) else shapes.from_config(model)
    if shape is None:
        return []
    room, now = USABLE * memory_bytes, Need(train, shape, lengths).memory
    if ran_out and not loading:
        room = min(room, LESS * now.needed)
    weights = LESS * now.loading if loading else math.inf
    fits: list[Fit] = []
    for deviation in ({}, *DEVIATIONS):
        for harmless in _harmless(train):
            fit = _tried(train, shape, lengths, {**deviation, **harmless}, bool(deviation))
            if (
                fit is not None
                and fit.memory.needed <= room
                and fit.memory.loading <= weights
                and fit.memory.cpu <= cpu_bytes
                and _is_news(fit, fits)
            ):
                fits.append(fit)
                if deviation:
                    break
    return fits


def _is_news(fit: Fit, fits: Sequence[Fit]) -> bool:
    """Not one that asks for more than a way found before, nor for a still smaller batch."""

    def asked(of: Fit) -> set[str]:
        return {f"{k}: {'' if k in BATCH else v}" for k, v in of.changes.items()}

    return not any(asked(other) <= asked(fit) for other in fits)


def _harmless(train: Train) -> Iterator[Mapping[str, int]]:
    """Changes that leave the result the same but for rounding: none, checkpointing, smaller
    micro-batches of the same step, both."""
    smaller = list(_smaller_batches(train))
    checkpointings = [{"gradient_checkpointing": True}] if not train.gradient_checkpointing else []
    yield {}
    yield from checkpointings
    yield from smaller
    yield from ({**checkpointing, **batch} for checkpointing in checkpointings for batch in smaller)


def _smaller_batches(train: Train) -> Iterator[Mapping[str, int]]:
    """With as many examples a step, the largest micro-batch first."""
    step = train.batch_size * train.accumulation
    processes = train.launch.processes * train.launch.machines
    for size in range(train.batch_size - 1, 0, -1):
        if step % size == 0 and size % processes == 0:
            yield {"batch_size": size, "accumulation": step // size}


def merged(train: Train, shape: Shape, room: float, lengths: Sequence[int] | None = None) -> Train:
    """The training with the same steps in as few micro-batches as have a place in `room` bytes; as it
    stands where fewer have none. The result is the same but for rounding."""
    for parts in range(1, train.accumulation):
        at_once, rest = divmod(train.accumulation, parts)
        fewer = train.model_copy(
            update={"batch_size": train.batch_size * at_once, "accumulation": parts}
        )
        # Not what a paged optimizer leaves: paging would cost more than is won.
        fits = Need(fewer, shape, lengths).memory.total <= MERGED * room
        if not rest and fits and micro_batch_tokens(fewer, lengths) <= ENOUGH_TOKENS:
            return fewer
    return train


def _tried(
    train: Train,
    shape: Shape,
    lengths: Sequence[int] | None,
    changes: Mapping[str, Any],
    deviates: bool,
) -> Fit | None:
    """None where nothing would change, or the settings do not go together."""
    settings = train.model_dump()
    changes = {name: value for name, value in changes.items() if settings[name] != value}
    steps_down = {"full": 0, "lora": 1, "qlora": 2}
    if not changes or steps_down[changes.get("method", "qlora")] < steps_down[train.method]:
        return None
    try:
        changed = Train.model_validate({**settings, **changes})
    except ValidationError:
        return None
    if changed == train:
        return None
    return Fit(changes, Need(changed, shape, lengths).memory, deviates)


def describe(
    train: Train,
    model: Shape | Mapping[str, Any],
    memory_bytes: float,
    lengths: Sequence[int] | None = None,
    ran_out: bool = False,
    cpu_bytes: float = math.inf,
    loading: bool = False,
) -> str:
    """What would fit, in a sentence or two; see what_fits."""
    shape = model if isinstance(model, Shape) else shapes.from_config(model)
    if shape is None:
        return "What would fit cannot be estimated: the model's kind is not known."
    fits = what_fits(train, shape, memory_bytes, lengths, ran_out, cpu_bytes, loading)
    memory = Need(train, shape, lengths).memory
    now = f"It needs about {byte_size(memory.needed)}"
    now += f", {byte_size(memory.loading)} for its weights alone" if loading else ""
    return f"{now}; {would_fit(fits)}."


def would_fit(fits: Sequence[Fit]) -> str:
    """`would fit with ...`: ways that leave the result the same, or, where there is none, others."""
    if not fits:
        return "no setting is known that would fit; take a smaller model or a larger GPU"
    same = [f for f in fits if not f.deviates]
    ways = ", or ".join(map(str, (same or fits)[:SHOWN]))
    if same:
        return f"would fit with {ways}: the same result but for rounding"
    return f"would fit, as a deviation in the result, with {ways}"


def _as_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False)
    return text.removesuffix("...\n").strip()
