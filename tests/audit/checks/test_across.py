"""What only shows when results lie side by side: shared outputs, copied judgements, confounded runs."""

import csv
import json
import random
import shutil
from pathlib import Path

import pytest
import yaml

from tests.audit.folders import (
    CHATGPT,
    WEIGHTED,
    Row,
    audit,
    finding_of,
    kinds,
    reviews,
    rows_of,
    write,
)

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
        finding = finding_of(results[f"run{n}"], "shared_outputs")
        assert finding.evidence["spread"] == pytest.approx(max(rates) - min(rates))
        assert len(finding.evidence["results"]) == 3


def test_nearly_all_outputs_the_same_is_shared_and_half_of_them_is_not(tmp_path: Path) -> None:
    first = rows_of(0)
    texts = [str(r["output_2"]) for r in first]
    other = [str(r["output_2"]) for r in rows_of(5)]
    write(tmp_path / "first", first)
    write(tmp_path / "nearly", rows_of(1, outputs=texts[:196] + other[196:]))
    write(tmp_path / "half", rows_of(2, outputs=texts[:100] + other[100:]))
    results = {Path(r.path).name: kinds(r) for r in audit(tmp_path)}
    assert results == {"first": ["shared_outputs"], "nearly": ["shared_outputs"], "half": []}


def test_outputs_that_differ_in_white_space_alone_are_shared(tmp_path: Path) -> None:
    texts = [str(r["output_2"]) for r in rows_of(0)]
    write(tmp_path / "one", rows_of(0))
    write(tmp_path / "two", rows_of(1, outputs=[f" {t}\n" for t in texts]))
    findings = [finding_of(r, "shared_outputs") for r in audit(tmp_path)]
    assert [f.evidence["share"] for f in findings] == [1.0, 1.0]


@pytest.mark.parametrize(("same", "shared"), [(96, True), (90, False)])
def test_short_answers_neither_make_outputs_shared_nor_hide_that_they_are(
    tmp_path: Path, same: int, shared: bool
) -> None:
    """Half of the answers are a word; of the others so many are the same."""
    long = [str(r["output_2"]) for r in rows_of(0)][:100]
    other = [str(r["output_2"]) for r in rows_of(5)]
    write(tmp_path / "one", rows_of(0, outputs=long + ["Yes."] * 100))
    mixed = long[:same] + other[same:100]
    write(tmp_path / "two", rows_of(1, outputs=mixed + ["No." if shared else "Yes."] * 100))
    results = audit(tmp_path)
    assert [("shared_outputs" in kinds(r)) for r in results] == [shared] * 2
    if shared:
        assert finding_of(results[0], "shared_outputs").evidence["share"] == 0.96
        assert "96 of 100" in finding_of(results[0], "shared_outputs").message


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
        finding = finding_of(result, "copied_results")
        assert "the same bytes" in finding.message
        assert len(set(finding.evidence["files"].values())) == 1


def test_judgements_copied_under_another_judges_name_are_found(tmp_path: Path) -> None:
    rows = rows_of()
    write(tmp_path / "model" / "one", rows)
    write(
        tmp_path / "model" / "two", [r | {"annotator": "gpt4", "time_per_example": 1} for r in rows]
    )
    for result in audit(tmp_path):
        assert "said to be of" in finding_of(result, "copied_results").message


def board_alone(folder: Path, win: float = 0.3, **figures: float) -> Path:
    """A leaderboard of one model without its annotations."""
    write(folder, rows_of(win=win), board={"length_controlled_winrate": 27.123456789} | figures)
    for name in ("annotations.json", "model_outputs.json"):
        (folder / name).unlink()
    return folder


def test_a_leaderboard_that_stands_twice_without_annotations_is_a_copy(tmp_path: Path) -> None:
    for name in ("judge", "results/run/judge"):
        board_alone(tmp_path / name)
    board_alone(tmp_path / "other", length_controlled_winrate=27.12345678)
    board_alone(tmp_path / "longer", avg_length=1234)
    results = {str(Path(r.path).relative_to(tmp_path)): r for r in audit(tmp_path)}
    copies = {name for name, r in results.items() if "copied_results" in kinds(r)}
    assert copies == {"judge", "results/run/judge"}
    copy = finding_of(results["judge"], "copied_results")
    assert copy.evidence["other"] == str(tmp_path / "results/run/judge")
    assert copy.evidence["figures"]["length_controlled_winrate"] == 27.123456789


def test_a_bare_leaderboard_that_is_that_of_stored_annotations_is_a_copy(tmp_path: Path) -> None:
    write(tmp_path / "run", rows_of())
    write(tmp_path / "copy", rows_of())
    for name in ("annotations.json", "model_outputs.json"):
        (tmp_path / "copy" / name).unlink()
    findings = [finding_of(r, "copied_results") for r in audit(tmp_path / "run", tmp_path / "copy")]
    assert [Path(f.evidence["other"]).name for f in findings] == ["copy", "run"]


def test_lines_that_coincide_by_themselves_are_no_copies(tmp_path: Path) -> None:
    """Sweeps, published models in two leaderboards, and a leaderboard above that gathers others."""
    for name in ("one", "two"):
        board_alone(tmp_path / "sweeps" / name, win=1e-9)
        board = board_alone(tmp_path / "published" / name) / "leaderboard.csv"
        (line,) = list(csv.DictReader(board.open()))
        mine = {"": name, **{k: v for k, v in line.items() if k}}
        mine["avg_length"] = str(100 + len(name) + (name == "one"))
        with board.open("a", newline="") as file:
            csv.DictWriter(file, list(mine)).writerow(mine)
    board_alone(tmp_path / "gathered")
    board_alone(tmp_path / "gathered" / "run")
    assert len(audit(tmp_path)) == 8
    assert [r.path for r in audit(tmp_path) if "copied_results" in kinds(r)] == []


