"""Image files for the runtimes that are commands, and how far their making is."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.artefact import environment
from harness.run import image_files
from harness.run.executors.charliecloud import CharliecloudExecutor
from tests.run.executors.test_image_archive import archive, layer


class EnginesImage:
    """What an engine says of an image, and its archive."""

    def __init__(self, path: Path, tag: str) -> None:
        self.content = path.read_bytes()
        self.attrs = {"Size": 4 * 2**20}
        self.tags = ["other:latest", tag]

    def save(self, named: str) -> Iterator[bytes]:
        assert named in self.tags  # as docker-py asks
        yield self.content[:1_500_000]
        yield self.content[1_500_000:]


@pytest.mark.parametrize("registry", ["", "localhost/", "registry.invalid/library/"])
def test_how_far_an_image_is_saved_and_unpacked_is_said_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: str
) -> None:
    layers = [layer({f"file{i}": os.urandom(2**20) for i in part}) for part in ((1, 2), (3, 4))]
    path = archive(tmp_path / "a.tar", "docker", *layers)
    image = EnginesImage(path, f"{registry}harness-gen:latest")
    monkeypatch.setattr(CharliecloudExecutor, "find_program", classmethod(lambda kind: "ch-run"))
    monkeypatch.setattr(image_files, "_find", lambda tag: image)
    monkeypatch.setattr(image_files, "check_lock", lambda *facts: None)
    monkeypatch.setattr(environment, "STAGES", ("gen",))
    monkeypatch.setenv("HARNESS_IMAGES", str(tmp_path / "images"))
    console: Any = Console(file=io.StringIO(), width=200)
    image_files.make_files("charliecloud", [], tmp_path, console)
    lines = console.file.getvalue().splitlines()
    assert lines[1:3] == ["  saved: 1 MiB, 0 s (image 4.0 MiB)", "  saved: 4 of 4 MiB, 0 s"]
    assert lines[4].startswith("  unpacked: 1 of 4 MiB")
    assert lines[5].startswith("  unpacked: 4 of 4 MiB")
    assert lines[6] == f"harness-gen:latest: {tmp_path}/images/harness-gen-latest"
    assert {f"file{i}" for i in (1, 2, 3, 4)} <= set(
        os.listdir(tmp_path / "images/harness-gen-latest")
    )
