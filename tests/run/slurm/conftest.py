"""A Slurm of three nodes for the tests here, started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import FakeStages
from tests.run.slurm.cluster import Cluster, NoSlurm
from tests.run.slurm.login_node import Login, configure


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
def login(cluster: Cluster, tmp_path: Path) -> Login:
    """The variables of a shell at the login node, with a volume and settings of the test's own."""
    config = tmp_path / "harness.toml"
    config.write_text("[slurm]\nprobe = false\nwarning_seconds = 30\n")
    return {
        **cluster.env,
        "HARNESS_DATA": str(tmp_path / "volume"),
        "HARNESS_CONFIG": str(config),
        "COLUMNS": "300",
    }


@pytest.fixture
def fakes(login: Login, tmp_path: Path) -> FakeStages:
    """Stages that do next to nothing, also on the nodes."""
    made = FakeStages(tmp_path / "fakes")
    login["PYTHONPATH"] = made.env["PYTHONPATH"]
    login["FAKE_STAGES"] = made.env["FAKE_STAGES"]
    configure(login, export=["FAKE_STAGES"])
    return made
