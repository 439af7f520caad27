"""Faults of an evaluation that are told before a row's first stage runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import preflight
from harness.errors import InputError
from harness.keys import Files
from harness.spec.judges import PRESETS
from tests.helpers import evaluation, planned, write_row

MISSING = "prompts have no baseline output"


def checked(folder: Path, **judge: Any) -> None:
    """Look at a row whose judge has these settings in place of the usual ones."""
    row(folder, **judge)
    (plan,) = planned(folder / "runs", folder / "one.yaml")
    preflight.check(plan, Files(None, None))


def row(folder: Path, prompts: Any = None, **judge: Any) -> Path:
    parts = evaluation(folder)
    if judge:
        parts["judge"] = judge
    if prompts is not None:
        lines = [json.dumps(prompt) + "\n" for prompt in prompts]
        (folder / "asked.jsonl").write_text("".join(lines))
        parts["answer"]["prompts"] = {"file": "asked.jsonl"}
    return write_row(folder, eval=parts)


ASKED = {"judge": {"model": "judge"}, "reference": "prompts.jsonl"}


def test_a_sound_row_is_let_through(tmp_path: Path) -> None:
    checked(tmp_path)
    checked(tmp_path, kind="alpaca_eval", annotator="chatgpt", **ASKED)


def test_a_baseline_that_lacks_prompts_is_told(tmp_path: Path) -> None:
    prompts = [{"instruction": "Say no."}, {"instruction": "Say yes."}]
    row(tmp_path, prompts)
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    with pytest.raises(InputError, match=f"row one: 1 of 2 {MISSING}") as error:
        preflight.check(plan, Files(None, None))
    assert "letter by letter" in error.value.hint


def test_prompts_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    row(tmp_path, [{"what": "is this"}])
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    with pytest.raises(InputError, match="instruction"):
        preflight.check(plan, Files(None, None))


def test_earlier_turns_that_the_template_has_no_place_for_are_told(tmp_path: Path) -> None:
    turns = [("user", "Hi."), ("assistant", "Hello."), ("user", "Bye.")]
    row(tmp_path, [{"messages": [{"role": role, "content": text} for role, text in turns]}])
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    with pytest.raises(InputError, match="has no earlier turns"):
        preflight.check(plan, Files(None, None))


def test_an_annotator_that_the_package_lacks_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no annotator 'chatgtp'") as error:
        checked(tmp_path, kind="alpaca_eval", annotator="chatgtp", **ASKED)
    assert "chatgpt" in error.value.hint


def test_length_control_off_alpaca_evals_instructions_is_told(tmp_path: Path) -> None:
    control = {"folder": str(tmp_path)}
    with pytest.raises(InputError, match="defined for AlpacaEval's own 805 instructions"):
        checked(tmp_path, kind="alpaca_eval", length_control=control, **ASKED)


def test_a_rubric_that_shows_what_no_prompt_has_is_told(tmp_path: Path) -> None:
    engine = {"kind": "endpoint", "endpoint": {"model": "judge"}}
    with pytest.raises(InputError, match="shows the judge the context"):
        checked(tmp_path, kind="flow_judge", rubric="response_faithfulness_5point", engine=engine)


def test_given_outputs_that_lack_prompts_are_told(tmp_path: Path) -> None:
    parts = evaluation(tmp_path)
    (tmp_path / "given.json").write_text(json.dumps([{"instruction": "Other.", "output": "x"}]))
    parts["answer"]["engine"] = {"kind": "reference", "outputs": "given.json"}
    write_row(tmp_path, eval=parts)
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    with pytest.raises(InputError, match="lacks outputs for 1 of 1 prompts"):
        preflight.check(plan, Files(None, None))


def test_what_is_finished_is_not_looked_at(tmp_path: Path) -> None:
    row(tmp_path, [{"instruction": "Say yes."}])
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    for stage in plan.stages:
        stage.status = "reuse"
    preflight.check(plan, Files(None, None))


def test_the_packages_rubrics_are_known_with_their_scales_and_inputs() -> None:
    from harness.eval.rubrics import load_rubric
    from harness.spec.judges import RubricJudge

    engine = {"kind": "endpoint", "endpoint": {"model": "judge"}}
    for name, scale in PRESETS.items():
        ours = preflight._rubric(RubricJudge(rubric=name, engine=engine))
        theirs = load_rubric(name)
        assert ours.inputs == theirs.inputs
        scores = [line.score for line in theirs.scores]
        assert (min(scores), max(scores)) == scale


def test_a_rubric_that_the_package_lacks_is_refused_in_the_spec(tmp_path: Path) -> None:
    from harness.spec.load import SpecFaults, load_rows

    path = row(tmp_path, kind="flow_judge", rubric="response_faithfullness_5point")
    tree = yaml.safe_load(path.read_text())
    tree["eval"]["judge"]["engine"] = {"kind": "endpoint", "endpoint": {"model": "judge"}}
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(SpecFaults, match="did you mean response_faithfulness_5point"):
        load_rows([path])
