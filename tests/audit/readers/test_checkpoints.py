"""Configurations that leave the checkpoint open."""

import json
from pathlib import Path

import pytest

from harness.audit import audit_paths
from harness.audit.model import Result
from harness.errors import InputError

CONFIG = """mini:
  prompt_template: mini/prompt.txt
  fn_completions: huggingface_local_completions
  completions_kwargs:
    # model_name: /data/save/qwen/checkpoint-100
    # model_name: /data/save/qwen/checkpoint-200
    model_name: /data/save/qwen/checkpoint-300
    # model_name: /data/old/llama
    model_kwargs:
      torch_dtype: bfloat16
    temperature: 0.7
"""


def write(folder: Path, config: str, generator: str = "mini") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "configs.yaml").write_text(config)
    rows = [
        {"instruction": f"Say {n}.", "output": f"Number {n}.", "generator": generator}
        for n in range(20)
    ]
    (folder / "model_outputs.json").write_text(json.dumps(rows))
    return folder


def unknown(folder: Path) -> list[Result]:
    results = audit_paths([folder])
    return [r for r in results if any(f.kind == "unknown_checkpoint" for f in r.findings)]


def test_checkpoints_in_comments_leave_open_which_was_used(tmp_path: Path) -> None:
    (result,) = unknown(write(tmp_path, CONFIG))
    (finding,) = result.findings
    assert finding.evidence["in_use"] == ["/data/save/qwen/checkpoint-300"]
    assert len(finding.evidence["checkpoints"]) == 4
    assert "names 4 checkpoints" in finding.message


def test_one_checkpoint_leaves_nothing_open(tmp_path: Path) -> None:
    clean = "".join(line + "\n" for line in CONFIG.splitlines() if "#" not in line)
    assert unknown(write(tmp_path, clean)) == []
    commented = clean + "# temperature: 0.1\n# See the file README for model_name\n"
    assert unknown(write(tmp_path, commented)) == []


@pytest.mark.parametrize("generator", ["qwen/checkpoint-300", "checkpoint-200"])
def test_outputs_that_name_their_checkpoint_settle_it(tmp_path: Path, generator: str) -> None:
    assert unknown(write(tmp_path, CONFIG, generator)) == []


def test_a_readme_that_names_the_checkpoint_settles_it(tmp_path: Path) -> None:
    write(tmp_path, CONFIG)
    (tmp_path / "README.md").write_text("All outputs are of checkpoint-300.\n")
    assert unknown(tmp_path) == []
    (tmp_path / "README.md").write_text("We tried checkpoint-100 and checkpoint-300.\n")
    assert len(unknown(tmp_path)) == 1


def test_a_training_script_with_other_base_models_in_comments_is_no_open_checkpoint(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, "a: 1\n")
    (folder / "run.sh").write_text(
        "# --model_name_or_path Qwen/Qwen1.5-1.8B\n"
        "python train.py --model_name_or_path Qwen/Qwen1.5-0.5B --per_device_train_batch_size 2\n"
    )
    assert unknown(folder) == []


def test_folders_of_checkpoints_without_a_finished_model_leave_it_open(tmp_path: Path) -> None:
    write(tmp_path, "a: 1\n")
    for step in (100, 200):
        (tmp_path / "out" / f"checkpoint-{step}").mkdir(parents=True)
        (tmp_path / "out" / f"checkpoint-{step}" / "config.json").write_text("{}")
    (result,) = unknown(tmp_path)
    assert result.findings[0].evidence["checkpoints"] == ["checkpoint-100", "checkpoint-200"]
    (tmp_path / "out" / "config.json").write_text("{}")
    assert unknown(tmp_path) == []


def test_a_configuration_without_results_is_nothing_to_audit(tmp_path: Path) -> None:
    write(tmp_path, CONFIG)
    (tmp_path / "model_outputs.json").unlink()
    with pytest.raises(InputError):
        audit_paths([tmp_path])


@pytest.mark.parametrize("text", ["a: [", "\x00", "- 1\n- 2\n", "&a [*a]\n", "? {a: 1}\n: 2\n"])
def test_a_damaged_configuration_is_passed_by(tmp_path: Path, text: str) -> None:
    assert unknown(write(tmp_path, text)) == []
