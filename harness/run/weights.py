"""How large the models are that stages read, as far as that is known before they run."""

import json
import re
from pathlib import Path

from harness.answer.engine import QUANTIZATION
from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.common.paths import size_of
from harness.errors import InputError
from harness.modeling.memory.need import FLOAT32, shape_of
from harness.run.plan import StagePlan, dtype_of
from harness.spec.model_source import ModelSource

PARAMETERS = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)
"""In a model's name, how many it has."""
BYTES = 2
"""Of a parameter, as models are published."""


def weights_of(stage: StagePlan, store: Store, files: Files) -> int | None:
    """Bytes of a stage's model that answers or scores as it stands on the hub or on disk; else None."""
    source = stage.judge_model or stage.base
    if stage.stage == "train" or source is None or stage.params.get(QUANTIZATION):
        return None
    if source.hub is None:
        return _given_weights(source, files)
    folder = store.hub_folder(source.hub, source.trust_remote_code)
    stored = size_of(folder) if folder.is_dir() else size_by_name(source.hub.id)
    if stored is None or dtype_of(stage.params) != "float32" or not _is_half(folder):
        return stored
    return FLOAT32 // BYTES * stored


def _given_weights(source: ModelSource, files: Files) -> int | None:
    """Of a model on disk, or of one that is made at random, in float32."""
    try:
        if source.path is not None:
            return size_of(files.locate(source.path))
        shape = shape_of(source, files, None)
    except InputError:
        return None
    return FLOAT32 * shape.parameters if shape is not None else None


def _is_half(folder: Path) -> bool:
    """Whether a model's weights are stored in two bytes each, as nearly all are; so also of one that is
    not here."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return not folder.is_dir()
    dtype = config.get("dtype") or config.get("torch_dtype") if isinstance(config, dict) else None
    return dtype in ("bfloat16", "float16")


def size_by_name(model: str) -> int | None:
    """Bytes of a model that says in its name how many parameters it has: Qwen1.5-0.5B."""
    matches = PARAMETERS.findall(model.rpartition("/")[2])
    if not matches:
        return None
    number, unit = matches[-1]
    return int(float(number) * (10**9 if unit in "bB" else 10**6) * BYTES)
