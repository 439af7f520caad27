"""Replay: a data set made again from its transcript is the same to the byte, or it is not exact."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import ROOT, command

SMOKE = ROOT / "specs" / "smoke"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A row with a small data set by the simulated teacher, in a specs/ folder of its own."""
    for name in ("HARNESS_DATA", "HARNESS_INPUTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SMOKE, tmp_path / "specs", ignore=shutil.ignore_patterns("*.yaml"))
    tree = {
        "row": "one",
        "table": "tests",
        "title": "One",
        "model": {"random": {"config": {"model_type": "qwen2"}, "tokenizer": "bytes"}},
        "template": {"prompt": "prompts/qa.txt"},
        "gen": {
            "recipe": "alpaca",
            "teacher": {"model": "teacher", "simulated": {}},
            "seeds": "seeds.jsonl",
            "prompt": "prompts/tasks.txt",
            "examples": 30,
            "filter": {"max_similarity": 1},
        },
    }
    path = tmp_path / "specs" / "one.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def change(spec: Path, **gen: Any) -> None:
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] |= gen
    spec.write_text(yaml.safe_dump(tree))


def run(spec: Path) -> Path:
    """Make the data set; its folder."""
    done = command("run", spec)
    assert done.exit_code == 0, done.output
    (folder,) = Path("runs/artefacts/gen").iterdir()
    return folder


def test_a_replay_is_exact_and_leaves_nothing_behind(spec: Path) -> None:
    folder = run(spec)
    done = command("replay", "one")
    assert done.exit_code == 0, done.output
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"data.jsonl", "dropped.jsonl", "transcript.jsonl", "card.json"} <= set(files)
    assert f"exact, {len(files)} of {len(files)} files" in done.output
    assert "5 replies from the transcript" in done.output
    assert list(Path("runs/work").iterdir()) == []


def test_a_file_that_comes_out_otherwise_is_named_and_the_replay_fails(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(spec)
    # A transcript that a person changed, and a manifest sealed over it.
    from harness.keys import digest_of, file_digest

    path = folder / "transcript.jsonl"
    first, *others = path.read_text().splitlines()
    record = json.loads(first)
    message = record["response"]["choices"][0]["message"]
    message["content"] = message["content"].replace("Instruction: ", "Instruction: Please, ", 1)
    lines = [json.dumps(record, separators=(",", ":")), *others]
    path.write_text("".join(line + "\n" for line in lines))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("seal")
    manifest["files"]["transcript.jsonl"] = {
        "sha256": file_digest(path), "size": path.stat().st_size,
    }  # fmt: skip
    text = json.dumps({**manifest, "seal": digest_of(manifest)}, indent=2, sort_keys=True)
    (folder / "manifest.json").write_text(text + "\n")
    done = command("replay", "one")
    assert done.exit_code == 1
    assert "data.jsonl (other bytes)" in done.output
    assert "1 of 1 gen artefacts came out different" in done.output
    (work,) = Path("runs/work").iterdir()
    assert "Please, " in (work / "data.jsonl").read_text()


def test_a_request_that_the_transcript_lacks_fails_and_shows_the_nearest_one(spec: Path) -> None:
    folder = run(spec)
    own = folder / "transcript.jsonl"
    shutil.copy(own, spec.parent / "published.jsonl")
    (spec.parent / "prompts" / "tasks.txt").write_text(
        (SMOKE / "prompts" / "tasks.txt").read_text().replace("practice tasks", "hard tasks")
    )
    change(spec, transcript="published.jsonl")
    done = command("run", spec)
    assert done.exit_code == 1
    assert "-" in done.output
    assert "practice tasks" in done.output
    assert "hard tasks" in done.output


def test_a_transcript_named_in_the_spec_makes_the_same_data_without_a_teacher(spec: Path) -> None:
    folder = run(spec)
    shutil.copy(folder / "transcript.jsonl", spec.parent / "published.jsonl")
    shutil.rmtree("runs")
    change(
        spec,
        transcript="published.jsonl",
        # The calls were recorded with this key's name in the spec, and it is set nowhere.
        teacher={"model": "teacher", "simulated": {}, "api_key_env": "NOBODY_HAS_THIS"},
    )
    before = (spec.parent / "published.jsonl").read_bytes()
    again = run(spec)
    manifest = json.loads((again / "manifest.json").read_text())
    assert manifest["simulated"] == ["teacher"]
    assert manifest["cost"]["calls"] == 0
    assert (again / "transcript.jsonl").read_bytes() == before
    assert command("replay", "one").exit_code == 0


def test_a_replay_reaches_no_server_even_where_one_answers(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.sim.server import start
    from harness.spec.base import Simulated

    with start(Simulated()) as server:
        change(spec, teacher={"model": "teacher", "base_url": server.base_url})
        run(spec)
        asked = server.requests
        done = command("replay", "one")
        assert done.exit_code == 0, done.output
        assert server.requests == asked


def test_every_step_of_a_chain_is_replayed(spec: Path) -> None:
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] = [tree["gen"], {"recipe": "random_k", "k": 10}, {"recipe": "longest_k", "k": 5}]
    spec.write_text(yaml.safe_dump(tree))
    assert command("run", spec).exit_code == 0
    done = command("replay", spec)
    assert done.exit_code == 0, done.output
    assert done.output.count("exact") == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [("one", "there is nothing to replay"), ("on", "Near: one"), ("zzz", "no row 'zzz'")],
)
def test_what_cannot_be_replayed_is_said(spec: Path, name: str, said: str) -> None:
    done = command("replay", name)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_damaged_artefact_is_not_replayed(spec: Path) -> None:
    folder = run(spec)
    (folder / "data.jsonl").write_text("{}\n")
    done = command("replay", "one")
    assert done.exit_code != 0
    assert "data.jsonl" in done.output


