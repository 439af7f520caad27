"""`harness show ROW --sources`: each setting with its value, its source and how the two stand."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli.views.sources import show_sources
from harness.row.load import load_rows
from tests.helpers import TINY, command, write_row

SOURCES = {
    "model.random": {"document": "README, Setup"},
    "train": {"repository": "a/b", "commit": "c" * 40, "file": "run.sh", "line": 3},
    "train.steps": {"deviation": "the document has 10; ours is 1", "document": "README"},
    "train.betas": {"assumption": "AdamW's usual ones; hardly moves the number"},
}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_row(tmp_path, sources=SOURCES, train={"steps": 1, "weight_decay": 0.1})


def test_each_setting_has_its_value_its_source_and_its_status(spec: Path) -> None:
    result = command("show", spec, "--sources", "--json")
    settings = {entry["setting"]: entry for entry in json.loads(result.output)}
    assert settings["train.steps"] == {
        "setting": "train.steps",
        "value": 1,
        "is_default": False,
        "source": SOURCES["train.steps"],
        "status": "deviation",
    }
    assert settings["train.betas"]["status"] == "assumption"
    assert settings["train.betas"]["is_default"]
    assert settings["train.learning_rate"]["source"] == SOURCES["train"]
    assert settings["train.learning_rate"]["status"] == "default"
    assert settings["train.weight_decay"]["status"] == "same"
    assert settings["gen.prompt"] == {
        "setting": "gen.prompt",
        "value": "tasks.txt",
        "is_default": False,
        "source": None,
        "status": "no source",
    }
    assert settings["model.trust_remote_code"]["status"] == "harness"
    # What decides no key is no setting of the study's.
    assert not any("checkpoint_steps" in name or "concurrency" in name for name in settings)


def test_a_trainings_seed_left_to_its_default_is_assumed(tmp_path: Path) -> None:
    spec = write_row(tmp_path)
    result = command("show", spec, "--sources", "--json")
    settings = {entry["setting"]: entry for entry in json.loads(result.output)}
    assert settings["train.seed"]["status"] == "assumption"
    assert settings["train.packing"]["status"] == "harness"
    said = " ".join(command("show", spec, "--sources").output.split())
    assert "not stated by the study: the harness's default fills it, with any seed" in said
    assert "another one trains another model" in said
    named = write_row(tmp_path, train={"steps": 1, "seed": 42})
    settings = json.loads(command("show", named, "--sources", "--json").output)
    assert [s["status"] for s in settings if s["setting"] == "train.seed"] == ["no source"]


def shown(spec: Path, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True, emoji=False)
    show_sources(console, load_rows([spec])[0], as_json=False)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def test_at_80_columns_each_setting_is_a_block_of_lines(spec: Path) -> None:
    lines = shown(spec, 80)
    at = lines.index("  steps: 1")
    assert lines[at + 1] == "    deviation: README; the document has 10; ours is 1"
    at = lines.index("  learning_rate: 2e-05 (default)")
    assert lines[at - 1 : at + 3 : 2] == ["    default: as above"] * 2
    assert "    default: a/b@cccccccc run.sh:3" in lines
    at = lines.index("  prompt: tasks.txt")
    assert lines[at + 1] == "    no source"
    assert "1 deviation, 1 assumption" in " ".join(lines[-2:])


def test_piped_no_name_and_no_value_is_broken(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = command("show", spec, "--sources").stdout.splitlines()
    assert "    deviation: README; the document has 10; ours is 1" in lines
    assert "  gradient_checkpointing: false (default)" in lines


@pytest.mark.parametrize("width", [60, 80, 140, 200])
def test_a_setting_that_is_a_part_of_its_own_has_its_name_and_no_word_is_cut(
    tmp_path: Path, width: int
) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    model = {"hub": {"id": "an-owner-of-models/A-Model1.5-0.5B-Chat", "revision": revision}}
    place = {"repository": "a/b", "commit": "c" * 40, "file": "a/folder/with/a/long/name/run.sh"}
    spec = write_row(tmp_path, model=model, template="alpaca", sources={"template": place})
    lines = shown(spec, width)
    words = " ".join(lines).split()
    assert {revision, model["hub"]["id"], place["file"]} <= set(words)
    assert any(
        line.split()[:2] in (["template", "alpaca"], ["template:", "alpaca"]) for line in lines
    )
    assert "template" not in lines


def test_what_is_too_long_for_its_column_stands_below_broken_between_its_parts(
    tmp_path: Path,
) -> None:
    config = {"model_type": "qwen2", **TINY, "tie_word_embeddings": True}
    name = "a/folder/with/a/name/that/is/much/too/long/for/one/column/of/the/table/run.sh"
    place = {"repository": "a/b", "commit": "c" * 40, "file": name}
    spec = write_row(
        tmp_path, model={"random": {"config": config}}, sources={"model.random": place}
    )
    lines = shown(spec, 130)
    start = next(n for n, line in enumerate(lines) if line.startswith("  random.config "))
    end = lines.index(f"    from: a/b@cccccccc {name}")
    assert lines[start].split() == ["random.config", "same"]
    assert json.loads(" ".join(lines[start + 1 : end])) == config
    assert all(re.fullmatch(r' {4}\S.*[,}"]', line) for line in lines[start + 1 : end])


def test_a_wide_terminal_shows_values_whole_and_a_source_of_a_replaced_value_is_none(
    spec: Path,
) -> None:
    name = "a-longer-name-than-sixteen-characters.txt"
    (spec.parent / name).write_text("{count} {examples} {next}")
    above = spec.parent / "above.yaml"
    above.write_text(
        f"extends: {spec.name}\nrow: above\ngen: {{prompt: {name}}}\ntrain: {{weight_decay: 0.2}}\n"
    )
    assert f"  prompt: {name}" in shown(above, 80)
    lines = shown(above, 200)
    assert any(line.split()[:2] == ["prompt", name] for line in lines)
    line = next(line for line in lines if line.startswith("  weight_decay"))
    assert line.endswith("no source")
    result = json.loads(command("show", above, "--sources", "--json").output)
    entry = next(entry for entry in result if entry["setting"] == "train.weight_decay")
    assert entry["source"] is None
    assert entry["replaces_value_of"].endswith(spec.name)
