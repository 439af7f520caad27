"""A stage by a real podman and a real charliecloud, with the gen image; see tests/docker/runtimes.

Skipped where the runtime, or an image for it, is not here.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.run.executors import make
from tests.helpers import harness, start, until
from tests.run.executors.test_docker_real import NOWHERE, SECRET, gen_row

pytestmark = pytest.mark.docker


@pytest.fixture(params=["podman", "charliecloud"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cpu")
    name: str = request.param
    program = {"podman": "podman", "charliecloud": "ch-run"}[name]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not here: tests/docker/runtimes")
    try:
        make(name).find_image("gen")  # type: ignore[attr-defined]
    except HarnessError as e:
        pytest.skip(e.message)
    return name


@pytest.fixture
def env() -> dict[str, str]:
    names = ("HARNESS_IMAGES", "HARNESS_DATA")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HARNESS_") or k in names}
    return {**kept, "HARNESS_ACCELERATOR": "cpu", "COLUMNS": "200", "ROW_TEST_KEY": SECRET}


def command(executor: str, spec: Path, volume: Path) -> list[str | Path]:
    return ["run", "--executor", executor, spec, "--volume", volume]


def images(env: dict[str, str]) -> dict[str, str]:
    """The folder of image files stays where it is, whatever the volume."""
    from harness.run.executors import images_folder

    return {**env, "HARNESS_IMAGES": str(images_folder().resolve())}


def test_a_stage_leaves_the_artefact_that_docker_would_find(
    executor: str, env: dict[str, str], tmp_path: Path
) -> None:
    spec, volume = gen_row(tmp_path / "specs", simulated={}), tmp_path / "volume"
    done = harness(images(env), *command(executor, spec, volume))
    assert done.returncode == 0, done.stdout
    (folder,) = volume.glob("artefacts/gen/*")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["executor"]["executor"] == executor
    assert manifest["used"]["environment"]["image"]["image"] == "gen"
    assert {(p.stat().st_uid, p.stat().st_gid) for p in folder.rglob("*")} == {
        (os.getuid(), os.getgid())
    }
    planned = harness(env, "plan", "--executor", "docker", spec, "--volume", volume)
    assert f"reuse {manifest['key'][:12]}" in planned.stdout


def test_stopped_it_ends_in_order_and_its_key_is_nowhere_on_the_volume(
    executor: str, env: dict[str, str], tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    spec = gen_row(tmp_path / "specs", base_url=NOWHERE, api_key_env="ROW_TEST_KEY")
    process = start(images(env), *command(executor, spec, volume))
    until(lambda: list(volume.glob("work/gen-*/.stage-lock")), seconds=60)
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert SECRET not in shown.stdout
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert re.search(r"was stopped(; what it has made so far is kept| before it had made)", output)
    written = [p for p in volume.rglob("*") if p.is_file()]
    assert not [p for p in written if SECRET.encode() in p.read_bytes()]
