"""Which GPUs there are, which the caller lets be used, and which a stage gets, by a stub nvidia-smi."""

import re
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artefact import environment, gpus
from harness.artefact.gpus import Gpu
from harness.errors import InputError
from harness.modeling.memory import fit as fitting
from tests.helpers import ROOT

GIB = 2**30
UUIDS = (
    "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "GPU-8932aaaa-0000-4106-c12f-20bd9faed9f7",
    "GPU-fa11f937-d72c-4106-c12f-20bd9faed9f8",
)
A100 = Gpu("NVIDIA A100", 40960 * 2**20, 0, UUIDS[0], "580.95.05", (8, 0))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without a GPU, whatever this one has."""
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.delenv("HARNESS_ACCELERATOR", raising=False)
    monkeypatch.setattr(gpus, "DEV", tmp_path / "dev")
    monkeypatch.setattr(gpus, "WSL", tmp_path / "wsl")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    forget()
    yield
    forget()


def forget() -> None:
    for cached in (gpus._asked, gpus._there, environment.accelerator):
        cached.cache_clear()


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    tool = folder / "bin" / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    forget()


def line(index: int, name: str = "NVIDIA A100", **facts: Any) -> str:
    told = {"uuid": UUIDS[index], "driver": "580.95.05", "size": 40960, "mig": "[N/A]", "cc": "8.0"}
    told |= facts
    fields = [index, *(told[f] for f in ("uuid", "driver", "size", "mig", "cc")), name]
    return "echo '" + ", ".join(map(str, fields)) + "'"


def three(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(folder, monkeypatch, "\n".join(map(line, range(3))))


def nodes(*names: str) -> None:
    gpus.DEV.mkdir(exist_ok=True)
    for name in names:
        (gpus.DEV / name).touch()
    forget()


def test_gpus_are_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, line(0) + "\n" + line(1, "NVIDIA B, C", size=8192, cc="12.0"))
    other = replace(A100, index=1, uuid=UUIDS[1], name="NVIDIA B, C", size=8 * GIB)
    assert gpus.visible() == (A100, replace(other, capability=(12, 0)))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'NVIDIA-SMI has failed: the driver does not answer'; exit 9", "NVIDIA-SMI has failed"),
        ("echo 'Failed to initialize NVML: version mismatch' >&2; exit 18", "to initialize NVML"),
        ("echo x", "cannot be read"),
    ],
)  # fmt: skip
def test_a_broken_driver_is_no_gpu_and_its_words_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    smi(tmp_path, monkeypatch, script)
    nodes("nvidia0")
    assert gpus.visible() == ()
    assert environment.accelerator() == "cuda"
    with pytest.raises(InputError, match=said):
        gpus.choose(1, "it")


@pytest.mark.parametrize(
    "odd",
    [
        "WARNING: infoROM is corrupted at gpu 0000:3B:00.0",
        "Unable to determine the device handle for GPU1: 0000:3B:00.0: Unknown Error",
        "1, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]",
    ],
)
def test_a_line_that_tells_of_no_gpu_hides_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    smi(tmp_path, monkeypatch, f"{line(0)}\necho '{odd}'")
    assert gpus.visible() == (A100,)


def test_a_gpu_that_shares_the_machines_memory_has_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(tmp_path, monkeypatch, line(0, "NVIDIA GB10", size="[N/A]"))
    (found,) = gpus.visible()
    assert found.size == fitting.machine_memory()


def test_a_driver_that_does_not_know_capabilities_is_asked_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = f"echo '0, {UUIDS[0]}, 470.82.01, 16160, [N/A], Tesla V100'"
    refusal = 'echo "Field \\"compute_cap\\" is not a valid field to query."; exit 2'
    smi(tmp_path, monkeypatch, f'case "$1" in *compute_cap*) {refusal};; esac\n{old}')
    (found,) = gpus.visible()
    assert (found.name, found.driver, found.capability) == ("Tesla V100", "470.82.01", None)
    assert gpus.cannot(found) == "its driver is 470.82.01, and CUDA 13 needs 580 or newer"


PARTED = """case "$1" in -L) cat <<'END'
GPU 0: NVIDIA A100 (UUID: GPU-8932f937-d72c-4106-c12f-20bd9faed9f6)
  MIG 3g.20gb     Device  0: (UUID: MIG-11111111-5d0c-5a3c-a2a5-5d6b8a3f0c11)
  MIG 1g.5gb      Device  1: (UUID: MIG-22222222-5d0c-5a3c-a2a5-5d6b8a3f0c22)
