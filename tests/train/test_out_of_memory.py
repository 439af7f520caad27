"""A training whose memory runs out: told as that wherever it happens, with what would fit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.artefact.call import CALL_FILE
from harness.artefact.keys import Files, key_view
from harness.common.device_faults import OutOfMemory
from harness.errors import HarnessError
from harness.spec.train import Train
from harness.train import checkpoints, loop, process
from harness.train import model as models
from harness.train import run as train
from harness.train.model import choose_path
from tests.common.test_device_faults import FAILED, MEMORY
from tests.helpers import ROOT
from tests.modeling.calls import random_model, train_call
from tests.train.test_packing import a_model

HUGE = random_model(vocab_size=2**40)
"""Embeddings of 2**47 bytes: no CPU gives them."""


def raising(error: Exception, works: Any = None, calls: int = 0) -> Any:
    """What `works` so many times, and then raises."""
    left = [works] * calls

    def do(*args: Any, **kwargs: Any) -> Any:
        if left:
            return left.pop()(*args, **kwargs)
        raise error

    return do


ERRORS = {**MEMORY, "the CPU": MemoryError()}
PLACES = {
    "harness.train.model._own_loss": "trying the model with two texts",
    "harness.train.loop.loss_parts": "training",
    "harness.train.loop.held_out_loss": "measuring the held-out loss",
    "harness.train.loop.Trainer._save": "saving a checkpoint",
    "transformers.AutoModelForCausalLM.from_config": "loading the model",
    "harness.train.model.write": "writing the model",
    "peft.PeftModel.from_pretrained": "adding the adapter to the base model",
}


@pytest.mark.parametrize("error", MEMORY.values(), ids=MEMORY)
def test_a_probe_without_memory_is_no_model_without_a_loss(error: Exception) -> None:
    for name in ("_own_loss", "_attempt"):
        model = a_model()
        with pytest.MonkeyPatch.context() as patch:
            if name == "_own_loss":
                patch.setattr(models, name, raising(error))
            else:
                forward = model.forward
                patch.setattr(
                    model,
                    "forward",
                    lambda *a, f=forward, **k: raising(error)() if "label_at" in k else f(*a, **k),
                )
            with pytest.raises(type(error), match=re.escape(str(error))):
                choose_path(model, packing=True)


def test_a_probe_on_a_gpu_that_failed_is_no_model_without_a_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "_own_loss", raising(FAILED["an index"]))
    with pytest.raises(RuntimeError, match="device-side assert"):
        choose_path(a_model(), packing=True)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", ["torch", "cuBLAS", "the CPU"])
def test_wherever_a_trainings_memory_runs_out_it_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, kind: str
) -> None:
    settings: dict[str, Any] = {"checkpoint_steps": 2, "validation": {"share": 0.2}}
    if "peft" in where:
        settings |= {"method": "lora", "lora": {"merge": True}}
    call = train_call(tmp_path, **settings)
    monkeypatch.setattr(where, raising(ERRORS[kind]))
    with pytest.raises(OutOfMemory, match=f"(?m)memory ran out while {PLACES[where]}$") as caught:
        train.run(call)
    assert "same command goes on from the last checkpoint" in caught.value.hint
    if PLACES[where] in ("training", "loading the model"):
        assert "It needs about" in caught.value.hint
        weights_alone = PLACES[where] == "loading the model"
        assert ("for its weights alone" in caught.value.hint) == weights_alone
        assert ("batch_size: 2, accumulation: 2" in caught.value.hint) != weights_alone
        assert "other settings the training begins anew" in caught.value.hint
        return
    assert ("limits.memory" in caught.value.hint) == caught.value.on_cpu
    assert ("a GPU with more memory free" in caught.value.hint) != caught.value.on_cpu
    assert "batch_size" not in caught.value.hint
    assert ("lora.merge: false" in caught.value.hint) == ("adapter" in PLACES[where])
    assert ("a smaller model" in caught.value.hint) == ("two texts" in PLACES[where])
    assert ("Take shorter ones" in caught.value.hint) == ("held-out" in PLACES[where])


@pytest.mark.parametrize("offloads", [True, False])
def test_only_a_training_that_offloads_is_told_to_do_without(offloads: bool) -> None:
    zero = {"stage": 2, "offload_optimizer": offloads}
    params = Train.model_validate({"deepspeed": zero})
    hint = process._what_fits(params, None, None, "cuda", True)  # type: ignore[arg-type]
    assert ("no offloading" in hint) == offloads
    assert "limits.memory" in hint


def test_after_memory_ran_out_the_same_command_goes_on_to_the_very_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        call = train_call(tmp_path / name, checkpoint_steps=2)
        if name == "broken":
            with monkeypatch.context() as patch:
                broken = raising(MEMORY["CUDA"], loop.loss_parts, calls=3)
                patch.setattr(loop, "loss_parts", broken)
                with pytest.raises(OutOfMemory):
                    train.run(call)
            last = checkpoints.newest(call.folder / "checkpoints")
            assert last is not None
            assert last.step == 2
        train.run(call)
        weights.append((call.folder / "model" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_smaller_micro_batch_is_another_training_as_the_hint_says(tmp_path: Path) -> None:
    files = Files(tmp_path, None)
    half = {"batch_size": 4, "accumulation": 2}
    views = [key_view(Train.model_validate(settings), files) for settings in ({}, half)]
    assert views[0] != views[1]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_model_that_the_cpu_has_no_room_for_is_told_as_that_by_any_process(
    tmp_path: Path, processes: int
) -> None:
    call = train_call(tmp_path, model=HUGE, launch={"processes": processes})
    call.write(call.folder / CALL_FILE)
    with pytest.raises(HarnessError, match="the CPU's memory ran out while loading the model") as e:
        train.run(call)
    assert e.value.exit_code == 1
    assert "It needs about" in e.value.hint


WORKER = """
import sys
from harness.train import loop, worker
def fail(*args, **kwargs):
    raise RuntimeError("CUDA error: device-side assert triggered\\nCUDA kernel errors might be late")
loop.loss_parts = fail
worker.main(sys.argv[1:])
"""


def test_a_worker_whose_gpu_fails_says_so_in_one_line(tmp_path: Path) -> None:
    call = train_call(tmp_path)
    call.write(call.folder / CALL_FILE)
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(call.folder / CALL_FILE)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RANK": "0", "WORLD_SIZE": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    said = json.loads((call.folder / "train_fault.json").read_text())
    assert said["message"] == "the GPU failed: CUDA error: device-side assert triggered"
    assert "CUDA_LAUNCH_BLOCKING=1" in said["hint"]
    assert "Traceback" not in done.stderr


LONG = [{"instruction": "a", "output": "b" * 8000}] * 64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize(
    ("model", "rows", "what"),
    [
        (random_model(vocab_size=2**18, hidden_size=2048), None, "loading the model"),
        (random_model(hidden_size=512, max_position_embeddings=9000), LONG, "training"),
    ],
)
def test_on_a_small_gpu_loading_and_training_say_what_would_fit(
    tmp_path: Path, small_gpu: None, model: dict[str, Any], rows: Any, what: str
) -> None:
    call = train_call(tmp_path, rows, model=model, batch_size=64, cutoff_length=9000)
    with pytest.raises(OutOfMemory, match=f"the GPU's memory .* ran out while {what}") as caught:
        train.run(call)
    assert "It needs about" in caught.value.hint
