"""Rows, outputs and leaderboard lines held against the names of the folder that they lie in."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.audit import Result
from tests.audit.folders import (
    CHATGPT,
    WEIGHTED,
    Row,
    audit,
    finding_of,
    kinds,
    only_result,
    rows_of,
    write,
    write_board,
)

FN, COT = "alpaca_eval_gpt4_turbo_fn", "alpaca_eval_cot_gpt4_turbo_fn"


def ranked(row: Row, names: tuple[str, str] = ("m", "M")) -> list[Row]:
    """The models in the order of their ranks, as the row's reply of Output (a) or (b) has them."""
    first, second = names if row["raw_completion"] == "Output (a)" else names[::-1]
    return [{"model": first, "rank": 1}, {"model": second, "rank": 2}]


def call(row: Row) -> Row:
    return {
        "name": "make_partial_leaderboard",
        "arguments": json.dumps({"ordered_models": ranked(row)}),
    }


OBJECTS = {
    "the arguments": (FN, lambda row: {"ordered_models": ranked(row)}),
    "with an explanation": (
        COT, lambda row: {"concise_explanation": "x", "ordered_models": ranked(row)},
    ),
    "other names": (
        "alpaca_eval_gpt4_fn", lambda row: {"ordered_models": ranked(row, ("model_1", "model_2"))},
    ),
    "arguments as text": (FN, lambda row: json.dumps({"ordered_models": ranked(row)})),
    "a function's call": (FN, lambda row: {"function_call": call(row)}),
    "a tool's call": (FN, lambda row: {"message": {"tool_calls": [{"function": call(row)}]}}),
    "a message": ("chatgpt", lambda row: {"message": {"content": row["raw_completion"]}}),
    "a completion": ("claude", lambda row: {"text": row["raw_completion"]}),
    "a list": ("alpaca_eval_gpt4", lambda row: ranked(row, ("model_1", "model_2"))),
    "an output's name": ("chatgpt_fn", lambda row: {"best_output": row["raw_completion"]}),
    "a judge of one's own": ("my_judge_fn", lambda row: {"ordered_models": ranked(row)}),
}  # fmt: skip


@pytest.mark.parametrize("form", OBJECTS)
def test_replies_that_are_stored_as_objects_are_read(tmp_path: Path, form: str) -> None:
    judge, make = OBJECTS[form]

    def store(rows: list[Row]) -> None:
        for row in rows:
            row |= {"annotator": judge, "raw_completion": make(row)}

    result = only_result(write(tmp_path / "a", rows_of(n=120), store))
    assert [(f.kind, f.message) for f in result.findings] == []

    def swap(rows: list[Row]) -> None:
        store(rows)
        for row in rows[:15]:
            row["preference"] = 3 - row["preference"]

    # What can be read can be held against what is stored.
    swapped = only_result(write(tmp_path / "b", rows_of(n=120), swap))
    assert finding_of(swapped, "count_mismatch").evidence["rows"] == 15


def test_objects_that_name_no_winner_are_unread(tmp_path: Path) -> None:
    def store(rows: list[Row]) -> None:
        for number, row in enumerate(rows):
            ranks = ranked(row) if number >= 20 else [{"model": "m", "rank": 3}]
            row |= {"annotator": FN, "raw_completion": {"ordered_models": ranks}}

    finding = finding_of(only_result(write(tmp_path, rows_of(), store)), "unparsed_scored")
    assert finding.evidence["rows"] == 20


def judged(folder: Path, rows: list[Row], outputs: list[Row] | None = None, **board: Any) -> Path:
    """MODEL/ANNOTATOR/annotations.json with MODEL/model_outputs.json."""
    write(folder, rows, outputs=outputs is not None, stored=outputs, board=board)
    if outputs is not None:
        (folder / "model_outputs.json").rename(folder.parent / "model_outputs.json")
    return folder


def of(path: Path) -> Result:
    """The result of annotations, whatever else stands beside it."""
    (result,) = [r for r in audit(path) if r.kind == "alpaca_eval"]
    return result


