"""What a job asks Slurm for."""

import subprocess
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.run.site import SlurmSite
from harness.run.slurm import tools
from harness.run.slurm.asking import Partition, minutes_asked, partition_of
from harness.run.slurm.submit import or_end


def test_a_job_that_would_be_warned_before_it_works_is_refused() -> None:
    short = Partition("short", 120, None)
    with pytest.raises(InputError, match="would have 2 min, and be warned of its end 120 s") as e:
        minutes_asked(None, SlurmSite(), short)
    assert "slurm.warning_seconds to 60 or less" in str(e.value.hint)
    assert minutes_asked(None, SlurmSite(warning_seconds=60), short) == 2
    with pytest.raises(InputError, match="would have 1 min") as e:
        minutes_asked(
            None, SlurmSite(time="00:01:00", warning_seconds=10), Partition("p", None, None)
        )
    assert "warning_seconds" not in str(e.value.hint)


def test_a_line_of_setup_that_fails_ends_the_job_and_is_named() -> None:
    def run(*lines: str) -> subprocess.CompletedProcess[str]:
        script = "\n".join([*map(or_end, lines), "echo went on"])
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True)

    done = run("export A=1 # a remark", "false || true")
    assert (done.returncode, done.stdout) == (0, "went on\n")
    failed = run("export A=1", "no_such_command 'x'")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "this line of setup failed: no_such_command 'x'" in failed.stderr


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What scontrol says is this file's."""
    said = tmp_path / "said"
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\n/bin/cat {said}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return said


def test_a_line_of_scontrols_that_names_no_partition_is_none(says: Path) -> None:
    says.write_text("Default=YES MaxTime=1:00\nPartitionName=a Default=YES MaxTime=2:00:00\n")
    assert partition_of(SlurmSite()) == Partition("a", 7200, None)


@pytest.mark.parametrize(
    "said", ["", "No partitions in the system\n", "Default=YES MaxTime=1:00\n"]
)
@pytest.mark.parametrize("wanted", [None, "gpu"])
def test_a_scontrol_that_tells_of_no_partition_is_said_to(
    says: Path, said: str, wanted: str | None
) -> None:
    says.write_text(said)
    with pytest.raises(InputError, match=r"^scontrol told of no partition here"):
        partition_of(SlurmSite(partition=wanted))


@pytest.mark.parametrize("which", ["MaxTime", "DefaultTime"])
def test_a_time_of_scontrols_that_is_none_is_not_called_the_places(says: Path, which: str) -> None:
    says.write_text(f"PartitionName=a Default=YES {which}=banana\n")
    with pytest.raises(
        InputError, match=f"^scontrol's {which} of partition a: 'banana' is no time"
    ):
        partition_of(SlurmSite())


def test_a_command_that_names_itself_in_its_complaint_is_named_once(says: Path) -> None:
    says.with_name("scontrol").write_text("#!/bin/sh\necho scontrol: error: no >&2; exit 1\n")
    with pytest.raises(tools.SlurmFault, match=r"^scontrol: no\n"):
        partition_of(SlurmSite())
