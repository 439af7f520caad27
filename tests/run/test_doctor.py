"""What `harness doctor` says of the given data, the GPUs and what passes them on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest

from harness.artefact import environment, gpus
from harness.run import doctor
from harness.run.doctor import given_data
from harness.run.doctor_check import Check
from tests.helpers import give_gpus, some_gpus


def test_a_folder_with_nothing_but_its_own_description_holds_no_given_data(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("What goes here.")
    (tmp_path / ".gitignore").write_text("*")
    found = given_data(tmp_path)
    assert not found.is_present
    assert found.state.endswith(": 0 files")
    assert "`data:`" in found.prevents


def test_given_files_are_counted_in_folders_too(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.json").write_text("[]")
    found = given_data(tmp_path)
    assert (found.is_present, found.prevents) == (True, "")
    assert found.state.endswith(": 1 file")


def test_where_no_folder_is_named_the_option_that_names_it_is_told() -> None:
    found = given_data(None)
    assert not found.is_present
    assert "--inputs" in found.prevents


def test_each_gpu_that_may_be_used_is_told_with_its_driver_and_capability(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_gpus(monkeypatch, *some_gpus(1, capability=(7, 5)), *some_gpus(1))
    found = doctor._gpu()
    assert (found.is_present, found.prevents) == (True, "")
    assert "0 NVIDIA H (GPU-0000), 80.0 GiB, driver 580.95.05, sm_75, which emulates" in found.state
    assert found.state.endswith("sm_90")


@pytest.mark.parametrize(
    ("facts", "prevents"),
    [
        (
            {"driver": "550.54"},
            "its driver is 550.54, and CUDA 13 needs 580 or newer. Update the driver.",
        ),
        (
            {"capability": (6, 1), "driver": "550.54"},
            "NVIDIA H is sm_61, and CUDA 13 is for sm_75 and newer. No driver mends that: it takes a "
            "card of sm_75 or newer.",
        ),
    ],
)
def test_what_too_old_a_driver_or_card_prevents_is_told(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], prevents: str
) -> None:
    give_gpus(monkeypatch, *some_gpus(2, **facts))
    found = doctor._gpu()
    assert not found.is_present
    assert found.prevents == f"the CUDA images and torch for CUDA 13: {prevents}"
    assert "emulates" not in found.state


def test_gpus_that_are_there_and_not_used_are_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    give_gpus(monkeypatch, *some_gpus(2))
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cpu")
    monkeypatch.setattr(environment, "accelerator", lambda: "cpu")
    found = doctor._gpu()
    assert not found.is_present
    assert found.state == "not used, for HARNESS_ACCELERATOR says cpu: NVIDIA H"


@pytest.mark.parametrize("labels", [{}, {"harness.compiler": "gcc"}])
def test_a_train_image_for_cuda_from_before_its_compiler_is_told(
    monkeypatch: pytest.MonkeyPatch, labels: dict[str, str]
) -> None:
    give_gpus(monkeypatch, *some_gpus(1))
    labels["harness.lock"] = environment.lock_digest("train-cuda")
    image = SimpleNamespace(labels=labels, attrs={"Size": 1})
    client = SimpleNamespace(images=SimpleNamespace(get=lambda tag: image))
    found = doctor._image(client, "train")
    assert found.is_present == ("harness.compiler" in labels)
    assert ("train.liger_kernels; build it anew" in found.prevents) != found.is_present


def test_a_gpu_whose_driver_does_not_answer_is_told_in_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_gpus(monkeypatch)
    assert doctor._gpu().state == "none"
    monkeypatch.setattr(gpus, "_asked", lambda: ((), "Failed to initialize NVML"))
    monkeypatch.delenv("HARNESS_ACCELERATOR", raising=False)
    found = doctor._gpu()
    assert found.state == "nvidia-smi does not find one: Failed to initialize NVML"
    assert "HARNESS_ACCELERATOR=cpu" in found.prevents


@pytest.mark.parametrize("named", ["5", "", "0,0"])
def test_a_choice_that_leads_to_no_gpu_is_told_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    give_gpus(monkeypatch, *some_gpus(2))
    monkeypatch.setenv(gpus.VISIBLE, named)
    found = doctor._gpu()
    assert not found.is_present
    assert "Unset CUDA_VISIBLE_DEVICES, or name 1 that are here" in found.prevents


def test_a_driver_that_does_not_answer_where_cuda_is_asked_for_is_told_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_gpus(monkeypatch)
    monkeypatch.setattr(gpus, "_asked", lambda: ((), "Failed to initialize NVML"))
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cuda")
    monkeypatch.setattr(environment, "accelerator", lambda: "cuda")
    assert gpus.MEND_DRIVER in doctor._gpu().prevents


@pytest.mark.parametrize(
    ("info", "there"),
    [
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": None}, False),
        ({"Runtimes": {"runc": {}, "nvidia": {}}}, True),
        ({"Runtimes": {}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, True),
    ],
)  # fmt: skip
def test_the_toolkit_that_passes_gpus_on_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], there: bool
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = doctor._toolkit(SimpleNamespace(info=lambda: info))
    assert found.is_present == there
    assert ("nvidia-ctk runtime configure" in found.prevents) != there


@pytest.mark.parametrize(
    ("lacking", "line"),
    [
        ({"image gen", "GPU"}, "here: all stages, by --executor local, on the CPU; images: `make "
                               "images`"),
        ({"podman"}, "here: all stages, by --executor local or docker, on the GPUs"),
        ({"local stages", "image gen"}, "here: no stage yet; `make install` lets them run locally; "
                                        "images: `make images`"),
        ({"volume"}, "here: no run, for want of volume"),
    ],
)  # fmt: skip
def test_the_last_line_says_what_this_machine_can_do_now(lacking: set[str], line: str) -> None:
    checks = [
        Check(what not in lacking, what, "", "any run" if what in lacking & {"volume"} else "")
        for what in ("image gen", "podman", "GPU", "local stages", "volume")
    ]
    assert doctor.summary(checks) == line


def test_an_image_that_is_not_built_is_made_as_the_readme_makes_it() -> None:
    class NoImages:
        images = SimpleNamespace(get=lambda tag: _raise(docker.errors.ImageNotFound(tag)))

    assert doctor._image(NoImages(), "train").prevents == "its stages; build it: make images"


def _raise(error: Exception) -> None:
    raise error
