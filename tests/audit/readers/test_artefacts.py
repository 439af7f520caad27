"""This harness's own artefacts: recomputed from annotations, held against their manifests."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.artefact.keys import file_digest
from harness.judge.scores import describe, win_rate_metric
from tests.audit.folders import Row, audit, finding_of, kinds, only_result, rows_of, text

KEYS = {"answer": "a" * 64, "judge": "b" * 64}


def artefact(volume: Path, stage: str, contents: dict[str, Any], **manifest: Any) -> Path:
    folder = volume / "artefacts" / stage / KEYS[stage][:16]
    folder.mkdir(parents=True)
    for name, value in contents.items():
        (folder / name).write_text(json.dumps(value))
    files = {
        name: {"sha256": file_digest(folder / name), "size": (folder / name).stat().st_size}
        for name in contents
    }
    (folder / "manifest.json").write_text(json.dumps({
        "stage": stage, "key": KEYS[stage], "row": "r", "label": "", "files": files, "inputs": {},
        "metrics": {}, "counts": {}, "simulated": [], "findings": [], **manifest,
    }))  # fmt: skip
    return folder


def volume(folder: Path, rows: list[Row], cut: int = 0, **manifest: Any) -> Path:
    """Answers and their judging."""
    outputs = [
        {"instruction": r["instruction"], "output": r["output_2"], "generator": "model",
         "finish_reason": "length" if k < cut else "stop"}
        for k, r in enumerate(rows)
    ]  # fmt: skip
    artefact(folder, "answer", {"model_outputs.json": outputs}, counts={"prompts": len(rows)})
    metric = win_rate_metric(describe([r["preference"] for r in rows]), len(rows)).to_json()
    artefact(
        folder, "judge", {"annotations.json": rows},
        **{"metrics": {"win_rate": metric}, "counts": {"prompts": len(rows)},
           "inputs": {"outputs": {"stage": "answer", "key": KEYS["answer"]}}, **manifest},
    )  # fmt: skip
    return folder


def test_a_clean_volume_matches_and_has_no_finding(tmp_path: Path) -> None:
    result = only_result(volume(tmp_path, rows_of()))
    assert (result.kind, result.matches, result.findings) == ("artefact", True, [])
    assert result.digits["lower_bound"] == 15


def test_what_a_volume_has_not_finished_is_counted_and_not_read(tmp_path: Path) -> None:
    """A stage's work has the names of what it will be: the annotations of a judge, half of them."""
    volume(tmp_path, rows_of())
    for key in ("judge-1", "judge-2"):
        work = tmp_path / "work" / key
        work.mkdir(parents=True)
        (work / "annotations.json").write_text(json.dumps(rows_of()[:400]))
    result = only_result(tmp_path)
    assert (result.kind, result.matches, result.findings) == ("artefact", True, [])
    said = f"{tmp_path / 'work'} was passed by: 2 stages not finished, and so not sealed"
    assert result.notes[1:] == [said]
    (only_elsewhere,) = audit(tmp_path / "work" / "judge-1")
    assert only_elsewhere.kind == "alpaca_eval"


def test_one_artefacts_folder_is_read_with_the_answers_beside_it(tmp_path: Path) -> None:
    volume(tmp_path, rows_of(), cut=50)
    result = only_result(tmp_path / "artefacts" / "judge" / KEYS["judge"][:16])
    assert finding_of(result, "empty_or_truncated").evidence["truncated"] == 50


def test_a_win_rate_that_is_not_the_annotations_is_told(tmp_path: Path) -> None:
    metric = win_rate_metric(describe([r["preference"] for r in rows_of()]), 200).to_json()
    wrong = volume(tmp_path, rows_of(), metrics={"win_rate": metric | {"value": 77.0}})
    result = only_result(wrong)
    assert (kinds(result), result.matches) == (["count_mismatch"], False)


def test_a_changed_file_is_told(tmp_path: Path) -> None:
    volume(tmp_path, rows_of())
    path = tmp_path / "artefacts" / "judge" / KEYS["judge"][:16] / "annotations.json"
    path.write_text(path.read_text() + " ")
    assert (
        "changed after it was made" in finding_of(only_result(tmp_path), "count_mismatch").message
    )


def test_the_stages_own_findings_come_along(tmp_path: Path) -> None:
    findings = [
        {"kind": "role_words", "severity": "warning", "message": "they do", "evidence": {"n": 3}},
        {"kind": "missing_subjects", "severity": "warning", "message": "few", "evidence": {}},
    ]
    result = only_result(volume(tmp_path, rows_of(), findings=findings))
    assert finding_of(result, "prompt_mismatch").evidence == {"n": 3}
    assert any("missing_subjects" in note for note in result.notes)


def test_unjudged_prompts_are_dropped_rows(tmp_path: Path) -> None:
    rows = rows_of()
    for row in rows[:20]:
        row |= {"preference": None, "raw_completion": None}
    result = only_result(volume(tmp_path, rows))
    assert finding_of(result, "dropped_rows").evidence["dropped"] == 20
    assert result.matches is True


