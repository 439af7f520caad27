"""A crate of a row whose judge is gone: what was judged beside it goes with it, and is replayed."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import command
from tests.row.test_twin_rejudged import GIVEN, bridging, row


@pytest.fixture(scope="module")
def crates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bridge.zip and published.zip, of two finished twins; nothing else of them is left."""
    home = tmp_path_factory.mktemp("made")
    for name, reported in (("bridge", {"bridge": bridging(2)}), ("published", {"outputs": GIVEN})):
        spec = row(home / name, **reported)
        for arguments in (("run", spec), ("export", spec, "--to", home / f"{name}.zip")):
            done = command(
                *arguments, "--scale", "tiny", "--volume", home / name / "runs",
                "--executor", "local",
            )  # fmt: skip
            assert done.exit_code == 0, done.output
        shutil.rmtree(home / name)
    return home


def replayed(crate: Path) -> Any:
    return command("replay", crate, "--executor", "local")


def test_bridging_models_are_replayed_and_their_shift_computed_anew(crates: Path) -> None:
    done = replayed(crates / "bridge.zip")
    assert done.exit_code == 0, done.output
    assert "one-tiny: 6 of 6 artefacts exact" in done.output
    with zipfile.ZipFile(crates / "bridge.zip") as archive:
        held = json.loads(archive.read("harness.json"))
    assert [part["row"] for part in held["bridge"]] == ["one-tiny-bridge-1", "one-tiny-bridge-2"]
    for part in held["bridge"]:
        assert part["shift"]["prompts"] == 40
        assert f"{part['shift']['value']!r} ± {part['shift']['error']!r}" in done.output
        assert f"beside it, {part['row']}: win_rate" in done.output


def test_the_published_answers_are_replayed_too(crates: Path) -> None:
    done = replayed(crates / "published.zip")
    assert done.exit_code == 0, done.output
    assert "one-tiny: 4 of 4 artefacts exact" in done.output
    assert "beside it, one-tiny-published: win_rate" in done.output


def unpacked(crates: Path, to: Path) -> Path:
    with zipfile.ZipFile(crates / "bridge.zip") as archive:
        archive.extractall(to)
    return to


def test_outputs_and_verdicts_of_a_bridging_model_are_told_as_one_run_by_an_audit(
    crates: Path, tmp_path: Path
) -> None:
    audited = command("audit", unpacked(crates, tmp_path))
    assert audited.stdout.count("_annotations.json alpaca_eval") == 2
    assert "shared_outputs" not in audited.stdout


def test_changed_verdicts_of_the_published_judge_are_found(crates: Path, tmp_path: Path) -> None:
    crate = unpacked(crates, tmp_path / "crate")
    held = json.loads((crate / "harness.json").read_text())
    path = crate / held["bridge"][0]["annotations"]
    path.write_text(path.read_text().replace('"preference": 1.0', '"preference": 2.0', 1))
    done = replayed(crate)
    assert done.exit_code == 2
    assert "are not those that were packed" in " ".join(done.output.split())


def test_a_shift_that_was_changed_is_found(crates: Path, tmp_path: Path) -> None:
    crate = unpacked(crates, tmp_path / "crate")
    held = json.loads((crate / "harness.json").read_text())
    held["bridge"][1]["shift"]["value"] += 1e-9
    (crate / "harness.json").write_text(json.dumps(held))
    done = replayed(crate)
    assert done.exit_code == 1
    assert "came out different for one-tiny-bridge-2" in " ".join(done.output.split())
