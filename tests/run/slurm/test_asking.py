"""What a job asks Slurm for."""

import subprocess

import pytest

from harness.errors import InputError
from harness.run.site import SlurmSite
from harness.run.slurm.asking import Partition, minutes_asked
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