def test_gradings_in_both_orders_tell_the_place_by_their_scores(tmp_path: Path) -> None:
    rows = rows_of(annotator="judge")
    for k, row in enumerate(rows):
        win = k % 5 < 2
        row |= {"scores": [[9, 5], [9, 5]], "verdicts": [1, -1], "preference": 2.0 if win else 1.5}
    finding = finding_of(only_result(volume(tmp_path, rows)), "position_bias")
    assert finding.evidence["orders_opposed"] == 100


def test_scores_of_any_form_in_gradings_end_in_a_result(tmp_path: Path) -> None:
    rows = rows_of(n=30)
    for n, odd in enumerate(({"a": 1}, [{"a": 1}, {}], [[], []], 7, [[10**400, 1], [1, 2]])):
        graded = [r | {"scores": odd, "verdicts": [1, -1]} for r in rows]
        result = only_result(volume(tmp_path / str(n), graded))
        assert result.metrics["n_judged"] == 30


def test_answers_that_nothing_judged_are_a_result_of_their_own(tmp_path: Path) -> None:
    outputs = [
        {"instruction": f"i {k}", "output": f"assistant\nIt is {k}.", "finish_reason": "stop"}
        for k in range(40)
    ]
    artefact(tmp_path, "answer", {"model_outputs.json": outputs}, counts={"prompts": 41})
    result = only_result(tmp_path)
    assert kinds(result) == ["count_mismatch", "prompt_mismatch"]


def test_two_rows_of_one_volume_that_share_answers_are_no_fault(tmp_path: Path) -> None:
    volume(tmp_path / "one", rows_of())
    volume(tmp_path / "two", rows_of())
    assert [kinds(r) for r in audit(tmp_path)] == [[], []]


@pytest.mark.parametrize(
    "odd",
    [
        {"metrics": {"win_rate": None}}, {"metrics": {"win_rate": {"value": "high"}}},
        {"metrics": {"win_rate": {"expected": 10**400}}}, {"inputs": None}, {"inputs": {"outputs": 3}},
        {"findings": "none"}, {"findings": [3, {"kind": []}]}, {"files": {"annotations.json": {}}},
        {"files": {"annotations.json": 3}}, {"simulated": None}, {"label": None},
        {"metrics": {"win_rate": {"expected": -5, "judged": -5}}},
    ],
)  # fmt: skip
def test_a_manifest_of_any_content_ends_in_a_result(tmp_path: Path, odd: dict[str, Any]) -> None:
    for result in audit(volume(tmp_path, rows_of(n=30), **odd)):
        json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("record", [3, {}, None])
def test_files_of_the_wrong_type_are_told_in_a_sentence(tmp_path: Path, record: Any) -> None:
    path = volume(tmp_path, rows_of(n=30), files={"annotations.json": record})
    [note] = [n for result in audit(path) for n in result.notes if "could not be held" in n]
    assert note == (
        "its files could not be held against the manifest: what stands there under `files` is not a "
        "size and a sha256 for each"
    )


def test_a_manifest_of_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "app", "version": 3}')
    outputs = [{"instruction": "i", "output": text(__import__("random").Random(1), 9)}]
    (folder / "model_outputs.json").write_text(json.dumps(outputs))
    assert only_result(tmp_path).kind == "model_outputs"


def test_what_the_stage_has_found_too_is_told_once(tmp_path: Path) -> None:
    findings = [{"kind": "position_bias", "severity": "warning", "message": "x", "evidence": {}}]
    result = only_result(volume(tmp_path, rows_of(n=400, place=1.0), findings=findings))
    assert finding_of(result, "position_bias").evidence["shown_first"]["judged"] > 100


def test_a_prompt_that_the_set_has_twice_is_judged_twice_rightly(tmp_path: Path) -> None:
    """A greedy model answers it the same, and the judge may still grade it differently."""
    rows = rows_of()
    again = [dict(row) for row in rows[:25]]
    again[0]["preference"] = 3 - float(again[0]["preference"])
    again[0]["raw_completion"] = None
    result = only_result(volume(tmp_path / "a", rows + again))
    assert (result.matches, result.findings) == (True, [])
    # Also where the answers are on another volume, and the manifest's number alone says so.
    alone = volume(tmp_path / "b", rows + again)
    (alone / "artefacts" / "answer" / KEYS["answer"][:16]).rename(tmp_path / "elsewhere")
    assert only_result(alone / "artefacts" / "judge").findings == []


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (5, "5 prompts were judged more than once (5 judgements too many)"),
        (1, "1 prompt was judged more than once (1 judgement too many)"),
    ],
)
def test_a_prompt_judged_more_often_than_the_set_has_it_is_told(
    tmp_path: Path, count: int, told: str
) -> None:
    rows = rows_of()
    folder = volume(tmp_path, rows)
    path = folder / "artefacts" / "judge" / KEYS["judge"][:16] / "annotations.json"
    path.write_text(json.dumps(rows + rows[:count]))
    messages = [f.message for f in only_result(folder).findings]
    assert any(told in message for message in messages)
