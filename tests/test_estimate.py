"""What is expected of a stage before it runs: rough, but of the right order and never invented."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from harness.estimate import Estimate, of_stage, text_lengths
from harness.keys import Files
from harness.spec.recipes import Gen

FILES = Files(None, None)
TEXT = {"path": "p.txt", "text": "x" * 400}
"""A template of 100 tokens."""


@pytest.fixture
def seeds(tmp_path: Path) -> str:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps({"instruction": f"Say {i}."}) + "\n" for i in range(20)))
    return str(path)


def expected(step: dict[str, Any], given: int = 0) -> Estimate:
    gen = TypeAdapter(Gen).validate_python(step)
    return of_stage("gen", {"gen": gen}, FILES, Estimate(examples=given))


def test_self_instruct_asks_once_for_the_kind_and_once_for_the_instances_of_each_instruction(
    seeds: str,
) -> None:
    text = {**TEXT, "text": "{examples} {next} {instruction}"}
    step = {
        "recipe": "self_instruct",
        "teacher": {"model": "m"},
        "seeds": seeds,
        "instructions": {"count": 100, "prompt": text},
        "classification": {"prompt": text},
        "instances": {"output_first": text, "input_first": text},
    }
    found = expected(step)
    assert found.calls == 25 + 100 + 100
    assert found.examples == 120


def test_the_naive_method_asks_for_tasks_then_once_for_each_given_and_each_new_task(
    seeds: str,
) -> None:
    step = {
        "recipe": "naive", "teacher": {"model": "m"}, "seeds": seeds,
        "tasks_prompt": TEXT, "given_prompt": TEXT, "new_prompt": TEXT,
    }  # fmt: skip
    found = expected(step)
    assert found.calls == 2 + 20 + 20
    assert found.examples == 20 * 3 + 20 * 5
    assert expected({**step, "growth": 0}).calls == 20


@pytest.mark.parametrize("recipe", ["rate", "expand"])
def test_a_step_on_a_data_set_calls_once_for_each_example_of_the_step_before(recipe: str) -> None:
    text = {**TEXT, "text": "{instruction} {instr} {output}"}
    step: dict[str, Any] = {"recipe": recipe, "prompt": text}
    if recipe == "rate":
        step["judge"] = {"model": "m"}
    else:
        step["teacher"] = {"model": "m"}
        step["example"] = {"name": "n", "instruction": "i", "output": "o", "expanded": "e"}
    found = expected(step, given=1234)
    assert (found.calls, found.examples) == (1234, 1234)
    assert found.prompt_tokens > 0 < found.completion_tokens


def test_recorded_calls_that_stand_for_the_teacher_are_no_calls() -> None:
    step = {"recipe": "rate", "judge": {"model": "m"}, "transcript": "t.jsonl",
            "prompt": {**TEXT, "text": "{instruction} {output}"}}  # fmt: skip
    assert expected(step, given=12) == Estimate(examples=12)


def test_steps_that_call_no_model_pass_on_how_many_examples_there_will_be(seeds: str) -> None:
    assert expected({"recipe": "import", "file": seeds}) == Estimate(examples=20)
    assert expected({"recipe": "import", "file": seeds, "sample": {"k": 5}}).examples == 5
    assert expected({"recipe": "random_k", "k": 7}, given=20) == Estimate(examples=7)
    assert expected({"recipe": "select"}, given=20) == Estimate(examples=20)
    assert expected({"recipe": "seeds_only", "seeds": seeds}).examples == 20


def test_a_file_that_cannot_be_counted_is_estimated_at_nothing(tmp_path: Path) -> None:
    for name, content in {"a.json": "[1", "b.parquet": "PAR1", "c.json": "[1, 2]"}.items():
        (tmp_path / name).write_text(content)
        assert text_lengths(tmp_path / name) == []
    assert text_lengths(tmp_path / "absent") == []
