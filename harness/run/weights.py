"""How large the models are that stages read, as far as that is known before they run."""

import re
from pathlib import Path

from harness.answer.engine import QUANTIZATION
from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.common.json_files import read_object
from harness.common.paths import size_of
from harness.errors import InputError
from harness.modeling.memory.need import BFLOAT16, FLOAT32, frozen_weights, shape_of
from harness.run.plan import StagePlan, dtype_of
from harness.spec.train import Quantization

PARAMETERS = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)
"""In a model's name, how many it has."""
BYTES = BFLOAT16
"""Of a parameter, as models are published."""

BY_NAME = "by its name, which may leave out embeddings and head"


def weights_of(stage: StagePlan, store: Store, files: Files) -> int | None:
    """Bytes of the weights of a stage's model that answers or scores, as the stage loads them: by its
    parameters and the type that it has them in, in memory. None where that is not known.

    The parameters are those of its configuration or of its files' headers; of a model that is not here
    those that its name says; else as many as its files have room for.
    """
    source = stage.judge_model or stage.base
    if stage.stage == "train" or source is None:
        return None
    quantization: Quantization | None = stage.params.get(QUANTIZATION)
    size = BFLOAT16 if dtype_of(stage.params) == "bfloat16" else FLOAT32
    hub = source.hub
    folder = store.hub_folder(hub, source.trust_remote_code) if hub is not None else None
    try:
        shape = shape_of(source, files, folder)
        if shape is not None:
            return int(frozen_weights(quantization, shape, size))
        if source.path is not None:
            folder = files.locate(source.path)
    except InputError:
        return None
    if quantization is not None:
        return None
    if folder is not None and folder.is_dir():
        return size_of(folder) // _stored_size(folder) * size
    published = size_by_name(hub.id) if hub is not None else None
    return None if published is None else published // BYTES * size


def is_by_name(stage: StagePlan, store: Store) -> bool:
    """Whether of the model's size nothing is known but its name: it is on the hub, and not here."""
    source = stage.judge_model or stage.base
    if source is None or source.hub is None:
        return False
    return not store.hub_folder(source.hub, source.trust_remote_code).is_dir()


def _stored_size(folder: Path) -> int:
    """Bytes of a parameter in a model's files, as its configuration says."""
    config = read_object(folder / "config.json") or {}
    dtype = config.get("dtype") or config.get("torch_dtype")
    return BFLOAT16 if dtype in ("bfloat16", "float16") else FLOAT32


def size_by_name(model: str) -> int | None:
    """Bytes of the files of a model that says in its name how many parameters it has: Qwen1.5-0.5B."""
    matches = PARAMETERS.findall(model.rpartition("/")[2])
    if not matches:
        return None
    number, unit = matches[-1]
    return int(float(number) * (10**9 if unit in "bB" else 10**6) * BYTES)
