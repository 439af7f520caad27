"""Crates: a row that one machine packs, another replays without its volume, specs or data."""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from harness.artefact import environment
from harness.artefact.environment import CODE_VERSIONS
from harness.artefact.keys import digest_of
from harness.crate.pack import _zip
from tests.helpers import ROOT, command

SMOKE = ROOT / "specs" / "smoke"
ROW: dict[str, Any] = {
    "row": "one",
    "table": "tests",
    "title": "One | <b>row</b>",
    "source": {"document": "A study", "table": "Table 1", "line": 2},
    "reported": {"win_rate": {"value": 50}},
    "deviations": ["another judge"],
    "assumptions": ["one epoch"],
    "model": {
        "random": {
            "config": {
                "model_type": "qwen2",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
            },
            "tokenizer": "tokenizer",
        }
    },
    "template": {"prompt": "prompts/qa.txt"},
    "gen": {
        "recipe": "alpaca",
        "teacher": {"model": "teacher", "simulated": {}},
        "seeds": "data:seeds.jsonl",
        "prompt": "prompts/tasks.txt",
        "examples": 20,
        "filter": {"max_similarity": 1},
    },
    "train": {"steps": 2, "batch_size": 4, "cutoff_length": 128, "threads": 1},
    "eval": {
        "answer": {
            "prompts": {"file": "prompts.jsonl", "first": 6},
            "decoding": {"max_new_tokens": 4},
            "engine": {"threads": 1},
        },
        "judge": {
            "kind": "preference",
            "judge": {"model": "judge", "simulated": {}},
            "prompt": "prompts/judge.txt",
            "reference": "prompts.jsonl",
        },
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with specs/one.yaml, inputs/ and runs/, where the row is finished."""
    home = tmp_path_factory.mktemp("made")
    shutil.copytree(SMOKE, home / "specs", ignore=shutil.ignore_patterns("*.yaml"))
    (home / "inputs").mkdir()
    (home / "specs" / "seeds.jsonl").rename(home / "inputs" / "seeds.jsonl")
    (home / "specs" / "_base.yaml").write_text(
        yaml.safe_dump({k: v for k, v in ROW.items() if k != "row"})
    )
    (home / "specs" / "one.yaml").write_text("extends: _base.yaml\nrow: one\n")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, home)
        done = command("run", "specs/one.yaml")
        assert done.exit_code == 0, done.output
    return home


def settle(patch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("HARNESS_DATA", "HARNESS_INPUTS"):
        patch.delenv(name, raising=False)
    patch.chdir(folder)


@pytest.fixture
def home(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settle(monkeypatch, made)
    return made


def export(to: Path, *options: str) -> Any:
    done = command("export", "specs/one.yaml", "--to", to, *options)
    assert done.exit_code == 0, done.output
    return done


def unzip(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as crate:
        crate.extractall(folder)
    return folder


def tree(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize("name", ["crate.zip", "crate"])
def test_elsewhere_a_crate_is_replayed_with_nothing_beside_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    export(tmp_path / name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    before = tree(tmp_path)
    done = command("replay", tmp_path / name)
    assert done.exit_code == 0, done.output
    assert "one: 4 of 4 artefacts exact" in done.output
    assert "win_rate" in done.output
    assert tree(tmp_path) == before  # a crate is only read


def test_a_crate_whose_answers_are_a_given_file_has_no_shared_outputs(
    home: Path, tmp_path: Path
) -> None:
    """The file stands below given/, its judging below artefacts/."""
    given = {"kind": "reference", "outputs": "prompts.jsonl"}
    answer = {"prompts": {"file": "prompts.jsonl"}, "engine": given}
    parts = ROW["eval"] | {"answer": answer}
    spec = {**ROW, "row": "control", "gen": None, "train": None, "eval": parts}
    (home / "specs" / "control.yaml").write_text(yaml.safe_dump(spec))
    crate = tmp_path / "crate"
    for arguments in (("run",), ("export", "--to", crate)):
        done = command(arguments[0], "specs/control.yaml", *arguments[1:])
        assert done.exit_code == 0, done.output
    audited = command("audit", crate)
    assert "2 results, no finding" in audited.stdout
    (tmp_path / "another").mkdir()
    shutil.copy(home / "specs" / "prompts.jsonl", tmp_path / "another")
    changed(tmp_path / "another", "prompts.jsonl", "\n", " \n")
    assert "error shared_outputs" in command("audit", crate, tmp_path / "another").stdout


def test_weights_stay_behind_unless_they_are_asked_for(home: Path, tmp_path: Path) -> None:
    said = export(tmp_path / "light").output
    assert "1 file of weights" in said
    assert not list((tmp_path / "light").rglob("*.safetensors"))
    assert "1 files" not in export(tmp_path / "whole", "--weights").output
    assert list((tmp_path / "whole").rglob("*.safetensors"))
    for name, here, left_out in (
        (
            "light",
            "that are here ",
            "; 1 left out of the crate (model/model.safetensors), not checked",
        ),
        ("whole", "", ""),
    ):
        done = command("replay", tmp_path / name)
        assert done.exit_code == 0
        (folder,) = (tmp_path / name).rglob("artefacts/train/*")
        n = sum(path.is_file() for path in folder.rglob("*")) - 1  # its manifest
        text = f"exact, {n} of {n} files {here}have the digest they were made with{left_out}"
        (line,) = [line for line in done.output.splitlines() if line.startswith("train ")]
        assert text in line
        assert ("not checked" in line) == bool(left_out)


def test_the_same_row_gives_the_same_archive(home: Path, tmp_path: Path) -> None:
    export(tmp_path / "a.zip")
    export(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_no_place_of_this_machine_is_in_what_describes_a_crate(home: Path, tmp_path: Path) -> None:
    export(tmp_path / "crate")
    for name in ("harness.json", "README.md", "ro-crate-metadata.json"):
        text = (tmp_path / "crate" / name).read_text()
        assert str(home) not in text
        assert str(tmp_path) not in text


def test_the_metadata_describes_every_file_and_what_made_it(home: Path, tmp_path: Path) -> None:
    crate = tmp_path / "crate"
    export(crate)
    document = json.loads((crate / "ro-crate-metadata.json").read_text())
    entities = {e["@id"]: e for e in document["@graph"]}
    assert len(entities) == len(document["@graph"])
    digests = tree(crate)
    digests.pop("ro-crate-metadata.json")
    files = {i: e for i, e in entities.items() if "File" in e["@type"]}
    assert {name: e["sha256"] for name, e in files.items()} == digests
    assert all(e["contentSize"] == str((crate / n).stat().st_size) for n, e in files.items())
    root = entities["./"]
    workflow = entities[root["mainEntity"]["@id"]]
    assert workflow["@id"] == "spec/one.yaml"
    assert {"SoftwareSourceCode", "ComputationalWorkflow"} <= set(workflow["@type"])
    profiles = {one["@id"] for one in root["conformsTo"]}
    assert "https://w3id.org/ro/wfrun/workflow/0.5" in profiles
    actions = [e for e in entities.values() if e["@type"] == "CreateAction"]
    assert {a["name"] for a in actions} == {"Run of the row one", "gen", "train", "answer", "judge"}
    for action in actions:
        assert action["instrument"]["@id"] in entities
        assert action["startTime"] <= action["endTime"]
    judge = next(a for a in actions if a["name"] == "judge")
    answer = next(a for a in actions if a["name"] == "answer")
    assert judge["object"] == answer["result"]
    assert "Simulated" in root["description"]
    references = [r["@id"] for e in entities.values() for r in _references(e)]
    known = {*entities, "https://w3id.org/ro/crate/1.1"}
    assert not [r for r in references if r not in known]


def _references(value: Any) -> list[dict[str, str]]:
    if isinstance(value, dict):
        if set(value) == {"@id"}:
            return [value]
        return [r for v in value.values() for r in _references(v)]
    return [r for v in value for r in _references(v)] if isinstance(value, list) else []


def test_the_readme_says_what_it_is_and_how_to_replay_it(home: Path, tmp_path: Path) -> None:
    export(tmp_path / "crate")
    text = (tmp_path / "crate" / "README.md").read_text()
    assert "harness replay ." in text
    assert "-v /path/to/this/crate:/crate:ro" in text
    made = text.partition("## How it was made\n")[2]
    assert made.startswith("\nIn a checkout of the harness that holds these specs")
    assert "\n    harness run specs/one.yaml\n" in made
    assert "another judge" in text
    assert "one epoch" in text
    assert "<b>" not in text
    assert (tmp_path / "crate" / "spec" / "prompts" / "qa.txt").is_file()
    assert "simulated" in (tmp_path / "crate" / "tables" / "row.csv").read_text()


def test_the_readme_says_where_the_given_data_stands_that_the_specs_name(
    home: Path, tmp_path: Path
) -> None:
    export(tmp_path / "crate")
    text = (tmp_path / "crate" / "README.md").read_text()
    table = text.partition("| given data | here |\n| --- | --- |\n")[2].partition("\n\n")[0]
    places = dict(line.strip("| ").split(" | ") for line in table.splitlines())
    named = {"data:seeds.jsonl": "inputs/seeds.jsonl", "prompts.jsonl": "specs/prompts.jsonl",
             "tokenizer": "specs/tokenizer"}  # fmt: skip
    assert set(places) == set(named)
    for name, original in named.items():
        there, ours = home / original, tmp_path / "crate" / places[name]
        if there.is_dir():
            assert tree(ours) == tree(there)
        else:
            assert ours.read_bytes() == there.read_bytes()


def test_of_a_spec_named_by_its_whole_path_the_readme_has_the_name_alone(
    home: Path, tmp_path: Path
) -> None:
    whole = home / "specs" / "one.yaml"
    done = command("export", whole, "--to", tmp_path / "crate")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "crate" / "README.md").read_text()
    assert "\n    harness run specs/one.yaml\n" in text
    assert str(home) not in text


def changed(crate: Path, name: str, old: str, new: str) -> None:
    (path,) = crate.rglob(name)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("annotations.json", "preference", "Preference", "does not have the bytes"),
        ("seeds.jsonl", "What", "Who", "was not made from what stands here"),
        ("harness.json", '"max_new_tokens": 4', '"max_new_tokens": 5', "was not made from"),
        ("harness.json", '"format": 1', '"format": 99', "format 99"),
        ("harness.json", '"stages"', '"stagez"', "cannot be read"),
        ("harness.json", '"kind": "preference"', '"kind": "other"', "cannot be read"),
        ("harness.json", '"path": "given/', '"path": "../', "leads out of the crate"),
    ],
)
def test_what_was_changed_in_a_crate_is_told(
    home: Path, tmp_path: Path, name: str, old: str, new: str, words: str
) -> None:
    export(tmp_path / "crate")
    changed(tmp_path / "crate", name, old, new)
    done = command("replay", tmp_path / "crate")
    assert done.exit_code in (1, 2)
    assert words in done.output


def test_an_archive_that_is_none_or_writes_elsewhere_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no archive")
    done = command("replay", tmp_path / "text.zip")
    assert done.exit_code == 2
    assert "is no crate" in done.output
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../outside.txt", "boo")
    done = command("replay", tmp_path / "evil.zip")
    assert done.exit_code == 2
    assert "is no crate" in done.output
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "boo")
    assert "is no crate" in command("replay", tmp_path / "other.zip").output
    assert command("replay", tmp_path / "absent.zip").exit_code == 2


def test_a_damaged_crate_is_to_be_got_anew_and_nothing_of_it_is_sent_to_gc(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    export(tmp_path / "crate")
    changed(tmp_path / "crate", "annotations.json", "preference", "Preference")
    done = command("replay", tmp_path / "crate")
    assert done.exit_code == 1
    assert f"{tmp_path / 'crate'}: the artefact judge/" in done.stderr
    assert done.stderr.endswith("Get the crate anew.\n")
    assert "gc" not in done.stderr
    assert list(temporary.iterdir()) == []


def test_of_a_crate_whose_replay_was_stopped_nothing_is_left(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    (tmp_path / "temporary").mkdir()
    export(tmp_path / "crate")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("harness.run.replay.carry_out", stop)
    assert command("replay", tmp_path / "crate").exit_code == 130
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "zipped"),
    [("x.tar.gz", "x.zip"), ("x.tgz", "x.zip"), ("x.v2.TAR", "x.v2.zip"), ("x.7z", "x.zip")],
)
def test_an_archive_that_is_no_zip_is_neither_written_as_a_folder_nor_read_as_a_row(
    home: Path, tmp_path: Path, name: str, zipped: str
) -> None:
    done = command("export", "specs/one.yaml", "--to", tmp_path / name)
    assert done.exit_code == 2
    assert f"--to {tmp_path / name}: a crate is a folder or one archive, FILE.zip" in done.stderr
    assert f"Name {tmp_path / zipped}; or a folder" in done.stderr
    model = command("export", "specs/one.yaml", "--model", "--to", tmp_path / name)
    assert model.exit_code == 2
    assert "a model is copied into a folder" in model.stderr
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    read = command("replay", tmp_path / name)
    assert read.exit_code == 2
    assert "Unpack it, and name the folder that holds harness.json" in read.stderr


def test_a_model_is_not_copied_into_a_folder_that_is_called_like_an_archive(
    home: Path, tmp_path: Path
) -> None:
    done = command("export", "specs/one.yaml", "--model", "--to", tmp_path / "model.zip")
    assert done.exit_code == 2
    assert f"Name a folder, for example {tmp_path / 'model'}." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_crate_is_known_by_its_content_where_its_name_has_no_ending(
    home: Path, tmp_path: Path
) -> None:
    export(tmp_path / "crate.zip")
    (tmp_path / "crate.zip").rename(tmp_path / "mounted")
    assert command("replay", tmp_path / "mounted", "--stage", "train").exit_code == 0


def test_a_file_beyond_what_a_plain_zip_holds_is_packed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 2 GiB, which would take a minute, brought down to 1 MiB.
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 2**20)
    folder = tmp_path / "folder"
    folder.mkdir()
    large = bytes(2**20 + 1)
    (folder / "model.safetensors").write_bytes(large)
    os.utime(folder / "model.safetensors", (0, 0))  # 1970, before any date that a zip can have
    _zip(folder, tmp_path / "crate.zip")
    assert (
        unzip(tmp_path / "crate.zip", tmp_path / "out") / "model.safetensors"
    ).read_bytes() == large


@pytest.mark.parametrize("name", ["crate.zip", "crate"])
def test_in_a_container_the_rest_of_a_crate_is_replayed_with_a_mount_of_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    export(tmp_path / name)
    image = {"image": "gen", "lock": environment.lock_digest("gen"), "base": "x"}
    monkeypatch.setattr(environment, "current_image", lambda: image)
    environment.environment_of.cache_clear()
    replay = '--entrypoint "python -m harness replay" eval'
    done = command("replay", tmp_path / name, "--stage", "judge")
    mount = f"-v ON_THE_MACHINE:{tmp_path / name}:ro"
    assert f"docker compose run --rm {mount} {replay} {tmp_path / name}\n" in done.output
    assert "ON_THE_MACHINE is where the crate lies outside of the container" in done.output
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    done = command("replay", tmp_path / name, "--stage", "judge")
    assert f"docker compose run --rm {replay} {tmp_path / name}\n" in done.output
    assert "ON_THE_MACHINE" not in done.output
    environment.environment_of.cache_clear()


def test_another_version_of_the_code_is_noted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tmp_path / "crate")
    monkeypatch.setitem(CODE_VERSIONS, "train", 99)
    done = command("replay", tmp_path / "crate", "--stage", "train")
    assert done.exit_code == 0, done.output
    assert "here it is version 99" in done.output


def test_a_target_that_is_there_is_left_alone(home: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    done = command("export", "specs/one.yaml", "--to", tmp_path / "there")
    assert done.exit_code == 2
    assert "is there already" in done.output
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]


def test_a_row_that_is_not_finished_is_not_packed(home: Path, tmp_path: Path) -> None:
    done = command(
        "export", "specs/one.yaml", "--to", tmp_path / "crate", "--volume", tmp_path / "empty"
    )
    assert done.exit_code == 2
    assert "is not finished" in done.output
    assert not (tmp_path / "crate").exists()


def test_a_link_in_a_crate_is_not_followed(home: Path, tmp_path: Path) -> None:
    export(tmp_path / "crate")
    precious = tmp_path / "precious"
    for name in ("work", "logs", "locks"):
        (precious / name).mkdir(parents=True)
        (precious / name / "file").write_text("mine")
        (tmp_path / "crate" / name).symlink_to(precious / name)
    before = tree(precious)
    assert command("replay", tmp_path / "crate").exit_code == 0
    assert tree(precious) == before
    given = tmp_path / "crate" / "given"
    given.rename(tmp_path / "given")
    given.symlink_to(tmp_path / "given")
    done = command("replay", tmp_path / "crate")
    assert (done.exit_code, "given is a link" in done.output) == (2, True)


def reseal(crate: Path, stage: str, change: Any) -> None:
    """A manifest changed by someone who can make a seal."""
    (path,) = (crate / "artefacts" / stage).glob("*/manifest.json")
    manifest = json.loads(path.read_text())
    manifest.pop("seal")
    change(manifest)
    path.write_text(json.dumps({**manifest, "seal": digest_of(manifest)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["document"].update(code_version=999), "is not what its key stands for"),
        (lambda m: m["document"].update(inputs={}), "is not what its key stands for"),
        (lambda m: m.pop("files"), "cannot be read"),
        (lambda m: m.update(metrics=[1]), "cannot be read"),
        (lambda m: m.update(simulated=False), "cannot be read"),
        (lambda m: m["metrics"]["win_rate"].update(value=99.0), "came out different"),
    ],
)
def test_a_manifest_that_was_changed_and_sealed_anew_is_found_out(
    home: Path, tmp_path: Path, change: Any, words: str
) -> None:
    export(tmp_path / "crate")
    reseal(tmp_path / "crate", "judge", change)
    done = command("replay", tmp_path / "crate")
    assert done.exit_code in (1, 2)
    assert words in done.output


@pytest.mark.parametrize("lost", ["spec/one.yaml", "README.md", "ro-crate-metadata.json"])
@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_a_crate_that_lacks_a_file_is_not_called_exact(
    home: Path, tmp_path: Path, lost: str, name: str
) -> None:
    export(tmp_path / "crate")
    (tmp_path / "crate" / lost).unlink()
    if name.endswith(".zip"):
        _zip(tmp_path / "crate", tmp_path / name)
    done = command("replay", tmp_path / name)
    assert done.exit_code == 1
    assert "the crate is not whole" in done.stderr
    assert lost in done.stderr
    assert "exact" not in done.output


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("ro-crate-metadata.json", '{"a": ', "its ro-crate-metadata.json cannot be read"),
        ("ro-crate-metadata.json", "[]", "its ro-crate-metadata.json cannot be read"),
        ("ro-crate-metadata.json", "[" * 200_000, "its ro-crate-metadata.json cannot be read"),
        ("harness.json", "[]", "harness.json is no mapping"),
        ("harness.json", None, "it has no harness.json"),
    ],
)
def test_a_crate_whose_description_is_broken_is_told_as_one(
    home: Path, tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    export(tmp_path / "crate")
    file = tmp_path / "crate" / name
    file.unlink() if text is None else file.write_text(text)
    done = command("replay", tmp_path / "crate")
    assert done.exit_code in (1, 2)
    assert words in done.stderr
    assert "anew" in done.stderr
    assert "exact" not in done.output


def test_the_description_in_an_archive_is_held_to_its_digest_and_to_a_size(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, archive = "ro-crate-metadata.json", tmp_path / "crate.zip"
    export(archive)
    with zipfile.ZipFile(archive) as crate:
        entry = crate.getinfo(name)
    content = bytearray(archive.read_bytes())
    content[entry.header_offset + 30 + len(name) + entry.compress_size // 2] ^= 0x55
    (tmp_path / "flipped.zip").write_bytes(content)
    done = command("replay", tmp_path / "flipped.zip")
    assert done.exit_code == 2
    assert "flipped.zip is no crate of the harness" in done.stderr
    room = SimpleNamespace(free=entry.file_size)
    monkeypatch.setattr("harness.crate.unpack.shutil.disk_usage", lambda path: room)
    unzip(archive, tmp_path / "crate")
    with (tmp_path / "crate" / name).open("a") as file:
        file.write(" " * entry.file_size)
    shutil.rmtree(tmp_path / "crate" / "artefacts")
    _zip(tmp_path / "crate", tmp_path / "grown.zip")
    done = command("replay", tmp_path / "grown.zip")
    assert done.exit_code == 2
    assert "would unpack to" in done.stderr


@pytest.mark.parametrize("model", [[], ["--model"]])
def test_what_can_be_no_place_to_write_to_is_refused(
    home: Path, tmp_path: Path, model: list[str]
) -> None:
    (tmp_path / "f").write_text("")
    for to, words in (
        (str(tmp_path / "f" / "x" / "z"), f"{tmp_path / 'f'} is no folder"),
        (str(tmp_path / "f" / "z"), f"{tmp_path / 'f'} is no folder"),
        (str(tmp_path / ".zip"), ".zip is an ending alone"),
        ("hf:me/x", "hub:OWNER/NAME"),
        ("https://host/me/x", "hub:OWNER/NAME"),
        ("HUB:me", "is no name on the hub"),
        ("Hub:me/hf_AbCdEfGhIjKlMnOpQrStUvWx", "is no name on the hub"),
    ):
        done = command("export", "specs/one.yaml", "--to", to, *model)
        assert done.exit_code == 2, done.output
        assert words in done.stderr
        assert "QrSt" not in done.output
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert not list(Path.cwd().glob("*:*"))


def test_a_key_in_the_name_of_a_crate_is_not_printed(home: Path, tmp_path: Path) -> None:
    key = "sk-proj-Ab3dEf6hIj9kLm2nOp5q"
    done = export(tmp_path / f"{key}.zip")
    assert (tmp_path / f"{key}.zip").is_file()
    assert key not in done.output
