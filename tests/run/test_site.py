"""What a place sets, in a file or in the environment."""

import json
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.run.executors import make
from harness.run.site import SlurmSite, seconds, slurm_site
from harness.run.slurm import probe


def site(tmp_path: Path, text: str, **environ: str) -> SlurmSite:
    path = tmp_path / "place.toml"
    path.write_text(text)
    return slurm_site({"HARNESS_CONFIG": str(path), **environ})


def test_the_environment_has_the_last_word(tmp_path: Path) -> None:
    text = '[slurm]\npartition = "gpu"\naccount = "lab"\nflags = ["--constraint=a100", "--exclusive"]\n'
    here = site(tmp_path, text, HARNESS_SLURM_PARTITION="cpu")
    assert (here.partition, here.account) == ("cpu", "lab")
    assert here.options() == {"constraint": "a100", "exclusive": True}
    flags = {"HARNESS_SLURM_FLAGS": "--gres=gpu:a100:1 --licenses='two words'"}
    assert slurm_site(flags).options() == {"gres": "gpu:a100:1", "licenses": "two words"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[slurm]\npartitoin = "gpu"\n', "there is no such setting; did you mean partition?"),
        ("[slurm]\nrequeues = -1\n", "slurm.requeues: Input should be greater"),
        ("[slurm]\nparallel = true\n", "place.toml: slurm.parallel: must be a whole number"),
        ('[slurm]\nparallel = "2.5"\n', "slurm.parallel: must be a whole number"),
        ("[slurm]\ncpus = 2.0\n", "slurm.cpus: must be a whole number"),
        ('[slurm]\nrequeues = ""\n', "slurm.requeues: must be a whole number"),
        ('[slurm]\nwarning_seconds = "60"\n', "slurm.warning_seconds: must be a whole number"),
        ("[slurm]\nprobe = 1\n", "slurm.probe: must be true or false"),
        ('[slurm]\nprobe = "no"\n', "slurm.probe: must be true or false"),
        ('[slurm]\nflags = ["-p gpu"]\n', "'-p gpu' is no long option of sbatch"),
        ('[slurm]\nflags = ["--export=ALL"]\n', "--export is set by the harness itself"),
        ('[slurm]\ntime = "soon"\n', "'soon' is no time of Slurm's"),
        ('[slurm]\nexecutor = "aptainer"\n', "there is no executor 'aptainer'"),
        ('[slurm]\nflags = "--exclusive"\n', "slurm.flags: must be a list of texts"),
        ('[slurm]\naccelerator = "tpu"\n', "place.toml: slurm.accelerator is 'tpu'; it can be"),
        ('[slurm]\naccount = "a\\u0000x"\n', "place.toml: slurm.account: 'a\\x00x' has a control"),
        (
            '[slurm]\nflags = ["--qos=a\\nb"]\n',
            "place.toml: slurm.flags: '--qos=a\\nb' has a control",
        ),
        ('[slurm]\nsetup = ["a\\u001b"]\n', "place.toml: slurm.setup: 'a\\x1b' has a control"),
        ('[slurm]\ntime = "0"\n', "'0' gives a job no time"),
        ("[slurm]\ntime = 90\n", "slurm.time: must be a text in quotes"),
        (
            '[slrum]\npartition = "gpu"\n',
            "there is no table or setting [slrum]; did you mean slurm?",
        ),
        ('[SLURM]\npartition = "gpu"\n', "[SLURM]; did you mean slurm?"),
        ('[docker]\npartition = "gpu"\n', "there is no table or setting [docker]"),
        ('partition = "gpu"\n', "partition stands outside of its table"),
        ("[slurm\n", "is no TOML"),
        ('slurm = "gpu"\n', "slurm is no table"),
    ],
)
def test_a_setting_that_is_none_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError) as refused:
        site(tmp_path, text)
    assert complaint in refused.value.message


def test_a_control_character_in_a_variable_is_told_of_the_variable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^HARNESS_SLURM_QOS: 'a.tb' has a control character"):
        site(tmp_path, "[slurm]\n", HARNESS_SLURM_QOS="a\tb")


def test_a_line_of_setup_may_be_several_of_shell(tmp_path: Path) -> None:
    lines = "if true; then\n\tmodule load cuda\nfi"
    assert site(tmp_path, f"[slurm]\nsetup = [{json.dumps(lines)}]\n").setup == (lines,)


def test_a_mark_of_the_byte_order_is_no_part_of_the_configuration(tmp_path: Path) -> None:
    assert site(tmp_path, '\ufeff[slurm]\naccount = "lab"\n').account == "lab"


def test_a_configuration_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is no file"):
        slurm_site({"HARNESS_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize(
    ("time", "expected"),
    [("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-12", 129600), ("1-0:30:00", 88200)],
)
def test_times_are_read_as_slurm_writes_them(time: str, expected: int) -> None:
    assert seconds(time) == expected
    assert seconds("UNLIMITED") is None


def test_an_executor_that_is_none_is_refused_wherever_it_is_named() -> None:
    with pytest.raises(
        InputError, match="HARNESS_SLURM_EXECUTOR: there is no executor 'dcoker'"
    ) as e:
        slurm_site({"HARNESS_SLURM_EXECUTOR": "dcoker"})
    assert "docker, podman, apptainer" in e.value.hint
    with pytest.raises(InputError, match="there is no executor 'dcoker'"):
        make("dcoker")
    assert make("local").name == "local"


@pytest.mark.parametrize(
    "flag",
    ["--test-only", "--nodes=3", "--ntasks=2", "--comment=x", "--no-requeue", "--array=1-2", "--wrap=x",
     "--parsable", "--output=x", "--error=x", "--dependency=1", "--signal=USR1", "--export=NONE",
     "--quiet", "--test", "--depend=afterok:1"],
)  # fmt: skip
def test_a_flag_with_which_jobs_would_be_other_ones_is_refused(flag: str) -> None:
    with pytest.raises(InputError, match="is set by the harness itself"):
        slurm_site({"HARNESS_SLURM_FLAGS": flag})


def test_the_look_at_a_node_gets_no_flag_that_srun_lacks_or_that_has_it_wait() -> None:
    flags = ("--begin=now+60", "--wait-all-nodes=1", "--constraint=a100", "--exclusive")
    command = probe._command(SlurmSite(flags=flags), ["gen"], Path("/v/slurm"), "t")
    assert [part for part in command if part in flags] == ["--constraint=a100", "--exclusive"]


def test_flags_with_an_open_quotation_are_refused_with_a_sentence() -> None:
    with pytest.raises(InputError, match="HARNESS_SLURM_FLAGS cannot be taken apart"):
        slurm_site({"HARNESS_SLURM_FLAGS": "--licenses='two words"})
