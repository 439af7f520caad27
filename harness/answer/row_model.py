"""The row's own model as evaluations read it: of a QLoRA row with its base as it was in training."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.answer.engine import QUANTIZATION
from harness.artefact.call import CHECKPOINT, MANIFEST, Account, StageCall
from harness.modeling.load import (
    TRAINED,
    device_name,
    load_model,
    memory_for_loading,
    precision_notes,
    trained_folder,
)
from harness.spec.model_source import ModelSource
from harness.spec.train import Quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

UNKNOWN = "the server was started elsewhere"
UNQUANTIZED = "the adapter is on the unquantised base"
"""How what is told of a base begins: a replay tells it again, and all else is found anew."""


@dataclass
class Base(Account):
    """Which base the numbers are about, as it is told beside them."""

    quantization: Quantization | None = None


def base_of(call: StageCall, cannot: str = "", is_known: bool = True) -> Base:
    """`cannot`: why what evaluates cannot quantise the base; empty where it can. `is_known`: whether
    it can be known what it does. A replay tells what the recorded run did."""
    if call.replay:
        recorded = _from_manifest(call, "recorded", "deviations") or []
        return Base(
            deviations=[
                deviation for deviation in recorded if deviation.startswith((UNKNOWN, UNQUANTIZED))
            ]
        )
    requested = call.params.get(QUANTIZATION)
    quantization = (
        Quantization.model_validate(requested) if requested else _trained_quantization(call)
    )
    if quantization is None:
        return Base()
    how = f"{quantization.type}{' with double quantisation' if quantization.double else ''}"
    if not is_known:
        unknown = (
            f"{UNKNOWN}, and whether its base is quantised as the one that was trained ({how}) is not "
            "known"
        )
        return Base(used={QUANTIZATION: "not known"}, deviations=[unknown])
    if requested and not cannot:
        note = f"the adapter is on its base as trained, quantised to {how}"
        return Base(quantization, used={QUANTIZATION: quantization.model_dump()}, notes=[note])
    reason = f" ({cannot})" if requested else ""
    other = (
        f"{UNQUANTIZED}{reason}, another model than the one that was trained, whose base was "
        f"quantised to {how}"
    )
    return Base(used={QUANTIZATION: "none"}, deviations=[other])


def account_of(
    call: StageCall, source: ModelSource, model: "PreTrainedModel", device: str, seconds: float
) -> Account:
    """Of a loaded model that worked for so many seconds."""
    import torch

    account = Account(
        used={
            "parameters": model.num_parameters(),
            "device": device_name(device),
            "threads": torch.get_num_threads(),
        },
        cost={"gpu_seconds": round(seconds, 3) if device == "cuda" else 0.0},
    )
    if source.random is not None and trained_folder(call.inputs) is None:
        account.used["base_model"] = "random"
        account.seeds["model"] = source.random.seed
        account.notes.append("the model had random weights and no training")
    return account


def load_row_model(
    call: StageCall,
    source: ModelSource,
    tokenizer: "PreTrainedTokenizerBase",
    precision: str,
    device: str,
) -> tuple["PreTrainedModel", Base]:
    """Raises InputError as harness.modeling.load.load_model, and OutOfMemory."""
    lacking = "" if find_spec("bitsandbytes") else "the package bitsandbytes is not installed here"
    base = base_of(call, lacking)
    with memory_for_loading(source, call.inputs, tokenizer, precision):
        model = load_model(source, call.inputs, tokenizer, precision, device, base.quantization)
    base.notes += precision_notes(device, precision)
    return model, base


def _trained_quantization(call: StageCall) -> Quantization | None:
    """Of the base that the row's model was trained on; None where it was not quantised."""
    document = _from_manifest(call, TRAINED, "document")
    quantization = document["params"]["train"].get(QUANTIZATION) if document else None
    return Quantization.model_validate(quantization) if quantization else None


def _from_manifest(call: StageCall, name: str, field: str) -> Any:
    """Of one of the call's inputs; None where the input is none or no artefact."""
    if name not in call.inputs:
        return None
    folder = Path(call.inputs[name])
    if name == TRAINED and CHECKPOINT in call.params:
        folder = folder.parents[1]
    path = folder / MANIFEST
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8")).get(field)
