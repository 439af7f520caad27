"""`harness show ROW --sources`: each setting with its value, its source and how the two stand."""

import json
import re
from pathlib import Path

import pytest

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
    assert "another one trains another model" in command("show", spec, "--sources").output
    named = write_row(tmp_path, train={"steps": 1, "seed": 42})
    settings = json.loads(command("show", named, "--sources", "--json").output)
    assert [s["status"] for s in settings if s["setting"] == "train.seed"] == ["no source"]


def test_the_table_is_read_at_80_columns(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from harness.cli.views.sources import show_sources
    from harness.row.load import load_rows

    console = Console(width=80, record=True, emoji=False)
    show_sources(console, load_rows([spec])[0], as_json=False)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "a/b@cccccccc run.sh:3" in text
    assert any("README; the" in line and line.endswith("deviation") for line in lines)
    assert any(
        line.split() == ["learning_rate", "2e-05", "(default)", '"', "default"] for line in lines
    )
    assert any(line.startswith("  prompt") and line.endswith("no source") for line in lines)
    assert text.endswith("no source")
    assert "1 deviation, 1 assumption" in text


def test_what_is_too_long_for_its_column_stands_below_broken_between_its_parts(
    tmp_path: Path,
) -> None:
    from rich.console import Console

    from harness.cli.views.sources import show_sources
    from harness.row.load import load_rows

    config = {"model_type": "qwen2", **TINY, "tie_word_embeddings": True}
    place = {"repository": "a/b", "commit": "c" * 40, "file": "a/folder/with/a/long/name/run.sh"}
    spec = write_row(
        tmp_path, model={"random": {"config": config}}, sources={"model.random": place}
    )
    console = Console(width=80, record=True, emoji=False)
    show_sources(console, load_rows([spec])[0], as_json=False)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("  random.config "))
    end = lines.index("    from: a/b@cccccccc a/folder/with/a/long/name/run.sh")
    assert lines[start].split() == ["random.config", "same"]
    assert json.loads(" ".join(lines[start + 1 : end])) == config
    assert all(re.fullmatch(r' {4}\S.*[,}"]', line) for line in lines[start + 1 : end])


def test_a_wide_terminal_shows_values_whole_and_a_source_of_a_replaced_value_is_none(
    spec: Path,
) -> None:
    from rich.console import Console

    from harness.cli.views.sources import show_sources
    from harness.row.load import load_rows

    name = "a-longer-name-than-sixteen-characters.txt"
    (spec.parent / name).write_text("{count} {examples} {next}")
    above = spec.parent / "above.yaml"
    above.write_text(
        f"extends: {spec.name}\nrow: above\ngen: {{prompt: {name}}}\ntrain: {{weight_decay: 0.2}}\n"
    )
    for width, is_beside in ((200, True), (80, False)):
        console = Console(width=width, record=True, emoji=False)
        show_sources(console, load_rows([above])[0], as_json=False)
        text = console.export_text()
        line = next(line for line in text.splitlines() if name in line)
        assert line.startswith("  prompt ") == is_beside
        assert is_beside or line == f"    {name}"
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    line = next(line for line in text.splitlines() if line.startswith("  weight_decay"))
    assert line.rstrip().endswith("no source")
    result = json.loads(command("show", above, "--sources", "--json").output)
    entry = next(entry for entry in result if entry["setting"] == "train.weight_decay")
    assert entry["source"] is None
    assert entry["replaces_value_of"].endswith(spec.name)