def test_rows_under_another_judges_name_are_told(tmp_path: Path) -> None:
    rows = rows_of(annotator=WEIGHTED)
    result = only_result(judged(tmp_path / "model" / FN, rows, rows))
    finding = finding_of(result, "count_mismatch")
    assert (finding.severity, kinds(result)) == ("error", ["count_mismatch"])
    assert finding.evidence == {"folder": FN, "annotator": WEIGHTED, "rows": 200}


def test_a_folder_named_for_a_judge_of_ones_own_is_held_to_it(tmp_path: Path) -> None:
    for folder, judge in (("ours_v1", "ours_v1"), ("ours_v2", "ours_v1")):
        rows = [row | {"annotator": judge} for row in rows_of(len(folder))]
        rows[0]["annotator"] = folder
        judged(tmp_path / "model" / folder, rows)
    kinds_by_path = {r.path: kinds(r) for r in audit(tmp_path)}
    assert [
        path for path, result_kinds in kinds_by_path.items() if "count_mismatch" in result_kinds
    ]
    assert all(
        "ours_v2" in path
        for path, result_kinds in kinds_by_path.items()
        if "count_mismatch" in result_kinds
    )


def test_a_judge_named_by_its_configurations_path_is_the_folders(tmp_path: Path) -> None:
    name = f"/somewhere/evaluators_configs/{WEIGHTED}/configs.yaml"
    rows = [row | {"annotator": name} for row in rows_of(annotator=WEIGHTED)]
    assert only_result(judged(tmp_path / "model" / WEIGHTED, rows)).findings == []


def test_replies_in_another_judges_form_are_told(tmp_path: Path) -> None:
    def rename(rows: list[Row]) -> None:
        for row in rows:
            row["annotator"] = "alpaca_eval_gpt4"

    finding = finding_of(only_result(write(tmp_path, rows_of(), rename)), "count_mismatch")
    assert finding.evidence == {"annotator": "alpaca_eval_gpt4", "replies_like": "chatgpt"}


def test_judgements_beside_another_models_outputs_are_told(tmp_path: Path) -> None:
    rows, outputs = rows_of(model="large"), rows_of(model="small")
    judged(tmp_path / "a" / "small" / "chatgpt", rows, outputs)
    finding = finding_of(only_result(tmp_path / "a"), "count_mismatch")
    assert finding.evidence["other_outputs"] == 200
    assert (
        "the rows are of large; model_outputs.json and the folder are of small" in finding.message
    )
    assert finding.message.endswith(": the rows disagree")
    judged(tmp_path / "b" / "large" / "chatgpt", rows, outputs)
    assert finding_of(only_result(tmp_path / "b"), "count_mismatch").message.endswith(
        ": model_outputs.json disagrees"
    )


def test_a_folder_of_another_name_with_its_own_outputs_is_clean(tmp_path: Path) -> None:
    rows = rows_of(model="runs/lr5e-5_final")
    folder = judged(tmp_path / "my-model" / "chatgpt", rows, rows)
    figures = only_result(folder).published
    (folder / "leaderboard.csv").unlink()
    boards = {"my-model": {"win_rate": figures["win_rate"]}, "another": {"win_rate": 1.0}}
    write_board(tmp_path / "chatgpt_leaderboard.csv", boards)
    result = of(tmp_path)
    assert (result.findings, result.matches) == ([], True)
    (note,) = [note for note in result.notes if "disagree" in note]
    assert "the leaderboard's line and the folder are of my-model" in note


def test_runs_of_one_model_under_names_of_their_own_are_clean(tmp_path: Path) -> None:
    lines = {}
    for seed, name in enumerate(("run-1", "run-2")):
        folder = write(tmp_path / name, rows_of(seed), outputs=False)
        lines[name] = {"win_rate": only_result(folder).metrics["win_rate"]}
        (folder / "leaderboard.csv").unlink()
    write_board(tmp_path / "chatgpt_leaderboard.csv", lines)
    assert [r.findings for r in audit(tmp_path)] == [[], []]


