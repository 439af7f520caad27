"""Outputs that stand beside their prompts, in a column of one of several models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.answer.answer import Answer
from harness.answer.outputs import given_outputs, given_records
from harness.answer.prompts import read_prompts
from harness.artefact.keys import Files, key_view
from harness.errors import InputError
from harness.judge.kinds.grading import GradingJudge
from harness.judge.pairs import check_baselines
from harness.spec.prompts import OutputFiles, PromptSet

SETS = {
    "koala": [{"question_id": "koala_1", "prompt": "Name a river."}],
    "sinstruct": [
        {"question_id": f"s_{n}", "instruction": "Add.", "instances": [{"input": f"{n} 1"}]}
        for n in (1, 2)
    ],
    "vicuna": [{"question_id": "vicuna_1", "text": "Why?"}],
}
"""In the layouts that AlpaGasus2-QLoRA published its answers in."""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    for name, rows in SETS.items():
        answered = [
            {**row, "alpagasus2": f"A {row['question_id']}", "alpaca2": f"B {row['question_id']}"}
            for row in rows
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(answered, indent=4))
    return {name: str(tmp_path / f"{name}.json") for name in SETS}


def test_each_prompt_has_the_named_models_output_whatever_the_files_layout(
    files: dict[str, str],
) -> None:
    prompts = read_prompts(PromptSet.model_validate({"files": files}), None)
    for column, letter in (("alpaca2", "B"), ("alpagasus2", "A")):
        given = OutputFiles.model_validate({"files": files, "output": column})
        outputs = [output.output for output in given_outputs(given, prompts)]
        assert outputs == [f"{letter} {i}" for i in ("koala_1", "s_1", "s_2", "vicuna_1")]
        assert {r.fields["generator"] for r in given_records(given)[1]} == {column}
        check_baselines(given, prompts)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda given: given | {"output": "other"}, "has no column 'other'"),
        (
            lambda given: given | {"files": {"koala": given["files"]["koala"]}},
            "3 of the 4 prompts have no baseline output|prompts have no baseline output",
        ),
    ],
)
def test_a_column_or_a_prompt_that_is_not_there_is_one_sentence(
    files: dict[str, str], change: Callable[[Any], Any], fault: str
) -> None:
    prompts = read_prompts(PromptSet.model_validate({"files": files}), None)
    given = OutputFiles.model_validate(change({"files": files, "output": "alpaca2"}))
    with pytest.raises(InputError, match=fault):
        check_baselines(given, prompts)


@pytest.mark.parametrize("missing", [{}, {"alpaca2": None}])
def test_a_missing_output_of_one_of_several_files_is_told_with_file_and_line_and_is_not_empty(
    files: dict[str, str], missing: dict[str, None]
) -> None:
    prompts = read_prompts(PromptSet.model_validate({"files": files}), None)
    path = Path(files["sinstruct"])
    rows = json.loads(path.read_text())
    del rows[1]["alpaca2"]
    path.write_text(
        "[\n" + ",\n".join(json.dumps(row) for row in (rows[0], rows[1] | missing)) + "]"
    )
    given = OutputFiles.model_validate({"files": files, "output": "alpaca2"})
    for read in (check_baselines, given_outputs):
        with pytest.raises(InputError) as error:
            read(given, prompts)
        assert error.value.message == f"{path}:3: no output in `alpaca2`"
        assert "leave it out" in error.value.hint


def test_a_prompt_without_a_baseline_output_is_named_with_its_file_and_line(
    files: dict[str, str],
) -> None:
    prompts = read_prompts(PromptSet.model_validate({"files": files}), None)
    koala = OutputFiles.model_validate({"files": {"koala": files["koala"]}, "output": "alpaca2"})
    with pytest.raises(InputError, match=rf"for example 'Add.' \({files['sinstruct']}:2\)\n"):
        check_baselines(koala, prompts)


def test_both_a_reference_and_an_engine_take_them_and_the_column_is_in_the_key(
    files: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "system.txt").write_text("Grade.")
    (tmp_path / "prompt.txt").write_text("{question}{answer_1}{answer_2}")
    given = {"files": files, "output": "alpaca2"}
    engine = Answer.model_validate(
        {"prompts": {"files": files}, "engine": {"kind": "reference", "outputs": given}}
    ).engine
    judge = GradingJudge.model_validate(
        {
            "system": {"path": "s", "text": "Grade."},
            "prompt": {"path": "p", "text": "{question}{answer_1}{answer_2}"},
            "judge": {"model": "m", "simulated": {}},
            # An extended file may name a row; it goes with null.
            "reference": {**given, "spec": None},
        }
    )
    assert engine.given_outputs == judge.baseline_file == OutputFiles.model_validate(given)
    views = [
        key_view(OutputFiles.model_validate({**given, "output": column}), Files(None, None))
        for column in ("alpaca2", "alpagasus2")
    ]
    assert views[0]["files"] == views[1]["files"]
    assert views[0] != views[1]
