"""Which of the caller's variables a job gets."""

from pathlib import Path

import pytest

from harness.run.slurm.environment import exported
from tests.helpers import planned, write_row

SECRETS = (
    "APPTAINER_DOCKER_PASSWORD", "APPTAINER_ENCRYPTION_PASSPHRASE", "APPTAINER_ENCRYPTION_PEM_DATA",
    "HARNESS_TOKEN", "HARNESS_HUB_TOKEN_FILE", "SINGULARITY_SECRET", "HARNESS_SSHKEY",
    "HARNESS_KEY", "HARNESS_AWS_CREDENTIALS", "HARNESS_AUTH", "HARNESS_API_KEY",
)  # fmt: skip
HARMLESS = ("APPTAINER_CACHEDIR", "CONTAINER_HOST", "CONTAINERS_STORAGE_CONF", "HARNESS_IMAGES",
            "HARNESS_KEYED_ROWS", "HARNESS_AUTHOR", "HARNESS_TOKENIZER", "HARNESS_PASSES")  # fmt: skip


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, *HARMLESS):
        monkeypatch.setenv(name, "x")


def test_a_secret_is_no_jobs_whatever_its_name_begins_with() -> None:
    assert not set(SECRETS) & set(exported([]))
    assert set(HARMLESS) <= set(exported([]))


def test_a_place_may_name_a_secret_and_so_may_the_stage_that_needs_it(tmp_path: Path) -> None:
    teacher = {"model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "HARNESS_TOKEN"}
    gen = {
        "recipe": "alpaca", "teacher": teacher, "seeds": "seeds.jsonl", "prompt": "tasks.txt",
        "examples": 3, "shown": 1,
    }  # fmt: skip
    (plan,) = planned(tmp_path / "volume", write_row(tmp_path / "specs", gen=gen, train=None))
    assert set(SECRETS) & set(exported(plan.stages)) == {"HARNESS_TOKEN"}
    assert set(SECRETS) & set(exported([], ["HARNESS_KEY"])) == {"HARNESS_KEY"}