def test_rows_of_another_known_model_are_told_without_outputs(tmp_path: Path) -> None:
    figures = {}
    for seed, name in enumerate(("small", "large")):
        folder = judged(tmp_path / name / "chatgpt", rows_of(seed, model=name))
        figures[name] = {"win_rate": only_result(folder).metrics["win_rate"]}
        (folder / "leaderboard.csv").unlink()
    write_board(tmp_path / "chatgpt_leaderboard.csv", figures)
    assert [r.findings for r in audit(tmp_path)] == [[], []]
    judged(tmp_path / "small" / "chatgpt", rows_of(7, model="large"))
    (tmp_path / "small" / "chatgpt" / "leaderboard.csv").unlink()
    result = next(r for r in audit(tmp_path) if "small" in r.path)
    # What is published under the folder's name is another number, too.
    assert result.matches is False
    assert any(f.message.endswith("are of small: the rows disagree") for f in result.findings)


def test_a_line_that_is_another_models_is_told(tmp_path: Path) -> None:
    for seed, name in enumerate(("small", "large")):
        rows = rows_of(seed, model=name)
        judged(tmp_path / name / "chatgpt", rows, rows)
    board = tmp_path / "small" / "chatgpt" / "leaderboard.csv"
    board.write_text(board.read_text().replace("small", "large"))
    results = {Path(r.path).parent.name: r for r in audit(tmp_path)}
    assert results["large"].findings == []
    finding = finding_of(results["small"], "count_mismatch")
    assert "the leaderboard's line is of large" in finding.message
    assert finding.message.endswith(": the leaderboard's line disagrees")


def test_a_lines_longer_name_is_no_fault(tmp_path: Path) -> None:
    rows = rows_of()
    folder = judged(tmp_path / "model" / "chatgpt", rows, rows)
    board = folder / "leaderboard.csv"
    board.write_text(board.read_text().replace("model", "Our Model 7B (best)"))
    assert only_result(tmp_path).findings == []


def test_the_baselines_outputs_beside_judgements_are_no_other_models(tmp_path: Path) -> None:
    rows = rows_of()
    folder = judged(tmp_path / "model" / "chatgpt", rows)
    baseline_outputs = [
        {"instruction": r["instruction"], "output": r["output_1"], "generator": "reference"}
        for r in rows
    ]
    (folder.parent / "model_outputs.json").write_text(json.dumps(baseline_outputs))
    assert only_result(tmp_path).findings == []


def test_rows_of_another_model_than_the_folders_are_told_without_outputs(tmp_path: Path) -> None:
    rows = rows_of(model="large-40b")
    write(tmp_path / "model-7b" / CHATGPT, rows, outputs=False)
    (tmp_path / "model-7b" / CHATGPT / "leaderboard.csv").unlink()
    result = only_result(tmp_path)
    assert result.findings == []
    assert "these are of large-40b, and the folder is called model-7b" in result.notes
    (tmp_path / "model-7b").rename(tmp_path / "my-large-40B")
    assert not any("the folder is called" in note for note in only_result(tmp_path).notes)


def test_outputs_of_another_model_than_the_folders_or_of_two_are_told(tmp_path: Path) -> None:
    rows = [
        {"instruction": str(n), "output": f"It is {n}.", "generator": "large-40b"} for n in range(9)
    ]
    path = tmp_path / "model-7b" / "model_outputs.json"
    path.parent.mkdir()
    path.write_text(json.dumps(rows))
    assert (
        "these are of large-40b, and the folder is called model-7b" in only_result(tmp_path).notes
    )
    more = [row | {"generator": "model-7b", "output": "Yes."} for row in rows[:4]]
    path.write_text(json.dumps(rows + more))
    assert "the outputs are of 2 models: large-40b (9), model-7b (4)" in only_result(tmp_path).notes