def test_the_data_card_is_shown_with_its_mark(spec: Path) -> None:
    run(spec)
    done = command("show", "one", "--data")
    assert done.exit_code == 0, done.output
    assert "simulated: teacher" in done.output
    cards = json.loads(command("show", "one", "--data", "--json").output)
    assert cards[0]["format"] == 1


def test_a_copy_of_a_simulated_data_set_says_so_on_another_volume(
    spec: Path, tmp_path: Path
) -> None:
    folder = run(spec)
    copy = spec.parent / "copy.jsonl"
    copy.write_text((folder / "data.jsonl").read_text() + "\n")
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] = {"recipe": "import", "file": "copy.jsonl"}
    spec.write_text(yaml.safe_dump(tree))
    assert command("run", "--volume", tmp_path / "elsewhere", spec).exit_code == 0
    (made,) = (tmp_path / "elsewhere" / "artefacts" / "gen").iterdir()
    assert json.loads((made / "manifest.json").read_text())["simulated"] == ["teacher"]
    assert "simulated" in (made / "card.md").read_text()
    rows = [json.loads(line) for line in (made / "data.jsonl").read_text().splitlines()]
    assert [r["simulated"] for r in rows] == [r["id"].startswith("generated") for r in rows]


def test_a_card_that_was_changed_is_not_shown(spec: Path) -> None:
    folder = run(spec)
    (folder / "card.json").write_text("[]")
    done = command("show", "one", "--data")
    assert done.exit_code != 0
    assert "card.json" in done.output


def test_of_a_chain_the_last_card_is_shown_and_the_others_are_named(spec: Path) -> None:
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] = [tree["gen"], {"recipe": "random_k", "k": 10}]
    spec.write_text(yaml.safe_dump(tree))
    assert command("run", spec).exit_code == 0
    shown = command("show", "one", "--data").output
    assert "one (step 2 random_k)" in shown
    assert "10 examples of instruction data" in shown
    (line,) = [
        li for li in shown.splitlines() if li.startswith("one (step 1 alpaca): harness show")
    ]
    again = command(*line.split(": harness ")[1].split()).output
    assert "50 examples of instruction data" in again
