"""What `harness doctor` says of Slurm, by programs that answer as Slurm's do."""

import os
from pathlib import Path

import pytest

from harness.artefact.file_system import FileSystem
from harness.run.doctor_check import Check
from harness.run.slurm import doctor

PARTITIONS = """\
PartitionName=cpu Default=YES MaxTime=UNLIMITED
PartitionName=gpu Default=NO MaxTime=1-00:00:00"""
INVALID = "Invalid account or account/partition combination specified"
REFUSAL = f"sbatch: error: {INVALID}"


class Place:
    """A login node: its harness.toml and its programs."""

    def __init__(self, folder: Path) -> None:
        self.volume, self.config = folder / "volume", folder / "harness.toml"
        self.programs = folder / "bin"
        self.programs.mkdir()

    def has(self, **programs: str) -> None:
        for name, script in programs.items():
            (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.programs / name).chmod(0o755)

    def has_slurm(self, sbatch: str = "") -> None:
        self.has(
            sbatch=f'[ "$1" = --version ] && echo slurm 22.05.8 && exit\n{sbatch}',
            squeue="",
            scontrol=f"echo '{PARTITIONS}'",
        )

    def doctor(self) -> list[Check]:
        return list(doctor.examine(self.volume))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in [n for n in os.environ if n.startswith("HARNESS_SLURM_")]:
        monkeypatch.delenv(name)
    place = Place(tmp_path)
    place.config.touch()
    monkeypatch.setenv("HARNESS_CONFIG", str(place.config))
    monkeypatch.setenv("PATH", str(place.programs))
    return place


def test_where_nothing_speaks_of_slurm_one_line_says_that_there_is_none(place: Place) -> None:
    (slurm,) = place.doctor()
    assert (slurm.is_present, slurm.prevents) == (False, "harness submit")
    assert "no sbatch here" in slurm.state


@pytest.mark.parametrize("settings", ["[slurm]", "[slurm"])
def test_settings_without_slurm_are_told(place: Place, settings: str) -> None:
    place.config.write_text(settings)
    (slurm,) = place.doctor()
    assert not slurm.is_present
    assert "sbatch, squeue and scontrol are not on PATH" in slurm.state
    assert "harness submit" in slurm.prevents


def test_versions_partition_and_account_are_told_where_a_job_would_be_taken(place: Place) -> None:
    place.config.write_text('[slurm]\npartition = "gpu"\naccount = "lab"\naccelerator = "cuda"\n')
    log = place.volume.parent / "asked"
    place.has_slurm(f'echo "$@" >{log}')
    slurm, jobs, volume = place.doctor()
    assert (slurm.is_present, slurm.state.split(", ")[0]) == (True, "22.05.8")
    assert "submitit" in slurm.state
    assert jobs == Check(
        True, "Slurm's jobs", "partition gpu, account lab: a job with 1 GPU would be taken"
    )
    asked = log.read_text().split()
    assert {"--test-only", "--partition=gpu", "--account=lab", "--gpus-per-node=1"} <= set(asked)
    assert volume.what == "volume on Slurm's nodes"


@pytest.mark.parametrize(
    ("settings", "sbatch", "words"),
    [
        ('partition = "gpus"', "", "there is no partition 'gpus' here; there are cpu, gpu"),
        (
            'account = "lab"',
            f"echo '{REFUSAL}' >&2; exit 1",
            "Invalid account or account/partition",
        ),
        ('acount = "lab"', "", "there is no such setting; did you mean account?"),
    ],
)
def test_what_slurm_would_refuse_is_told_with_the_reason(
    place: Place, settings: str, sbatch: str, words: str
) -> None:
    place.config.write_text(f"[slurm]\n{settings}\n")
    place.has_slurm(sbatch)
    slurm, jobs, _ = place.doctor()
    assert slurm.is_present
    assert not jobs.is_present
    assert words in jobs.state


@pytest.mark.parametrize(
    ("setting", "sacctmgr", "words"),
    [
        (
            'account = "labb"',
            "printf 'lab\\nteam\\nlab\\n'",
            f"account 'labb': {INVALID}; yours are lab, team (",
        ),
        ('account = "labb"', ":", f"account 'labb': {INVALID}; you have none ("),
        ('account = "labb"', "exit 1", f"account 'labb': {INVALID} ("),
        ("", "echo lab", f"your default account: {INVALID}; yours are lab ("),
    ],
)
def test_an_account_that_is_not_the_users_is_named_with_those_that_are(
    place: Place, setting: str, sacctmgr: str, words: str
) -> None:
    """Slurm's words as slurmctld 22.05 with slurmdbd has said them."""
    place.config.write_text(f"[slurm]\n{setting}\n")
    place.has_slurm(f"echo 'allocation failure: {INVALID}' >&2; exit 1")
    place.has(sacctmgr=sacctmgr)
    _, jobs, _ = place.doctor()
    assert jobs.state.startswith(f"Slurm would refuse a job: {words}")


@pytest.mark.parametrize(("kind", "seen"), [("ext4", False), ("nfs4", True)])
def test_a_volume_of_this_machine_alone_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: str, seen: bool
) -> None:
    monkeypatch.setattr(doctor, "file_system_of", lambda folder: FileSystem(kind, "disk"))
    place.has_slurm()
    *_, volume = place.doctor()
    assert (volume.is_present, f"on {kind} (disk)" in volume.state) == (seen, True)
