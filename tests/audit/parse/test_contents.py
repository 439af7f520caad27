"""Files are known by what is in them, whatever they are called, in a folder and by themselves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit_paths
from harness.audit.parse.contents import MOST_ROWS
from harness.errors import InputError
from tests.audit.folders import audit, finding_of, kinds, only_result, rows_of, write
from tests.audit.readers.test_lm_eval import write_run
from tests.audit.trainers import write_training


def annotations(folder: Path) -> Path:
    write(folder, rows_of(n=60), outputs=False)
    (folder / "leaderboard.csv").unlink()
    return folder / "annotations.json"


def outputs(folder: Path) -> Path:
    write(folder, rows_of(n=60))
    for name in ("annotations.json", "leaderboard.csv"):
        (folder / name).unlink()
    return folder / "model_outputs.json"


def new_results(folder: Path) -> Path:
    return write_run(folder, {"arc_challenge": 1172}, samples=False)


def old_results(folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "results.json"
    scores = {"acc": 0.5, "acc_stderr": 0.014608, "acc_norm": 0.25, "acc_norm_stderr": 0.0126541}
    value = {"results": {"arc_challenge": scores}, "versions": {"arc_challenge": 0},
             "config": {"model": "hf-causal", "num_fewshot": 25, "limit": None}}  # fmt: skip
    path.write_text(json.dumps(value))
    return path


def state(folder: Path) -> Path:
    write_training(folder, 400)
    return folder / "trainer_state.json"


def log(folder: Path) -> Path:
    write_training(folder, 400, tool="llama_factory")
    for path in folder.iterdir():
        if path.name != "trainer_log.jsonl":
            path.unlink()
    return folder / "trainer_log.jsonl"


def history(folder: Path) -> Path:
    path = state(folder)
    path.write_text(json.dumps(json.loads(path.read_text())["log_history"]))
    return path


MADE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "annotations": (annotations, "alpaca_eval"),
    "outputs": (outputs, "model_outputs"),
    "lm-eval 0.4": (new_results, "lm_eval"),
    "lm-eval 0.3": (old_results, "lm_eval"),
    "a trainer's state": (state, "training"),
    "a trainer's log": (log, "training"),
    "a trainer's history": (history, "training"),
}


@pytest.mark.parametrize("what", MADE)
@pytest.mark.parametrize("name", ["mine-3b.json", "run_7.jsonl", "alpaca.txt", "scores.log"])
@pytest.mark.parametrize("path_kind", ["folder", "file"])
def test_a_file_of_any_name_is_read_as_what_it_holds(
    tmp_path: Path, what: str, name: str, path_kind: str
) -> None:
    make, kind = MADE[what]
    usual = make(tmp_path / "usual" / "evals")
    expected = None if what == "a trainer's history" else only_result(usual.parent)
    path = tmp_path / "evals" / name
    path.parent.mkdir()
    shutil.copy(usual, path)
    result = only_result(path if path_kind == "file" else tmp_path / "evals")
    assert (result.kind, result.path, result.findings) == (kind, str(path), [])
    if expected is not None:
        assert (result.metrics, result.published) == (expected.metrics, expected.published)
    assert result.metrics


def test_rows_one_a_line_are_read_as_a_list_is(tmp_path: Path) -> None:
    for make in (annotations, outputs):
        path = make(tmp_path / make.__name__)
        expected = only_result(path.parent).metrics
        rows = json.loads(path.read_text())
        path.unlink()
        lines = path.with_name("mine.jsonl")
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert only_result(lines).metrics == expected


def test_faults_are_found_in_files_of_any_name(tmp_path: Path) -> None:
    path = outputs(tmp_path / "outputs")
    rows = [r | {"output": f"assistant\n{r['output']}"} for r in json.loads(path.read_text())]
    path.unlink()
    path.with_name("alpaca_eval_mine.json").write_text(json.dumps(rows))
    assert finding_of(only_result(tmp_path), "prompt_mismatch").evidence["role_word"] == 60


def test_outputs_of_any_name_are_those_that_were_judged(tmp_path: Path) -> None:
    folder = write(tmp_path, rows_of())
    (folder / "model_outputs.json").rename(folder / "seed1.json")
    rows = rows_of()
    again = [
        {"instruction": r["instruction"], "output": "Another.", "generator": "model"} for r in rows
    ]
    (folder / "seed0.json").write_text(json.dumps(again))
    baseline_outputs = [
        {"instruction": r["instruction"], "output": r["output_1"], "generator": r["generator_1"]}
        for r in rows
    ]
    (folder / "baseline.json").write_text(json.dumps(baseline_outputs))
    result = next(r for r in audit(tmp_path) if r.kind == "alpaca_eval")
    assert (result.findings, result.matches) == ([], True)
    assert not any(r.path.endswith(("baseline.json", "seed1.json")) for r in audit(tmp_path))


def test_outputs_whose_later_rows_are_no_objects_are_skipped_alone(tmp_path: Path) -> None:
    write(tmp_path / "run", rows_of(n=60))
    path = outputs(tmp_path / "mine")
    rows = json.loads(path.read_text())
    path.unlink()
    path.with_name("mine.json").write_text(json.dumps(rows * (MOST_ROWS // len(rows) + 1) + [7]))
    results = audit(tmp_path)
    assert [(Path(r.path).name, r.matches) for r in results if r.kind == "alpaca_eval"] == [
        ("run", True)
    ]


def test_several_files_of_a_kind_in_one_folder_are_results_of_their_own(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        rows = rows_of(seed, model=name)
        outputs = [
            {"instruction": r["instruction"], "output": r["output_2"], "generator": name}
            for r in rows
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(outputs))
        write_training(tmp_path / "x", 400 + 800 * seed)
        (tmp_path / "x" / "trainer_state.json").rename(tmp_path / f"state_{name}.json")
        shutil.copy(new_results(tmp_path / "y" / name), tmp_path / f"eval_{name}.json")
    shutil.rmtree(tmp_path / "x")
    shutil.rmtree(tmp_path / "y")
    assert {(Path(r.path).name, r.kind) for r in audit(tmp_path)} == {
        ("a.json", "model_outputs"), ("b.json", "model_outputs"), ("state_a.json", "training"),
        ("state_b.json", "training"), ("eval_a.json", "lm_eval"), ("eval_b.json", "lm_eval"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"instruction": "a", "text": "b"}], "has instruction; alpaca_eval's"),
        ([{"instruction": "a", "preference": 1}], "alpaca_eval's annotations have generator_2 too"),
        ({"results": {"arc": 3}}, "has results; lm-eval's results have versions too"),
        ({"log_history": []}, "has log_history; a trainer's state have global_step too"),
        ([{"question_id": 1, "review": "9 8"}], "AlpaGasus's reviews"),
        ({"a": 1}, "its text file (near.json) has nothing of these"),
    ],
)
def test_the_message_for_nothing_names_the_nearest_miss(
    tmp_path: Path, value: Any, expected: str
) -> None:
    (tmp_path / "near.json").write_text(json.dumps(value))
    (tmp_path / "weights.bin").write_bytes(b"\0" * 9)
    for path in (tmp_path, tmp_path / "near.json"):
        with pytest.raises(InputError) as caught:
            audit_paths([path])
        assert expected in caught.value.message


def test_an_empty_folder_holds_nothing_that_comes_near(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0" * 9)
    with pytest.raises(InputError, match="holds no JSON, CSV, log or text file"):
        audit_paths([tmp_path])


def test_training_data_are_no_outputs_and_preferences_no_annotations(tmp_path: Path) -> None:
    folder = write(tmp_path, rows_of())
    data = [{"instruction": f"{n}", "input": "", "output": "x"} for n in range(50)]
    (folder / "train.json").write_text(json.dumps(data))
    pairs = [
        {"instruction": f"{n}", "output_1": "a", "output_2": "b", "preference": 2}
        for n in range(50)
    ]
    (folder / "preferences.json").write_text(json.dumps(pairs))
    assert [kinds(r) for r in audit(folder) if r.kind == "alpaca_eval"] == [[]]
    assert [r.kind for r in audit(folder)] == ["alpaca_eval"]


def test_a_file_with_every_key_and_no_use_is_not_called_what_it_is_not(tmp_path: Path) -> None:
    value = {"results": {"piqa": {"acc,none": "?"}}, "versions": {"piqa": 1}}
    (tmp_path / "results_x.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="and yet their values, or the file alone, make no result"):
        audit_paths([tmp_path])
