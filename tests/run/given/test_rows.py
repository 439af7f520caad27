"""Rows whose given data has an address: the same keys, brought before anything runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artefact.keys import file_digest
from harness.run.given import bring
from harness.run.given.bring import NotBrought
from harness.run.given.download import Patience
from tests.helpers import Volume, command, evaluation, planned, write_row
from tests.run.given.file_server import FileServer, serving

PAID = {"model": "gpt-4", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "ROW_TEST_KEY"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(bring, "PACE", Patience(attempts=2, pause=0.01))
    monkeypatch.delenv(bring.MIRROR, raising=False)
    with serving() as started:
        yield started


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def addressed(spec: Path, server: FileServer, **changes: Any) -> Path:
    """The spec with its seeds by address; the server has them, and the folder no more."""
    seeds = spec.parent / "seeds.jsonl"
    server.files["/seeds.jsonl"] = seeds.read_bytes()
    tree = yaml.safe_load(spec.read_text())
    tree["gen"]["seeds"] = {
        "url": f"{server.url}/seeds.jsonl", "sha256": file_digest(seeds), **changes
    }  # fmt: skip
    spec.write_text(yaml.safe_dump(tree))
    seeds.unlink()
    return spec


def keys(volume: Volume, spec: Path) -> list[str]:
    return [stage.key for plan in planned(volume.store.root, spec) for stage in plan.stages]


def test_a_file_by_address_has_the_key_of_the_same_file_by_path_before_and_after_it_is_fetched(
    tmp_path: Path, server: FileServer, volume: Volume
) -> None:
    spec = write_row(tmp_path / "specs")
    by_path = keys(volume, spec)
    addressed(spec, server)
    assert keys(volume, spec) == by_path
    assert server.requests == []
    volume.run(spec)
    assert keys(volume, spec) == by_path
    assert [path for path, _ in server.requests] == ["/seeds.jsonl"]
    assert volume.ran == ["gen", "train"]


def test_nothing_runs_and_nothing_is_paid_where_a_file_of_a_later_stage_cannot_be_had(
    tmp_path: Path, server: FileServer, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROW_TEST_KEY", "key")
    specs = tmp_path / "specs"
    parts = evaluation(specs, judge=PAID)
    parts["judge"]["reference"] = {"url": f"{server.url}/gone.json", "sha256": "0" * 64}
    spec = write_row(specs, eval=parts)
    with pytest.raises(NotBrought, match=r"gone\.json cannot be had"):
        volume.run(spec)
    assert volume.ran == []


def test_a_plan_says_what_is_not_fetched_and_needs_nothing_of_it(
    tmp_path: Path, server: FileServer, volume: Volume
) -> None:
    spec = addressed(write_row(tmp_path / "specs"), server)
    result = command("plan", spec, "--volume", volume.store.root)
    assert result.exit_code == 0
    assert "a given file is not on the volume yet" in " ".join(result.output.split())
    assert server.requests == []


def test_fetch_brings_the_file_and_says_where_it_is(
    tmp_path: Path, server: FileServer, volume: Volume
) -> None:
    spec = addressed(write_row(tmp_path / "specs"), server)
    for _ in range(2):
        result = command("fetch", spec, "--volume", volume.store.root)
        assert result.exit_code == 0
        place = next(volume.store.files_folder.glob("*/seeds.jsonl"))
        assert f"seeds.jsonl: {place}" in result.stdout.replace("\n", "")
    assert len(server.requests) == 1


@pytest.mark.parametrize("is_named", [True, False])
def test_fetch_brings_what_has_an_address_and_names_what_has_none(
    tmp_path: Path,
    server: FileServer,
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
    is_named: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inputs").mkdir()
    specs = tmp_path / "specs"
    parts = evaluation(specs)
    parts["judge"]["reference"] = "data:mine.json"
    spec = addressed(write_row(specs, eval=parts), server)
    wanted = spec if is_named else specs
    result = command("fetch", wanted, "--volume", volume.store.root)
    assert result.exit_code == 2
    assert "no address brings data:mine.json" in result.stderr
    assert "Put it into inputs" in result.stderr
    assert list(volume.store.files_folder.glob("*/seeds.jsonl"))


def test_a_file_on_disk_goes_before_its_address(
    tmp_path: Path, server: FileServer, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = addressed(write_row(tmp_path / "specs"), server, path="data:mine.jsonl")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "mine.jsonl").write_bytes(server.files["/seeds.jsonl"])
    assert command("fetch", spec, "--volume", volume.store.root).exit_code == 0
    assert server.requests == []
    (tmp_path / "inputs" / "mine.jsonl").write_bytes(b"another")
    result = command("plan", spec, "--volume", volume.store.root)
    assert result.exit_code == 2
    assert "Without the file, the address that the spec names brings the right one" in result.stderr


def test_a_file_is_found_by_its_digest_wherever_it_lies_among_the_given_data(
    tmp_path: Path, server: FileServer, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = addressed(write_row(tmp_path / "specs"), server)
    tree = yaml.safe_load(spec.read_text())
    del tree["gen"]["seeds"]["url"]
    spec.write_text(yaml.safe_dump(tree))
    (tmp_path / "inputs" / "deep").mkdir(parents=True)
    absent = command("plan", spec, "--volume", volume.store.root)
    assert absent.exit_code == 2
    assert f"inputs holds no file with sha256 {tree['gen']['seeds']['sha256']}" in absent.stderr
    (tmp_path / "inputs" / "deep" / "x.jsonl").write_bytes(server.files["/seeds.jsonl"])
    assert command("plan", spec, "--volume", volume.store.root).exit_code == 0


def test_validate_tells_files_with_an_address_from_absent_ones(
    tmp_path: Path, server: FileServer
) -> None:
    spec = addressed(write_row(tmp_path / "specs"), server)
    (tmp_path / "inputs").mkdir()
    result = command("validate", spec, "--inputs", tmp_path / "inputs")
    assert result.exit_code == 0
    assert "1 with an address alone" in result.output


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    seeds = {"url": "https://me:s3cret-word@example.com/a", "sha256": "0" * 64}
    spec = write_row(tmp_path / "specs")
    tree = yaml.safe_load(spec.read_text())
    tree["gen"]["seeds"] = seeds
    spec.write_text(yaml.safe_dump(tree))
    result = command("validate", spec)
    assert result.exit_code == 2
    assert "a user name or password does not belong in an address" in result.stderr
    assert "s3cret" not in result.output + result.stderr


def test_a_manifest_says_no_address(tmp_path: Path, server: FileServer, volume: Volume) -> None:
    volume.run(addressed(write_row(tmp_path / "specs"), server))
    manifest = json.dumps(volume.artefact("gen").manifest.to_json())
    assert server.url not in manifest


def test_gc_leaves_what_specs_name_and_removes_a_fetched_file_that_none_does(
    tmp_path: Path, server: FileServer, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = addressed(write_row(tmp_path / "specs"), server)
    root = volume.store.root
    digest = yaml.safe_load(spec.read_text())["gen"]["seeds"]["sha256"]
    unfinished = volume.store.work_folder("file", digest)
    unfinished.mkdir()
    assert "0 items" in command("gc", "--volume", root).stdout
    command("fetch", spec, "--volume", root)
    assert "0 items" in command("gc", "--volume", root).stdout
    write_row(tmp_path / "specs")
    assert f"files/{digest}" in command("gc", "--volume", root, "--yes").stdout
    assert list(volume.store.files_folder.iterdir()) == []


def test_several_folders_of_given_data_are_named_with_a_colon_between_them(
    tmp_path: Path, server: FileServer, volume: Volume
) -> None:
    spec = addressed(write_row(tmp_path / "specs"), server, path="data:link.jsonl")
    inputs, large = tmp_path / "inputs", tmp_path / "large"
    inputs.mkdir()
    large.mkdir()
    (large / "seeds.jsonl").write_bytes(server.files["/seeds.jsonl"])
    (inputs / "link.jsonl").symlink_to(large / "seeds.jsonl")
    at = ("--volume", volume.store.root)
    alone = command("plan", spec, "--inputs", inputs, *at)
    assert alone.exit_code == 2
    assert f"name both: --inputs {inputs}:{large}" in alone.stderr
    assert command("plan", spec, "--inputs", f"{inputs}:{large}", *at).exit_code == 0
    absent = command("plan", spec, "--inputs", f"{inputs}:{large}/gone", *at)
    assert absent.exit_code == 2
    assert f"the folder of given data {large}/gone is not there" in absent.stderr
    assert server.requests == []
