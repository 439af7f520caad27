"""A Slurm of three nodes for the tests here, started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.slurm.cluster import Cluster, NoSlurm


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        slurm = Cluster(tmp_path_factory.mktemp("slurm"))
        slurm.start()
    except NoSlurm as e:
        pytest.skip(f"no Slurm for tests: {e}")
    yield slurm
    slurm.stop()


@pytest.fixture
def login(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    """The variables of a shell at the login node, with a volume and settings of the test's own."""
    config = tmp_path / "harness.toml"
    config.write_text("[slurm]\nprobe = false\nwarning_seconds = 30\n")
    return {
        **cluster.env,
        "HARNESS_DATA": str(tmp_path / "volume"),
        "HARNESS_CONFIG": str(config),
        "COLUMNS": "300",
    }
