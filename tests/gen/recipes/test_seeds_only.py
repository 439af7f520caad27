"""The control that is the seed tasks and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.artefact.call import StageCall
from harness.errors import InputError
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.seeds_only import SeedsGen
from tests.helpers import read_jsonl

SEEDS = [
    {
        "id": "a",
        "name": "river",
        "instruction": "Name a river.",
        "instances": [{"input": "Poland", "output": "Oder"}, {"input": "Egypt", "output": "Nile"}],
        "is_classification": False,
    },
    {"id": "b", "instruction": "Say yes.", "instances": [{"input": "", "output": "Yes."}]},
]


def take(path: Path, **gen: Any) -> RecipeResult:
    spec = SeedsGen.model_validate({"seeds": {"path": str(path)}, **gen})
    made = spec.make(StageCall("gen", "k", {}, {}, str(path.parent)), [])
    [step] = made.filters
    assert step.kept == len(made.examples)
    assert step.dropped.total() == len(made.dropped)
    return made


def write(tmp_path: Path, seeds: list[dict[str, Any]]) -> Path:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    return path


def test_each_seed_stands_there_with_its_first_instance(tmp_path: Path) -> None:
    made = take(write(tmp_path, SEEDS))
    assert [(e.id, e.instruction, e.input, e.output) for e in made.examples] == [
        ("a", "Name a river.", "Poland", "Oder"),
        ("b", "Say yes.", "", "Yes."),
    ]
    river = made.examples[0]
    assert (river.origin, river.name, river.is_classification) == ("seed", "river", False)
    assert river.lineage[0].recipe == "seeds_only"
    assert made.dropped == [
        {"step": "seeds", "rule": "further_instance", "id": "a_1", "instruction": "Name a river.",
         "input": "Egypt", "output": "Nile"}
    ]  # fmt: skip


def test_or_with_all_of_its_instances(tmp_path: Path) -> None:
    made = take(write(tmp_path, SEEDS), all_instances=True)
    assert [(e.id, e.output) for e in made.examples] == [
        ("a", "Oder"),
        ("a_1", "Nile"),
        ("b", "Yes."),
    ]
    assert made.examples[1].lineage[0].seeds == ("a",)
    assert made.dropped == []


def test_an_instance_may_not_take_another_seeds_id(tmp_path: Path) -> None:
    path = write(tmp_path, [SEEDS[0], {**SEEDS[1], "id": "a_1"}])
    assert len(take(path).examples) == 2
    with pytest.raises(InputError, match="the id 'a_1'"):
        take(path, all_instances=True)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, SEEDS)
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(InputError, match=r"seeds\.jsonl:3: not JSON"):
        take(path)


def test_the_real_seeds_are_175_of_which_26_are_classification(shared_data: Path) -> None:
    path = shared_data / "self_instruct" / "seed_tasks.jsonl"
    made = take(path)
    assert len(made.examples) == 175
    assert sum(bool(e.is_classification) for e in made.examples) == 26
    assert sum(not e.input for e in made.examples) == 50
    given = read_jsonl(path)
    assert [(e.id, e.output) for e in made.examples] == [
        (row["id"], row["instances"][0]["output"]) for row in given
    ]
    assert take(path, all_instances=True).examples == made.examples
