"""What training will need of a GPU's memory, before it runs. Rough, and said so.

Weights, gradients and optimizer states are counted from the model's shape. Activations are what
autograd keeps for the backward pass: the count per layer of Korthikanti et al. 2022 (arXiv
2205.05198, section 4), for gated layers with RMS norms and for attention that keeps no scores
(arXiv 2205.14135), so that no term grows with the square of the length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from harness.artefact.keys import Files
from harness.errors import DataAbsent
from harness.llm.estimate import CHARACTERS_PER_TOKEN, text_lengths
from harness.modeling.memory import shapes
from harness.modeling.memory.shapes import Shape
from harness.spec.model_source import ModelSource
from harness.spec.train import Lora, Quantization, Train

FLOAT32, BFLOAT16 = 4, 2
FOUR_BIT = 0.5
CONSTANT_BITS, DOUBLE_CONSTANT_BITS = 0.5, 0.127
"""Of the quantisation constants, per parameter (QLoRA, arXiv 2305.14314, section 3)."""
ADAM_BYTES, ADAM_8BIT_BYTES = 8.0, 2 + 2 * 4 / 256
"""Two states a parameter: float32; or a byte each, and a float32 scale for each 256."""
LOGIT_BYTES = {FLOAT32: 4, BFLOAT16: 12}
"""Of a logit at the peak, by the size of the arithmetic: torch's own loss puts the gradient in its
place; that of half precision has its logarithm and two gradients, in float32."""
TEMPLATE_TOKENS = 30
"""What a template adds to an example."""
DATA_FILE = "data.jsonl"


@dataclass(frozen=True)
class Memory:
    """Bytes on each device, and on each machine's CPU for what is offloaded."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    """With the loss: those of the largest micro-batch to expect."""
    cpu: float = 0.0
    pageable: float = 0.0
    """Of the optimizer: what a paged one can move to the CPU when room is short."""
    loading: float = 0.0
    """Weights as each process loads them, whole, before ZeRO shares them. They go to the device one by
    one: the CPU holds none of them."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations

    @property
    def needed(self) -> float:
        """What must be on the device at once."""
        return max(self.total - self.pageable, self.loading)


@dataclass(frozen=True)
class Need:
    """What a training's memory depends on."""

    train: Train
    shape: Shape
    lengths: Sequence[int] | None = None
    """Tokens of each example, about; None: not known, so as if all had cutoff_length tokens."""
    keeps_embeddings: bool = False
    """Whether an adapter is written with the embeddings, to which a chat format's tokens were added.
    The rows of two tokens are too few to be counted."""

    @cached_property
    def memory(self) -> Memory:
        return of_training(self.train, self.shape, self.lengths)

    @property
    def kept(self) -> float:
        """Bytes on the disk of the weights of `train.keep`: whole models, or adapters alone."""
        merged = self.train.lora is not None and self.train.lora.merge
        size = _size(self.train) if merged else FLOAT32
        weights = self.shape.parameters if merged else trained_parameters(self.train, self.shape)
        if self.keeps_embeddings and self.train.lora is not None and not merged:
            weights += self.shape.embeddings
        return len(self.train.keep) * size * weights

    @cached_property
    def most(self) -> Memory:
        """Were every example as long as the cutoff."""
        return of_training(self.train, self.shape)


MODEL_ABSENT = "the model is not on the volume yet"


def of_stage(
    params: Mapping[str, Any], files: Files, hub_folder: Path | None, artefact: Path | None
) -> Need | str:
    """What a train stage needs, or, in words, why that is not known.

    `hub_folder`: where the volume keeps the hub model; `artefact`: the data set's artefact, if there.
    """
    train, source = params["train"], params["model"]
    try:
        shape = shape_of(source, files, hub_folder)
    except DataAbsent as e:
        return e.message
    if shape is None:
        if source.hub is not None and not (hub_folder and hub_folder.is_dir()):
            return MODEL_ABSENT
        return "the model's configuration does not say enough"
    lengths = _tokens(params, files, artefact)
    return Need(train, shape, lengths, source.chat_format is not None)


def shape_of(source: ModelSource, files: Files, hub_folder: Path | None) -> Shape | None:
    """Raises DataAbsent where its folder or tokenizer is not there."""
    if source.random is None:
        folder = files.locate(source.path) if source.path is not None else hub_folder
        return shapes.from_folder(folder) if folder is not None else None
    tokenizer = source.random.tokenizer
    tokens: int | None = shapes.BYTES_TOKENS
    if tokenizer != "bytes":
        tokens = shapes.vocabulary_of(files.locate(tokenizer))
    size = {"vocab_size": tokens} if tokens else {}
    return shapes.from_config({**size, **source.random.config})