GPU 1: NVIDIA A100 (UUID: GPU-8932aaaa-0000-4106-c12f-20bd9faed9f7)
END
exit;; esac"""


def test_of_a_gpu_that_mig_parts_there_are_the_parts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "\n".join([PARTED, line(0, mig="Enabled"), line(1, mig="Disabled")])
    smi(tmp_path, monkeypatch, script)
    large, small, whole = gpus.visible()
    assert [gpu.name for gpu in (large, small)] == [
        "NVIDIA A100 MIG 3g.20gb",
        "NVIDIA A100 MIG 1g.5gb",
    ]
    assert (large.size, small.size, whole.uuid) == (20 * 10**9, 5 * 10**9, UUIDS[1])
    monkeypatch.setenv(gpus.VISIBLE, "MIG-2222")
    assert gpus.visible() == (small,)
    assert gpus.restricted_to(gpus.choose(1, "it")) == {gpus.VISIBLE: small.uuid}


@pytest.mark.parametrize(
    ("named", "indices"),
    [
        ("", []),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("0,-1,1", [0]),
        ("0,7,1", [0]),
        ("NoDevFiles", []),
        ("1,1", []),
        (UUIDS[2], [2]),
        ("GPU-fa11", [2]),
        ("GPU-8932a,GPU-fa", [1, 2]),
        ("GPU-8932", []),  # the beginning of two
        ("GPU-fa,GPU-none,GPU-8932a", [2]),
        ("MIG-none", []),
    ],
)
def test_the_callers_choice_is_read_as_cuda_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, indices: list[int]
) -> None:
    three(tmp_path, monkeypatch)
    monkeypatch.setenv(gpus.VISIBLE, named)
    assert [gpu.index for gpu in gpus.visible()] == indices


def test_what_a_process_was_shown_it_finds_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three(tmp_path, monkeypatch)
    monkeypatch.setenv(gpus.VISIBLE, "2,1")
    chosen = gpus.choose(1, "it")
    assert [gpu.index for gpu in chosen] == [2]
    monkeypatch.setenv(gpus.VISIBLE, gpus.restricted_to(chosen)[gpus.VISIBLE])
    assert gpus.choose(1, "it") == gpus.visible() == chosen


def test_too_few_are_refused_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="it needs 1 GPU, and there is none here"):
        gpus.choose(1, "it")
    three(tmp_path, monkeypatch)
    assert gpus.choose(0, "it") == ()
    with pytest.raises(
        InputError, match=r"it needs 4 GPUs, and there are 3 here: NVIDIA A100\n"
    ) as e:
        gpus.choose(4, "it")
    assert "Set train.launch.processes: 3, or run it where there are 4." in e.value.hint
    assert gpus.VISIBLE not in e.value.hint
    monkeypatch.setenv(gpus.VISIBLE, "1")
    with pytest.raises(InputError, match="CUDA_VISIBLE_DEVICES=1 shows 1; there are 3 here") as e:
        gpus.choose(2, "it", "tensor_parallel", "a way out")
    assert e.value.hint == (
        "Unset CUDA_VISIBLE_DEVICES, or name 2 that are here (CUDA_VISIBLE_DEVICES=0,1). a way out. "
        "`harness doctor` shows what is there."
    )


def test_where_there_is_no_gpu_the_hint_speaks_of_none_and_where_the_driver_fails_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as e:
        gpus.choose(2, "it")
    assert "A container has the GPUs that are passed in" in e.value.hint
    assert "processes" not in e.value.hint
    assert gpus.VISIBLE not in e.value.hint
    smi(tmp_path, monkeypatch, "echo 'the driver does not answer'; exit 9")
    with pytest.raises(InputError) as e:
        gpus.choose(2, "it")
    assert e.value.hint.startswith("nvidia-smi has to work first")
    assert "passed in" not in e.value.hint


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("", "an empty entry names none"),
        ("7", "no GPU here is 7"),
        ("-1", "-1 is neither a GPU's number nor its UUID"),
        ("1,1", "1 names one again, and CUDA then shows none"),
        ("GPU-8932", "GPU-8932 begins several UUIDs"),
        ("GPU-none,0", "no GPU here is GPU-none"),
    ],
)
def test_why_the_callers_choice_leads_to_no_gpu_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, why: str
) -> None:
    three(tmp_path, monkeypatch)
    monkeypatch.setenv(gpus.VISIBLE, named)
    with pytest.raises(InputError) as e:
        gpus.choose(1, "it")
    assert f"{gpus.VISIBLE}={named} shows 0 ({why}); there are 3 here" in e.value.message


def test_of_unlike_gpus_how_many_of_each_are_told() -> None:
    other = replace(A100, name="NVIDIA B")
    assert gpus.counted([A100, other, A100]) == "2 NVIDIA A100, 1 NVIDIA B"


def test_parts_of_gpus_are_not_joined_and_whole_ones_beside_them_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(tmp_path, monkeypatch, "\n".join([PARTED, line(0, mig="Enabled"), line(1)]))
    assert gpus.choose(1, "it")[0].is_part
    with pytest.raises(InputError, match=r"there are 3 here: .*; parts of a GPU \(MIG\) work") as e:
        gpus.choose(2, "it")
    assert "Set train.launch.processes: 1," in e.value.hint
    assert "nvidia-smi -mig 0" in e.value.hint
    script = [PARTED, line(0, mig="Enabled"), line(1), line(2)]
    smi(tmp_path, monkeypatch, "\n".join(script))
    assert [gpu.uuid for gpu in gpus.choose(2, "it")] == [*UUIDS[1:]]


def test_a_driver_that_fails_where_nothing_else_tells_of_a_gpu_is_a_fault_unless_the_cpu_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment.fault_of_gpu() == ""
    smi(tmp_path, monkeypatch, "echo 'the driver does not answer'; exit 9")
    assert environment.accelerator() == "cpu"
    assert environment.fault_of_gpu() == "the driver does not answer"
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cpu")
    forget()
    assert environment.fault_of_gpu() == ""


@pytest.mark.parametrize(
    ("names", "accelerator"),
    [
        (["nvidia0"], "cuda"),
        (["nvidia3", "nvidiactl", "nvidia-uvm"], "cuda"),
        (["nvidiactl", "nvidia-uvm", "nvidia-caps"], "cpu"),
        (["dxg"], "cpu"),
        ([], "cpu"),
    ],
)
def test_a_gpu_is_there_by_a_node_of_any_number(names: list[str], accelerator: str) -> None:
    nodes(*names)
    assert environment.accelerator() == accelerator


def test_on_wsl_which_has_no_nodes_nvidia_smi_says_that_a_gpu_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes("dxg")
    gpus.WSL.mkdir()
    (gpus.WSL / "nvidia-smi").write_text(f"#!/bin/sh\n{line(0)}\n")
    (gpus.WSL / "nvidia-smi").chmod(0o755)
    forget()
    assert environment.accelerator() == "cuda"
    assert gpus.visible() == (A100,)


def test_without_nvidia_smi_nodes_are_counted_from_0_and_a_named_uuid_is_taken_at_its_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes("nvidia3", "nvidia5")
    assert [gpu.id for gpu in gpus.visible()] == ["0", "1"]
    monkeypatch.setenv(gpus.VISIBLE, "1")
    assert gpus.restricted_to(gpus.choose(1, "it")) == {gpus.VISIBLE: "1"}
    monkeypatch.setenv(gpus.VISIBLE, UUIDS[0])
    assert gpus.restricted_to(gpus.choose(1, "it")) == {gpus.VISIBLE: UUIDS[0]}


def test_the_accelerator_does_not_depend_on_which_gpus_may_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes("nvidia0")
    monkeypatch.setenv(gpus.VISIBLE, "")
    assert environment.accelerator() == "cuda"
    forget()
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cpu")
    assert environment.accelerator() == "cpu"


@pytest.mark.parametrize("there", [["nvidia3"], []])
def test_install_and_run_look_for_a_gpu_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch, there: list[str]
) -> None:
    nodes(*there)
    installer = runpy.run_path(str(ROOT / "requirements" / "install.py"))
    monkeypatch.delenv("ACCELERATOR", raising=False)
    installed, _ = installer["_accelerator"]()
    assert installed == environment.accelerator() == ("cuda" if there else "cpu")


@pytest.mark.parametrize(
    ("gpu", "why"),
    [
        (replace(A100, driver="575.57.08"), "CUDA 13 needs 580 or newer"),
        (replace(A100, capability=(7, 0), name="Tesla V100"), "V100 is sm_70, and CUDA 13 is for"),
        (replace(A100, capability=(7, 5)), ""),
        (replace(A100, capability=(12, 0), driver="590.1"), ""),
        (Gpu(gpus.UNNAMED), ""),
    ],
)  # fmt: skip
def test_drivers_and_cards_that_cuda_13_does_not_run_on_are_told(gpu: Gpu, why: str) -> None:
    assert (why in gpus.cannot(gpu)) if why else gpus.cannot(gpu) == ""


def test_where_the_card_is_too_old_a_newer_driver_is_no_remedy() -> None:
    volta = replace(A100, capability=(7, 0), driver="550.1")
    assert "is sm_70" in gpus.cannot(volta)
    assert gpus.remedy(volta).startswith("No driver mends that")
    assert gpus.remedy(replace(A100, driver="550.1")) == "Update the driver."


def test_of_unlike_cards_remedies_name_usable_ones_alone_and_lead_in_no_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [line(0, "Tesla V100", cc="7.0"), line(1, "NVIDIA H200", cc="9.0")]
    smi(tmp_path, monkeypatch, "\n".join(cards))
    volta, _ = gpus.visible()
    assert "let it have another card (CUDA_VISIBLE_DEVICES=1)" in gpus.remedy(volta)
    both = gpus.remedy(volta, 2)
    assert "2 cards of sm_75 or newer" in both
    assert "train.launch.processes: 1 with CUDA_VISIBLE_DEVICES=1" in both
    monkeypatch.setenv(gpus.VISIBLE, "1")
    with pytest.raises(InputError, match="it needs 2 GPUs") as e:
        gpus.choose(2, "it", is_usable=gpus.runs_cuda_13)
    assert "Set train.launch.processes: 1, or run it where there are 2." in e.value.hint
    assert "mig" not in e.value.hint
    smi(tmp_path, monkeypatch, "\n".join([*cards, line(2, "NVIDIA H200", cc="9.0")]))
    with pytest.raises(InputError) as e:
        gpus.choose(2, "it", is_usable=gpus.runs_cuda_13)
    assert e.value.hint.startswith("Name 2 that are here (CUDA_VISIBLE_DEVICES=1,2)")
    smi(tmp_path, monkeypatch, cards[0])
    monkeypatch.delenv(gpus.VISIBLE)
    assert gpus.VISIBLE not in gpus.remedy(*gpus.visible())


@pytest.mark.parametrize("names", [["nvidia0"], []])
def test_of_mig_without_instances_is_told_how_to_make_one_or_to_switch_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    nodes(*names)
    whole = "GPU 0: NVIDIA A100 (UUID: GPU-8932f937-d72c-4106-c12f-20bd9faed9f6)"
    smi(
        tmp_path,
        monkeypatch,
        f"case $1 in -L) echo '{whole}'; exit;; esac\n{line(0, mig='Enabled')}",
    )
    assert bool(environment.fault_of_gpu()) != bool(names)
    with pytest.raises(InputError, match=r"GPU 0 NVIDIA A100: MIG is on, and no instance") as e:
        gpus.choose(1, "it")
    assert "nvidia-smi mig -cgi" in e.value.hint
    assert "nvidia-smi -mig 0" in e.value.hint
    assert "reboot" not in e.value.hint


def test_the_docs_name_the_driver_and_the_oldest_card() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "docs" / "machines.md").read_text(encoding="utf-8"))
    assert f"driver {gpus.DRIVER} or newer" in text
    assert gpus.sm(gpus.OLDEST) in text
