"""What a stage runs on: a GPU that torch can use, the CPU where that is asked for, or an error."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from harness.artefact import environment, events, gpus
from harness.artefact.manifest import Manifest
from harness.errors import HarnessError
from harness.modeling import load
from harness.report.html.sections import stages
from harness.spec.train import Train
from harness.train import model_card
from harness.train.process import _make_repeatable
from tests.helpers import give_gpus, some_gpus

TOO_OLD = "The NVIDIA driver on your system is too old (found version 12080)."


def fake_torch(
    monkeypatch: pytest.MonkeyPatch,
    available: bool,
    cuda: str | None = "13.0",
    capability: tuple[int, int] = (9, 0),
    said: str = "No CUDA GPUs are available",
) -> None:
    def init() -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torch.version, "cuda", cuda)
    fakes: dict[str, Any] = {
        "is_available": lambda: available,
        "init": init,
        "get_device_capability": lambda *device: capability,
        "get_device_name": lambda *device: "NVIDIA X",
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_90", "sm_120", "compute_120"],
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)


@pytest.fixture(autouse=True)
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_ACCELERATOR", raising=False)


def test_on_a_gpu_answers_and_judges_in_float32_have_no_tf32_whatever_was_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_torch(monkeypatch, available=True)
    convolutions = torch.backends.cudnn.allow_tf32
    try:
        load.set_tf32(True)
        assert load.available_device() == "cuda"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    finally:
        load.set_tf32(False)
        torch.backends.cudnn.allow_tf32 = convolutions


def test_a_driver_that_is_too_old_for_torchs_cuda_is_an_error_that_says_both_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_torch(monkeypatch, available=False, said=TOO_OLD)
    give_gpus(monkeypatch, *some_gpus(1, driver="570.86.10"))
    with pytest.raises(
        HarnessError, match=r"CUDA 13\.0 cannot use one: its driver is 570\.86\.10"
    ) as e:
        load.available_device()
    assert "CUDA 13 needs 580 or newer" in e.value.message
    assert TOO_OLD in e.value.hint
    assert "HARNESS_ACCELERATOR=cpu" in e.value.hint


@pytest.mark.parametrize(
    ("may_use", "said"), [(None, "none was passed in"), ("", "CUDA_VISIBLE_DEVICES is ''")]
)
def test_a_process_of_a_cuda_image_without_a_gpu_is_an_error(
    monkeypatch: pytest.MonkeyPatch, may_use: str | None, said: str
) -> None:
    fake_torch(monkeypatch, available=False)
    give_gpus(monkeypatch)
    monkeypatch.setattr(environment, "accelerator", lambda: "cuda")
    if may_use is not None:
        monkeypatch.setenv(gpus.VISIBLE, may_use)
    with pytest.raises(HarnessError, match=said) as e:
        load.available_device()
    assert "No CUDA GPUs are available" in e.value.hint


def test_what_torch_says_is_told_where_nothing_else_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_torch(monkeypatch, available=False, cuda="12.8", said="CUDA unknown error")
    give_gpus(monkeypatch, *some_gpus(1, driver="570.86.10"))
    with pytest.raises(HarnessError, match=r"CUDA 12\.8 cannot use one: CUDA unknown error"):
        load.available_device()


def test_a_build_for_the_cpu_where_there_is_a_gpu_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_torch(monkeypatch, available=False, cuda=None)
    give_gpus(monkeypatch, *some_gpus(1))
    with pytest.raises(HarnessError, match="is a build for the CPU") as e:
        load.available_device()
    assert "ACCELERATOR=cuda make install" in e.value.hint


@pytest.mark.parametrize("available", [True, False])
def test_whoever_asks_for_the_cpu_gets_it(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    fake_torch(monkeypatch, available)
    give_gpus(monkeypatch, *some_gpus(1))
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cpu")
    assert load.available_device() == "cpu"


def test_without_a_gpu_the_cpu_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, available=False)
    give_gpus(monkeypatch)
    assert load.available_device() == "cpu"


def test_a_card_older_than_torchs_build_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, available=True, capability=(7, 0))
    with pytest.raises(HarnessError, match=r"NVIDIA X is sm_70, .* is built for sm_75 and newer"):
        load.available_device()


@pytest.mark.parametrize("capability", [(7, 5), (8, 9), (12, 1), (13, 0)])
def test_newer_cards_are_taken(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    fake_torch(monkeypatch, available=True, capability=capability)
    assert load.available_device() == "cuda"


@pytest.mark.parametrize(
    ("device", "precision", "capability", "told"),
    [
        ("cuda", "bfloat16", (7, 5), True),
        ("cuda", "bfloat16", (8, 0), False),
        ("cuda", "float32", (7, 5), False),
        ("cpu", "bfloat16", (7, 5), False),
    ],
)
def test_bfloat16_that_a_card_emulates_is_told(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    precision: str,
    capability: tuple[int, int],
    told: bool,
) -> None:
    fake_torch(monkeypatch, available=True, capability=capability)
    notes: list[str] = []
    monkeypatch.setattr(events, "note", notes.append)
    assert load.precision_notes(device, precision) == notes
    assert bool(notes) == told
    assert all("NVIDIA X (sm_75) has no arithmetic in bfloat16" in note for note in notes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_this_machines_gpus_are_told_as_torch_finds_them() -> None:
    environment.accelerator.cache_clear()
    assert environment.accelerator() == load.available_device() == "cuda"
    found = gpus.visible()
    assert len(found) == torch.cuda.device_count()
    for number, gpu in enumerate(found):
        assert gpu.capability == torch.cuda.get_device_capability(number)
        assert gpu.uuid.endswith(str(torch.cuda.get_device_properties(number).uuid))
        assert gpus.cannot(gpu) == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("count", [0, 1])
def test_a_process_sees_the_gpus_that_were_chosen_for_it(count: int) -> None:
    chosen = gpus.choose(count, "this test")
    code = "import torch; print([str(torch.cuda.get_device_properties(n).uuid) "
    code += "for n in range(torch.cuda.device_count())])"
    own = {**os.environ, **gpus.restricted_to(chosen)}
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, check=True)
    assert done.stdout.decode().strip() == str([gpu.uuid.removeprefix("GPU-") for gpu in chosen])


def test_whoever_starts_a_stage_alone_on_several_gpus_is_told_what_has_an_effect_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(HarnessError, match="this process sees 2 GPUs") as e:
        _make_repeatable("cuda", Train(), 1)
    assert "`harness run` shows a stage its own alone" in e.value.hint
    assert "CUDA_VISIBLE_DEVICES=0" in e.value.hint


def test_the_gpus_of_a_stage_stand_with_its_hardware_in_the_manifest_the_card_and_the_report() -> (
    None
):
    recorded = gpus.record(some_gpus(2))
    here = environment.describe_here(recorded)
    assert here["gpus"] == recorded
    assert "gpus" not in environment.describe_here()
    assert {"index", "uuid", "name", "driver"} <= set(recorded[0])
    used = {"environment": here, "device": "NVIDIA H"}
    manifest = Manifest(stage="train", key="0" * 64, used=used, seeds={"train": 1})
    facts = {"used": used, "seeds": {"train": 1}}
    assert "| GPU | NVIDIA H, driver 580.95.05 |" in list(model_card._environment(facts))
    assert "NVIDIA H, driver 580.95.05, NVIDIA H, driver" in stages._used(manifest)[0]
