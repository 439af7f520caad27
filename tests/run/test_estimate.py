"""What is expected of a stage before it runs: rough, but of the right order and never invented."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from harness.answer.answer import Answer
from harness.artefact.keys import Files
from harness.gen.recipes.union import Gen
from harness.llm.estimate import ON_HUB, Estimate, text_lengths
from harness.run.estimate import of_stage

FILES = Files(None, None)
TEXT = {"path": "p.txt", "text": "x" * 400}
"""A template of 100 tokens."""


@pytest.fixture
def seeds(tmp_path: Path) -> str:
    path = tmp_path / "seeds.jsonl"
    path.write_text(
        "".join(json.dumps({"instruction": f"Say {i}.", "output": "x"}) + "\n" for i in range(20))
    )
    return str(path)


def expected(step: dict[str, Any], given: int | None = 0) -> Estimate:
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


def test_records_are_counted_by_newlines_alone_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes('\ufeff{"instruction": "a\u2028b"}\n{"instruction": "c\x85d"}\n'.encode())
    assert text_lengths(path) == [3, 3]
    (tmp_path / "prompts.csv").write_text("instruction,input\nab,cd\n")
    assert text_lengths(tmp_path / "prompts.csv") == [4]


def test_rows_that_an_import_will_drop_are_no_examples_of_the_next_step(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "q", "output": "a"}\n{"instruction": "q", "output": ""}\n')
    assert expected({"recipe": "import", "file": str(path)}).examples == 1


def test_a_file_that_cannot_be_counted_is_estimated_at_nothing(tmp_path: Path) -> None:
    for name, content in {"a.json": "[1", "b.parquet": "PAR1", "c.json": "[1, 2]"}.items():
        (tmp_path / name).write_text(content)
        assert text_lengths(tmp_path / name) == []
    assert text_lengths(tmp_path / "absent") == []


HUB = {"id": "owner/set", "revision": "a" * 40}


def test_how_many_examples_a_hub_set_has_is_not_known_and_not_none(seeds: str) -> None:
    found = expected({"recipe": "import", "hub": HUB})
    assert (found.examples, found.unknown) == (None, ON_HUB)
    assert expected({"recipe": "import", "hub": HUB, "sample": {"k": 5}}) == Estimate(examples=5)
    step = TypeAdapter(Gen).validate_python(
        {"recipe": "rate", "judge": {"model": "m"},
         "prompt": {**TEXT, "text": "{instruction} {output}"}}
    )  # fmt: skip
    rated = of_stage("gen", {"gen": step}, FILES, found)
    assert (rated.calls, rated.examples, rated.unknown) == (0, None, ON_HUB)
    select = TypeAdapter(Gen).validate_python({"recipe": "select"})
    assert of_stage("gen", {"gen": select}, FILES, rated).examples is None
    pick = TypeAdapter(Gen).validate_python({"recipe": "random_k", "k": 7})
    assert of_stage("gen", {"gen": pick}, FILES, rated) == Estimate(examples=7)
    total = Estimate(calls=3) + rated + Estimate(calls=4)
    assert (total.calls, total.unknown) == (7, ON_HUB)


def test_a_file_that_cannot_be_counted_is_imported_at_a_number_not_known(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("PAR1")
    found = expected({"recipe": "import", "file": str(tmp_path / "a.parquet")})
    assert found.examples is None
    assert found.unknown


@pytest.mark.parametrize(
    ("part", "calls"), [({}, None), ({"first": 9}, 9), ({"sample": {"k": 8}}, 8)]
)
def test_of_prompts_on_the_hub_only_a_stated_number_is_counted(
    part: dict[str, Any], calls: int | None
) -> None:
    answer = Answer.model_validate(
        {
            "prompts": {"hub": HUB, **part},
            "engine": {"kind": "endpoint", "endpoint": {"model": "m"}},
        }
    )
    found = of_stage("answer", {"answer": answer}, FILES)
    assert (found.calls, found.unknown) == ((0, ON_HUB) if calls is None else (calls, ""))
