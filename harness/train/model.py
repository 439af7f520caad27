"""The model that is trained: loaded, quantised, given adapters; and how it is written afterwards."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.common.device_faults import memory_for, pass_on
from harness.errors import InputError
from harness.modeling.generation import TOKENS
from harness.modeling.load import (
    ADAPTER,
    QUANTISED,
    load_model,
    quantised_model,
    quiet_peft,
    set_evaluating,
)
from harness.spec.model_source import ModelSource
from harness.spec.train import Train
from harness.train.arithmetic import check_refused, keep_angles_whole
from harness.train.checkpoints import way_on
from harness.train.packing import (
    ATTENTION,
    SPLIT_ATTENTION,
    TOLERANCE,
    Inputs,
    Lengths,
    add_label_loss,
)

if TYPE_CHECKING:
    from peft import LoraConfig

SHORT = (7, 5)
"""Tokens of the texts that a model is tried with."""
WINDOWS = ("sliding_window", "attention_chunk_size")
"""Where configurations say how far attention reaches."""
UNMERGED = "train.lora.merge: false, with which the training begins anew, or "
HALF_TOLERANCE = 0.1
"""Of a loss in nats, where the arithmetic is in half precision."""


def load(
    source: ModelSource,
    inputs: dict[str, str],
    tokenizer: PreTrainedTokenizerBase,
    params: Train,
    device: str,
) -> PreTrainedModel:
    """The base model on its device, with a forward that returns losses (see harness.train.packing).

    What is trained is in float32. A frozen base is in the precision of the arithmetic, or quantised.
    """
    if params.method == "qlora":
        assert params.quantization is not None  # Train fills it in
        model = quantised_model(
            source, inputs, tokenizer, params.quantization, params.precision, device
        )
    else:
        precision = "float32" if params.method == "full" else params.precision
        model = load_model(source, inputs, tokenizer, precision, device)
    _make_savable(model)
    add_label_loss(model)
    if params.tf32:
        keep_angles_whole(model)
    return model


def _make_savable(model: PreTrainedModel) -> None:
    """Transformers refuses to write configurations that it reads, once a trainer has aligned their
    tokens. What the base's folder says of decoding is none of the training's, and is written from
    there (harness.train.tokenizer_files)."""
    from transformers import GenerationConfig

    if model.generation_config is not None:
        tokens = {name: getattr(model.generation_config, name) for name in TOKENS}
        model.generation_config = GenerationConfig(**tokens)
    for name in model.config._get_generation_parameters():
        setattr(model.config, name, None)


def lora_config(model: PreTrainedModel, params: Train) -> "LoraConfig | None":
    """Raises InputError for target modules that the model lacks."""
    if params.lora is None:
        return None
    from peft import LoraConfig

    lora = params.lora
    targets = lora.target_modules
    if targets != "all-linear":
        names = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if _is_linear(m)}
        if model.get_output_embeddings() is not None:
            names -= {n for n, m in model.named_modules() if m is model.get_output_embeddings()}
        lacking = sorted(set(targets) - names)
        if lacking:
            raise InputError(
                f"train.lora.target_modules: the model has no linear layer {', '.join(lacking)}"
                " that could get an adapter",
                f"Its linear layers are {', '.join(sorted(names))}.",
            )
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ in (QUANTISED, "Conv1D")


def choose_path(
    model: PreTrainedModel, packing: bool, precision: str = "float32", longest: int = 0
) -> bool:
    """Whether batches can go without padding; set up the model for the way that is right for it.

    Nothing is taken on trust: the losses of two short texts laid end to end must be those of each
    alone, and must not change with the text before. The way of computing logits is tried likewise,
    all in the precision of the training's arithmetic. longest: tokens of the longest example; where
    that is over the model's attention window, the first text is too.
    """
    set_evaluating(model)
    half = precision == "bfloat16"
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half):
        return _choose(model, packing, HALF_TOLERANCE if half else TOLERANCE, longest)


def _choose(model: PreTrainedModel, packing: bool, limit: float, longest: int) -> bool:
    usual = model.config._attn_implementation
    texts = _texts(model, longest)
    try:
        alone = torch.cat([_own_loss(model, text) for text in texts])
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as e:
        pass_on(e)
        check_refused(e)
        raise InputError(f"this model cannot compute a loss: {e}") from e
    for attention in (ATTENTION, SPLIT_ATTENTION) if packing else ():
        for plain_head in (False, True):
            model.harness_plain_head = plain_head
            if _packed_is_right(model, texts, alone, attention, limit):
                return True
    model.set_attn_implementation(usual)
    for plain_head in (False, True):
        model.harness_plain_head = plain_head
        losses = [_attempt(model, {"input_ids": text}, [text.shape[1]]) for text in texts]
        if all(x is not None for x in losses) and _close(torch.cat(losses), alone, limit):
            return False
    raise InputError("this model's own loss and ours differ: it cannot be trained here")


def _texts(model: PreTrainedModel, longest: int) -> list[Tensor]:
    """Two texts of random tokens; the first passes the attention window if an example does."""
    config = model.config.get_text_config()
    sizes = [getattr(config, name, None) for name in WINDOWS]
    passed = [size for size in sizes if isinstance(size, int) and size < longest]
    first = min([max(passed, default=0) + SHORT[0], max(longest, SHORT[0])])
    rows = model.get_input_embeddings().num_embeddings
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(rows, (1, n), generator=draw).to(model.device) for n in (first, SHORT[1])]


@torch.no_grad()  # type: ignore[untyped-decorator]
def _own_loss(model: PreTrainedModel, text: Tensor) -> Tensor:
    logits = model(input_ids=text, use_cache=False).logits[0, :-1]
    return nn.functional.cross_entropy(logits.float(), text[0, 1:], reduction="none")


def _packed_is_right(
    model: PreTrainedModel, texts: list[Tensor], alone: Tensor, attention: str, limit: float
) -> bool:
    try:
        model.set_attn_implementation(attention)
    except (ValueError, NotImplementedError):
        return False
    lengths = [text.shape[1] for text in texts]
    first, second = texts
    together = _attempt(model, _end_to_end([first, second], lengths), lengths)
    swapped = _attempt(model, _end_to_end([first.flip(1), second], lengths), lengths)
    good = together is not None and swapped is not None and _close(together, alone, limit)
    start = lengths[0] - 1
    return good and bool(torch.allclose(together[start:], swapped[start:], rtol=0, atol=1e-6))


def _end_to_end(texts: list[Tensor], lengths: list[int]) -> Inputs:
    device = texts[0].device
    positions = torch.cat([torch.arange(n, device=device) for n in lengths])
    return {
        "input_ids": torch.cat(texts, dim=1),
        "position_ids": positions[None],
        "packed": Lengths.of(lengths).to(device),
    }


@torch.no_grad()  # type: ignore[untyped-decorator]
def _attempt(model: PreTrainedModel, inputs: Inputs, lengths: list[int]) -> Any:
    """The losses, one for each label; None where the model takes the call otherwise."""
    ids = inputs["input_ids"]
    assert isinstance(ids, Tensor)
    at = torch.arange(sum(lengths), device=model.device)
    ends = torch.tensor(lengths).cumsum(0)
    at = at[torch.isin(at.cpu(), ends - 1, invert=True).to(at.device)]
    targets = ids.flatten()[at + 1]
    try:
        return model(**inputs, label_at=at, targets=targets, each=True).float()
    except (TypeError, ValueError, RuntimeError, AttributeError) as e:
        pass_on(e)
        check_refused(e)
        return None


def _close(values: Tensor, expected: Tensor, limit: float) -> bool:
    same_shape = values.shape == expected.shape
    return same_shape and bool(torch.allclose(values, expected, rtol=limit, atol=limit))


def gathered(trainer: Any) -> dict[str, Tensor] | None:
    """The weights of a model of which DeepSpeed may leave each process a share; all take part."""
    if not trainer.is_deepspeed_enabled:
        return None
    return cast(dict[str, Tensor], trainer.accelerator.get_state_dict(trainer.model_wrapped))


def write(model: Any, folder: Path, state: dict[str, Tensor] | None) -> None:
    """A whole model, or an adapter without its base, as safetensors; where the vocabulary grew
    (harness.modeling.chat_format) with the embeddings, which the base has not.

    state: the gathered weights, where the model itself holds a share of them only.
    """
    if folder.exists():
        shutil.rmtree(folder)
    with_embeddings = getattr(model, "harness_grown", False) and hasattr(model, "peft_config")
    if with_embeddings and state is None:
        state = model.state_dict()
    if state is not None and model.config.tie_word_embeddings:
        # Gathered, or beside an adapter, the head would be written too, apart from the embeddings.
        tied = tuple(getattr(model, "_tied_weights_keys", None) or ())
        state = {
            name: weight for name, weight in state.items() if not name.endswith(tied or ("\0",))
        }
    settings: dict[str, Any] = {} if state is None else {"state_dict": state}
    if with_embeddings:
        settings["save_embedding_layers"] = True
    model.save_pretrained(folder, **settings)
    (folder / "README.md").unlink(missing_ok=True)
    adapter = folder / ADAPTER
    if adapter.is_file():
        # The path of the machine it was trained on says nothing; the row says what the base is.
        config = json.loads(adapter.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = ""
        # PEFT holds a set, whose order is another one in each process.
        config["target_modules"] = sorted(config["target_modules"])
        adapter.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge(
    source: ModelSource,
    inputs: dict[str, str],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    precision: str,
) -> None:
    """Replace the adapter in `folder` by the whole model, the adapter added to the unquantised base.

    The sum is made in float32, on the CPU, and then written in `precision`.
    """
    from peft import PeftModel

    with memory_for("adding the adapter to the base model", partial(way_on, other=UNMERGED)):
        base = load_model(source, inputs, tokenizer, "float32", "cpu")
        _make_savable(base)
        with quiet_peft():
            merged = PeftModel.from_pretrained(base, folder).merge_and_unload()
        write(merged.to(getattr(torch, precision)), folder, None)
