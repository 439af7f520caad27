"""The `train` stage: supervised fine-tuning and ORPO of a causal language model.

Every parameter is a field of harness.spec.train.Train. What decides the weights beside them: the
data's bytes, the tokenizer, the library versions, the kind of device and (on a CPU) the number of
threads. `bfloat16` is mixed precision: the weights that are trained stay in float32.

Several processes, and DeepSpeed, run under torchrun (harness.train.launch); else the model is trained
in this process. Raises InputError for a data set, a model or a template that cannot be used as it
stands, HarnessError where the loss is no longer a number or the device is too small, and OSError for
a full disk.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness.artefact.call import StageCall, StageResult
from harness.modeling.load import load_tokenizer
from harness.spec.model_source import ModelSource
from harness.spec.template import Template
from harness.spec.train import Train
from harness.train import checkpoints
from harness.train.data import Data, load_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL = "model"
LOG = "trainer_log.jsonl"
TEMPLATE = "template.json"


def run(call: StageCall) -> StageResult:
    """Train, or go on training from the last finished checkpoint in the work folder."""
    params, template, source, tokenizer, data = read_inputs(call)
    checkpoints.resume(call.folder / "checkpoints", call.folder / LOG)
    if params.deepspeed is None and params.launch.processes * params.launch.machines == 1:
        from harness.train.process import train_here

        result = train_here(call, params, source, tokenizer, data)
    else:
        from harness.train.launch import train_under_torchrun

        result = train_under_torchrun(call, params)
    _describe(call, template, result)
    return result


def read_inputs(
    call: StageCall,
) -> tuple[Train, Template, ModelSource, "PreTrainedTokenizerBase", Data]:
    """What every process of a training begins with. Raises InputError as load_tokenizer, load_data."""
    params = Train.model_validate(call.params["train"])
    template = Template.model_validate(call.params["template"])
    source = ModelSource.model_validate(call.params["model"])
    tokenizer = load_tokenizer(source, call.inputs)
    return params, template, source, tokenizer, load_data(call, params, template, tokenizer)


def _describe(call: StageCall, template: Template, result: StageResult) -> None:
    """The template (its texts, not where they were read), the loss curve and the model card."""
    from harness.train import model_card
    from harness.train.model_card import CARD, CURVE, facts_of, plot_losses, write_card

    texts = template.model_dump(mode="json")
    for name, value in texts.items():
        if isinstance(value, dict) and "text" in value:
            texts[name] = value["text"].removesuffix("\n")
    (call.folder / TEMPLATE).write_text(
        json.dumps(texts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    facts = facts_of(call, result)
    plot_losses(call.folder / LOG, call.folder / CURVE, "; ".join(model_card.marks(facts)))
    write_card(call.folder, facts)
    result.keep += [TEMPLATE, CURVE, CARD]


def last_loss(log: Path) -> float:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return float(next(line["loss"] for line in reversed(lines) if "loss" in line))
