"""Which parts of a spec are compared between rows, and so can be named as what a table studies."""

from collections.abc import Sequence

from pydantic import BaseModel

from harness.judge.judge import RowOutputs
from harness.judge.kinds.flow_judge import Rubric
from harness.spec.base import NOT_KEY, DataPath, Endpoint, FileText, models_in
from harness.spec.hub import HubData
from harness.spec.model_source import ModelSource
from harness.spec.prompts import OutputFiles
from harness.spec.template import Template

STUDIED = ("model", "template", "gen", "data", "train", "eval")
"""The parts of a spec that decide a result."""
NOT_COMPARED = frozenset(
    {
        "batch_size", "batching", "deepspeed", "deterministic", "gradient_checkpointing", "launch",
        "liger_kernels", "on_model_change", "packing", "seed", "threads", "transcript",
        "trust_remote_code", "validation",
    }
)  # fmt: skip
"""Fields that say how, and not what, or that make a replicate; EXCEPTIONS count all the same."""
EXCEPTIONS = frozenset(
    {"train.batch_size", "train.validation", "eval.answer.quantization", "eval.judge.quantization"}
)
HELD_OUT = ("share", "seed")
"""Of train.validation: what takes examples from the training."""
WHOLE = (Template, DataPath, FileText, ModelSource, Endpoint, HubData, OutputFiles, RowOutputs)
"""Parts that are compared, and shown, as one."""
PROMPT_SETS = ("eval.answer.prompts", "eval.judge.examples")
"""Each of their fields is compared as one."""
KINDS = ("eval.judge.kind", "eval.answer.engine.kind")
"""Tags that are settings of their own; of all other parts the kind is the part's own setting."""


def is_compared(model: type[BaseModel], name: str, at: str) -> bool:
    """Whether a field of the part at the dotted path `at` is a setting."""
    extra = model.model_fields[name].json_schema_extra
    if extra == NOT_KEY and f"{at}.{name}" not in EXCEPTIONS:
        return False
    if at == "train.validation":
        return name in HELD_OUT
    if name == "seed" and at.partition(".")[0] == "gen":
        return True  # another draw is another data set
    return name not in NOT_COMPARED or f"{at}.{name}" in EXCEPTIONS


def check_studied(row: type[BaseModel], parts: Sequence[str], path: str) -> str:
    """A dotted path of field names that some setting stands at, such as `eval.answer.template`.

    Raises:
        ValueError: there is no such part, or it is none that rows are compared in.
    """
    models: list[type[BaseModel]] = [row]
    names, at = list(parts), ""
    for part in path.split("."):
        here = f"{at}.{part}" if at else part
        if at and not names:
            raise ValueError(f"{at} has no parts of its own: write {at}")
        if part not in names:
            raise ValueError(f"specs have no such part; known at {part!r}: {', '.join(names)}")
        having = [model for model in models if part in model.model_fields]
        if at and (_is_one(at, having) or (part in ("kind", "recipe") and here not in KINDS)):
            raise ValueError(f"{at} is compared as a whole: write {at}")
        if at and not any(is_compared(model, part, at) for model in having):
            raise ValueError(f"{here} is not compared between rows, so that it need not be studied")
        models = [m for model in having for m in models_in(model.model_fields[part].annotation)]
        names = sorted({name for model in models for name in model.model_fields})
        at = here
    return path


def _is_one(at: str, models: Sequence[type[BaseModel]]) -> bool:
    return at.rpartition(".")[0] in PROMPT_SETS or all(
        issubclass(m, (*WHOLE, Rubric)) for m in models
    )
