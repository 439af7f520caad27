"""What only shows when results lie side by side: shared outputs, copied judgements, confounded runs."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.audit.folders import CHATGPT, WEIGHTED, audit, finding, kinds, reviews, rows_of, write

CONFIG = {
    "temperature": 0.7,
    "top_p": 1.0,
    "max_new_tokens": 2048,
}


def configure(folder: Path, **changes: object) -> Path:
    """An alpaca_eval configuration beside a run."""
    decoding = CONFIG | changes
    prompt = decoding.pop("prompt_template", "prompt.txt")
    text = {"model": {"prompt_template": prompt, "completions_kwargs": decoding}}
    (folder / "configs.yaml").write_text(yaml.safe_dump(text))
    return folder


def test_separate_runs_of_separate_models_give_no_finding(tmp_path: Path) -> None:
    for seed in range(4):
        configure(write(tmp_path / f"run{seed}", rows_of(seed, model=f"m{seed}")))
    assert [kinds(r) for r in audit(tmp_path)] == [[]] * 4


def test_runs_that_share_their_outputs_are_found_with_the_spread_of_their_scores(
    tmp_path: Path,
) -> None:
    outputs = [str(r["output_2"]) for r in rows_of(0)]
    for seed in range(3):
        write(tmp_path / f"run{seed}", rows_of(seed, win=0.2 + 0.1 * seed, outputs=outputs))
    write(tmp_path / "other", rows_of(9))
    results = {Path(r.path).name: r for r in audit(tmp_path)}
    assert kinds(results["other"]) == []
    rates = [results[f"run{n}"].metrics["win_rate"] for n in range(3)]
    for n in range(3):
        found = finding(results[f"run{n}"], "shared_outputs")
        assert found.evidence["spread"] == pytest.approx(max(rates) - min(rates))
        assert len(found.evidence["results"]) == 3


def test_nearly_all_outputs_the_same_is_shared_and_half_of_them_is_not(tmp_path: Path) -> None:
    first = rows_of(0)
    texts = [str(r["output_2"]) for r in first]
    other = [str(r["output_2"]) for r in rows_of(5)]
    write(tmp_path / "first", first)
    write(tmp_path / "nearly", rows_of(1, outputs=texts[:196] + other[196:]))
    write(tmp_path / "half", rows_of(2, outputs=texts[:100] + other[100:]))
    results = {Path(r.path).name: kinds(r) for r in audit(tmp_path)}
    assert results == {"first": ["shared_outputs"], "nearly": ["shared_outputs"], "half": []}


def test_two_judges_of_one_run_are_as_it_should_be(tmp_path: Path) -> None:
    outputs = [str(r["output_2"]) for r in rows_of(0)]
    for annotator in (CHATGPT, WEIGHTED):
        rows = rows_of(1, annotator=annotator, outputs=outputs)
        folder = write(tmp_path / "model" / annotator, rows)
        shutil.move(folder / "model_outputs.json", tmp_path / "model" / "model_outputs.json")
    assert [kinds(r) for r in audit(tmp_path)] == [[], []]


def test_two_judges_in_folders_of_their_names_are_as_it_should_be(tmp_path: Path) -> None:
    outputs = [str(r["output_2"]) for r in rows_of(0)]
    for annotator in (CHATGPT, WEIGHTED):
        rows = rows_of(1, annotator=annotator, outputs=outputs)
        write(tmp_path / "model" / annotator, rows, outputs=False)
    assert [kinds(r) for r in audit(tmp_path)] == [[], []]


def test_empty_outputs_are_not_shared_ones(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path / f"run{seed}", rows_of(seed, outputs=[""] * 200))
    assert [kinds(r) for r in audit(tmp_path)] == [["empty_or_truncated"]] * 2


def test_annotations_with_the_same_bytes_are_found(tmp_path: Path) -> None:
    folder = write(tmp_path / "model" / "judge_one", rows_of())
    shutil.copytree(folder, tmp_path / "model" / "judge_two")
    for result in audit(tmp_path):
        found = finding(result, "copied_results")
        assert "the same bytes" in found.message
        assert len(set(found.evidence["files"].values())) == 1


def test_judgements_copied_under_another_judges_name_are_found(tmp_path: Path) -> None:
    rows = rows_of()
    write(tmp_path / "model" / "one", rows)
    write(
        tmp_path / "model" / "two", [r | {"annotator": "gpt4", "time_per_example": 1} for r in rows]
    )
    for result in audit(tmp_path):
        assert "said to be of" in finding(result, "copied_results").message


def test_a_second_judge_that_agrees_in_most_is_no_copy(tmp_path: Path) -> None:
    rows = rows_of()
    other = [dict(r) | {"annotator": "gpt4", "time_per_example": 1} for r in rows]
    other[7] |= {
        "preference": 3 - other[7]["preference"],
        "raw_completion": {"Output (a)": "Output (b)", "Output (b)": "Output (a)"}[
            other[7]["raw_completion"]
        ],
    }
    write(tmp_path / "model" / "one", rows)
    write(tmp_path / "model" / "two", other)
    assert "copied_results" not in [k for r in audit(tmp_path) for k in kinds(r)]


def test_two_models_that_lose_everything_are_no_copies(tmp_path: Path) -> None:
    for seed in range(2):
        rows = rows_of(seed, win=1e-9, model=f"m{seed}")
        write(tmp_path / f"run{seed}", [r | {"time_per_example": seed} for r in rows])
    assert [kinds(r) for r in audit(tmp_path)] == [[], []]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("temperature", 0.1), ("max_new_tokens", 300), ("top_p", 0.5), ("prompt_template", "b.txt")],
)
def test_a_run_made_with_another_setting_is_confounded(
    tmp_path: Path, setting: str, value: object
) -> None:
    for seed in range(2):
        configure(write(tmp_path / f"run{seed}", rows_of(seed)))
    configure(write(tmp_path / "zero", rows_of(7)), **{setting: value})
    results = {Path(r.path).name: r for r in audit(tmp_path)}
    found = finding(results["zero"], "confounded")
    name = {"prompt_template": "prompt"}.get(setting, setting)
    assert list(found.evidence["settings"]) == [name]
    assert found.evidence["settings"][name]["this"] == value
    assert str(value) in found.message
    assert [kinds(results[f"run{n}"]) for n in range(2)] == [[], []]


def test_of_two_runs_that_differ_one_is_marked(tmp_path: Path) -> None:
    configure(write(tmp_path / "a", rows_of(1)), temperature=0.7)
    configure(write(tmp_path / "b", rows_of(2)), temperature=0.1)
    assert [kinds(r) for r in audit(tmp_path)] == [[], ["confounded"]]


def test_a_number_written_in_another_way_is_the_same_setting(tmp_path: Path) -> None:
    configure(write(tmp_path / "a", rows_of(1)), temperature=1)
    configure(write(tmp_path / "b", rows_of(2)), temperature=1.0)
    assert [kinds(r) for r in audit(tmp_path)] == [[], []]


def test_a_setting_that_is_another_in_every_run_is_what_they_are_about(tmp_path: Path) -> None:
    for name, temperature in (("a", 0.1), ("b", 0.7), ("c", 1.0)):
        configure(write(tmp_path / name, rows_of(ord(name))), temperature=temperature)
    assert [kinds(r) for r in audit(tmp_path)] == [[], [], []]


def test_prompts_are_compared_by_their_text(tmp_path: Path) -> None:
    for name, words in (
        ("a", "Q: {instruction}"),
        ("b", "Q: {instruction}"),
        ("c", "{instruction}"),
    ):
        folder = configure(
            write(tmp_path / name, rows_of(ord(name))), prompt_template=f"{name}/p.txt"
        )
        (folder / "p.txt").write_text(words)
    assert [kinds(r) for r in audit(tmp_path)] == [[], [], ["confounded"]]


def test_a_run_with_another_judge_than_the_others_is_told(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path / f"run{seed}", rows_of(seed))
    write(tmp_path / "other", rows_of(7, annotator=WEIGHTED))
    results = {Path(r.path).name: r for r in audit(tmp_path)}
    found = finding(results["other"], "confounded")
    assert found.evidence["settings"]["judge"]["this"] == WEIGHTED
    assert [kinds(results[f"run{n}"]) for n in range(2)] == [[], []]


def test_runs_on_other_prompts_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "a", rows_of(1))
    write(tmp_path / "b", rows_of(2, annotator=WEIGHTED, instructions="Say something of"))
    assert [kinds(r) for r in audit(tmp_path)] == [[], []]


def test_a_temperature_that_a_readme_states_for_each_run_is_compared(tmp_path: Path) -> None:
    for name in ("base", "one", "two"):
        write(tmp_path / name, rows_of(ord(name[0])))
    told = "| run | temperature | top p |\n|---|---|---|\n| base | 0.1 | 1 |\n"
    (tmp_path / "README.md").write_text(told + "| one | 0.7 | 1 |\n| two | 0.7 | 1 |\n")
    results = {Path(r.path).name: r for r in audit(tmp_path)}
    found = finding(results["base"], "confounded")
    assert list(found.evidence["settings"]) == ["temperature"]
    assert [kinds(results[name]) for name in ("one", "two")] == [[], []]


def test_a_damaged_configuration_is_passed_by(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", rows_of(1))
    (folder / "configs.yaml").write_text("a: [")
    (result,) = audit(tmp_path)
    assert result.findings == []
    assert any("configs.yaml" in note for note in result.notes)


def test_results_of_several_kinds_lie_beside_each_other(tmp_path: Path) -> None:
    write(tmp_path / "a", rows_of(1))
    reviews(tmp_path / "b")
    (tmp_path / "c").mkdir()
    told = [{"instruction": f"i {k}", "output": f"It is {k}.", "generator": "m"} for k in range(30)]
    (tmp_path / "c" / "model_outputs.json").write_text(json.dumps(told))
    results = audit(tmp_path)
    assert [(r.kind, kinds(r)) for r in results] == [
        ("alpaca_eval", []), ("alpagasus", []), ("model_outputs", []),
    ]  # fmt: skip