def _tokens(params: Mapping[str, Any], files: Files, artefact: Path | None) -> list[int] | None:
    """Of each record, by its characters; ORPO's two answers are two sequences, together in one."""
    source, data = params["model"], params.get("data")
    path = artefact
    if path is None and data is not None:
        try:
            path = files.locate(data)
        except DataAbsent:
            return None
    if path is None:
        return None
    lengths = text_lengths(path / DATA_FILE if path.is_dir() else path)
    in_bytes = source.random is not None and source.random.tokenizer == "bytes"
    characters = 1 if in_bytes else CHARACTERS_PER_TOKEN
    return [length // characters + TEMPLATE_TOKENS for length in lengths] or None


def of_training(train: Train, shape: Shape, lengths: Sequence[int] | None = None) -> Memory:
    """The memory of each process; see Need for `lengths`."""
    sharing = train.launch.processes * train.launch.machines
    stage = train.deepspeed.stage if train.deepspeed else 0
    trained = trained_parameters(train, shape)
    total = _weights(train, shape, trained)
    weights, moved = _sharded(train, shape, total, sharing)
    if train.method == "full" and train.precision == "bfloat16":
        # Autocast keeps a copy of each matrix until the backward pass has used it.
        weights += BFLOAT16 * shape.linear_parameters * (1 if stage == 3 else shape.layers)
    gradients = FLOAT32 * trained / (sharing if stage >= 2 else 1)
    optimizer = _optimizer(train, shape, trained) / (sharing if stage else 1)
    if train.deepspeed and train.deepspeed.offload_optimizer:
        moved += optimizer + FLOAT32 * trained / sharing
        gradients, optimizer = FLOAT32 * trained / shape.layers, 0.0
    return Memory(
        weights, gradients, optimizer,
        _activations(train, shape, micro_batch_tokens(train, lengths)),
        cpu=moved * train.launch.processes,
        pageable=optimizer if train.optimizer.startswith("paged") else 0.0,
        loading=total,
    )  # fmt: skip


def micro_batch_tokens(train: Train, lengths: Sequence[int] | None = None) -> int:
    """Of the largest micro-batch on one process, to expect among many drawn at random: the longest
    example with others of mean length, or three standard deviations over the mean."""
    batch = ceil(train.batch_size / (train.launch.processes * train.launch.machines))
    sequences = batch * (2 if train.objective == "orpo" else 1)
    most = sequences * train.cutoff_length
    if not lengths:
        return most
    longest_allowed = most // batch
    cut = [min(length, longest_allowed) for length in lengths]
    mean, longest = sum(cut) / len(cut), max(cut)
    if not train.packing:
        return batch * longest
    spread = sqrt(sum((length - mean) ** 2 for length in cut) / len(cut))
    expected = max(longest + (batch - 1) * mean, batch * mean + 3 * spread * sqrt(batch))
    return min(ceil(expected), batch * longest)


def trained_parameters(train: Train, shape: Shape) -> int:
    """All of them, or those of the adapters."""
    if train.lora is None:
        return shape.parameters
    rank = train.lora.rank
    return shape.layers * sum(rank * (x + y) for x, y in adapted(train.lora, shape).values())


def adapted(lora: Lora, shape: Shape) -> Mapping[str, tuple[int, int]]:
    """The linear modules of a layer that get an adapter."""
    if lora.target_modules == "all-linear":
        return shape.linears
    targets = {name.rsplit(".", 1)[-1] for name in lora.target_modules}
    return {name: widths for name, widths in shape.linears.items() if name in targets}


def _weights(train: Train, shape: Shape, trained: int) -> float:
    """What is trained is float32; a frozen base has the precision of the arithmetic, or four bits."""
    if train.method == "full":
        return FLOAT32 * shape.parameters
    size = _size(train)
    adapters = trained * (FLOAT32 + (BFLOAT16 if train.precision == "bfloat16" else 0))
    return frozen_weights(train.quantization, shape, size) + adapters


def frozen_weights(quantization: Quantization | None, shape: Shape, size: int) -> float:
    """Bytes of weights that are only read: `size` each, or four bits, of what is quantised."""
    if quantization is None:
        return size * shape.parameters
    bits = DOUBLE_CONSTANT_BITS if quantization.double else CONSTANT_BITS
    quantised = shape.layers * shape.linear_parameters
    return (FOUR_BIT + bits / 8) * quantised + size * (shape.parameters - quantised)


def _sharded(train: Train, shape: Shape, weights: float, sharing: int) -> tuple[float, float]:
    """Of the weights: what each device holds, and what each process keeps on the CPU. ZeRO-3 gathers
    a layer, and the next one, while they are used."""
    if train.deepspeed is None or train.deepspeed.stage < 3:
        return weights, 0.0
    shard = weights / sharing
    live = FLOAT32 * max(2 * shape.linear_parameters, shape.vocabulary * shape.hidden)
    if train.deepspeed.offload_parameters:
        return min(live, weights), shard
    return min(shard + live, weights), 0.0


def _optimizer(train: Train, shape: Shape, trained: int) -> float:
    """Its states. DeepSpeed's keeps a float32 copy of the weights it updates, too."""
    copy = FLOAT32 * trained if train.deepspeed else 0
    if train.optimizer == "sgd":
        return copy
    if train.optimizer == "adafactor":
        # A float32 for each row and each column of a matrix (arXiv 1804.04235).
        rank = train.lora.rank if train.lora else 0
        of = adapted(train.lora, shape) if train.lora else shape.linears
        sides = shape.layers * sum(x + y + 2 * rank for x, y in of.values())
        return FLOAT32 * (sides + (0 if train.lora else shape.vocabulary + shape.hidden)) + copy
    is_8bit = train.optimizer.endswith("8bit")
    return (ADAM_8BIT_BYTES if is_8bit else ADAM_BYTES) * trained + copy


def _size(train: Train) -> int:
    return BFLOAT16 if train.precision == "bfloat16" else FLOAT32


def layer_bytes(train: Train, shape: Shape) -> float:
    """What one layer keeps of one token for the backward pass."""
    size, h = _size(train), shape.hidden
    frozen = train.lora is not None
    # Two norms, in float32: their input, its inverse deviation and, for their weight's gradient,
    # the normalised input.
    saved = 2 * FLOAT32 * (1 + h * (1 if frozen else 2))
    # What the matrices read. Autocast copies what is float32 for each of them.
    in_float32 = train.lora is None or train.lora.dropout > 0
    is_copied = size == BFLOAT16 and in_float32
    saved += size * h * (max(len(shape.linears) - 2, 2) if is_copied else 2)
    # Queries, keys, values, the output, and a scale for each head. In float32 each head of queries has
    # keys and values of its own, and the examples' outputs are laid end to end (harness.train.packing).
    rows = 5 * shape.attention if size == FLOAT32 else 2 * (shape.attention + shape.key_value)
    saved += size * rows + FLOAT32 * shape.heads
    if shape.head_norms:
        saved += (FLOAT32 + size) * (shape.attention + shape.key_value)
    # Gate, its activation, up, and their product.
    saved += size * 4 * shape.intermediate
    if train.lora is not None:
        modules = adapted(train.lora, shape).values()
        saved += size * train.lora.rank * len(modules)
        saved += size * shape.attention if is_copied else 0
        if train.lora.dropout:
            saved += (size + 1) * sum(width for width, _ in modules)
    return saved


def saved_bytes(train: Train, shape: Shape, tokens: int) -> float:
    """What all layers keep of a micro-batch; with checkpointing each layer's input, and one layer."""
    residual = _size(train) if train.lora is not None else FLOAT32
    each, ends = layer_bytes(train, shape), 2 * FLOAT32 * shape.hidden
    if train.gradient_checkpointing:
        return tokens * (shape.layers * residual * shape.hidden + each + ends)
    return tokens * (shape.layers * each + ends)


def _activations(train: Train, shape: Shape, tokens: int) -> float:
    """With the gradients that pass through one layer, and the loss, made in pieces."""
    size, h = _size(train), shape.hidden
    passing = tokens * size * 2 * (shape.intermediate + h)
    # Of a piece the logits; then the gradients of the hidden states and the head.
    piece = min(tokens, shapes.labels_at_once(shape.vocabulary, on_gpu=True))
    loss = LOGIT_BYTES[size] * piece * shape.vocabulary + FLOAT32 * tokens * h
    if train.lora is None:
        loss += FLOAT32 * shape.vocabulary * h
    return saved_bytes(train, shape, tokens) + max(passing, loss)