def second_judge(rows: list[Row], differs: int) -> list[Row]:
    """Another judge's, who decides the first so many prompts the other way."""
    other = [dict(r) | {"annotator": "gpt4", "time_per_example": 1} for r in rows]
    turned = {"Output (a)": "Output (b)", "Output (b)": "Output (a)"}
    for row in other[:differs]:
        row |= {
            "preference": 3 - row["preference"], "raw_completion": turned[row["raw_completion"]],
        }  # fmt: skip
    return other


@pytest.mark.parametrize("differs", [4, 10, 40])
def test_a_second_judge_that_agrees_in_most_is_no_copy(tmp_path: Path, differs: int) -> None:
    rows = rows_of()
    write(tmp_path / "model" / "one", rows)
    write(tmp_path / "model" / "two", second_judge(rows, differs))
    assert "copied_results" not in [k for r in audit(tmp_path) for k in kinds(r)]


@pytest.mark.parametrize("differs", [0, 1])
@pytest.mark.parametrize("reply", [True, False])
def test_nearly_the_same_judgements_in_another_order_are_a_copy(
    tmp_path: Path, differs: int, reply: bool
) -> None:
    rows = rows_of()
    other = second_judge(rows, differs)
    random.Random(1).shuffle(other)
    for row in () if reply else [*rows, *other]:
        row["raw_completion"] = None
    write(tmp_path / "model" / "one", rows)
    write(tmp_path / "model" / "two", other)
    findings = [finding_of(r, "copied_results") for r in audit(tmp_path)]
    assert [f.severity for f in findings] == ["error", "error"]
    assert ("of 200" in findings[0].message) is bool(differs)


def test_the_same_log_probabilities_for_other_outputs_are_a_copy(tmp_path: Path) -> None:
    rows = rows_of(annotator=WEIGHTED, model="one")
    for row in rows:
        del row["time_per_example"]
    other_rows = rows_of(9, model="two")
    copied = [
        r | {"output_2": o["output_2"], "generator_2": "two"}
        for r, o in zip(rows, other_rows, strict=True)
    ]
    copied[3] |= {"preference": 1.0, "raw_completion": None}
    write(tmp_path / "one", rows)
    write(tmp_path / "two", copied[::-1])
    assert all("copied_results" in kinds(r) for r in audit(tmp_path))
    write(tmp_path / "two", rows_of(9, annotator=WEIGHTED, model="two"))
    assert [kinds(r) for r in audit(tmp_path)] == [[], []]


def test_one_judge_at_temperature_0_says_the_same_of_the_same_outputs(tmp_path: Path) -> None:
    rows = rows_of(annotator=WEIGHTED)
    for name in ("one", "two"):
        here = [r | {"time_per_example": float(len(name) + k)} for k, r in enumerate(rows)]
        for row in here if name == "one" else ():
            del row["time_per_example"]
        write(tmp_path / name, here)
    assert [kinds(r) for r in audit(tmp_path)] == [["shared_outputs"]] * 2


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
    finding = finding_of(results["zero"], "confounded")
    name = {"prompt_template": "prompt"}.get(setting, setting)
    assert list(finding.evidence["settings"]) == [name]
    assert finding.evidence["settings"][name]["this"] == value
    assert str(value) in finding.message
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
    finding = finding_of(results["other"], "confounded")
    assert finding.evidence["settings"]["judge"]["this"] == WEIGHTED
    assert [kinds(results[f"run{n}"]) for n in range(2)] == [[], []]


def test_runs_on_other_prompts_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "a", rows_of(1))
    write(tmp_path / "b", rows_of(2, annotator=WEIGHTED, instructions="Say something of"))
    assert [kinds(r) for r in audit(tmp_path)] == [[], []]


def test_a_temperature_that_a_readme_states_for_each_run_is_compared(tmp_path: Path) -> None:
    for name in ("base", "one", "two"):
        write(tmp_path / name, rows_of(ord(name[0])))
    table = "| run | temperature | top p |\n|---|---|---|\n| base | 0.1 | 1 |\n"
    (tmp_path / "README.md").write_text(table + "| one | 0.7 | 1 |\n| two | 0.7 | 1 |\n")
    results = {Path(r.path).name: r for r in audit(tmp_path)}
    finding = finding_of(results["base"], "confounded")
    assert list(finding.evidence["settings"]) == ["temperature"]
    assert [kinds(results[name]) for name in ("one", "two")] == [[], []]


def test_a_setting_that_no_number_holds_is_compared_all_the_same(tmp_path: Path) -> None:
    for name in "ab":
        configure(write(tmp_path / name, rows_of(ord(name))))
        config = {"temperature": 10**400 if name == "a" else 1}
        (tmp_path / name / "configs.yaml").unlink()
        (tmp_path / name / "generation_config.json").write_text(json.dumps(config))
    assert len(audit(tmp_path)) == 2


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
    outputs = [
        {"instruction": f"i {k}", "output": f"It is {k}.", "generator": "m"} for k in range(30)
    ]
    (tmp_path / "c" / "model_outputs.json").write_text(json.dumps(outputs))
    results = audit(tmp_path)
    assert [(r.kind, kinds(r)) for r in results] == [
        ("alpaca_eval", []), ("alpagasus", []), ("model_outputs", []),
    ]  # fmt: skip
