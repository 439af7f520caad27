"""Self-Instruct's last step: what stays of the instances, and the prompt encodings."""

from collections import Counter

import pytest

from harness.data.dataset import DatasetExample, Lineage
from harness.gen.recipes.self_instruct import Encodings, Prepare
from harness.gen.recipes.self_instruct.prepare import encode, prepare


def task(number: int, *pairs: tuple[str, str]) -> list[DatasetExample]:
    lineage = (Lineage("self_instruct", "instances", (number,)),)
    return [
        DatasetExample(f"generated_{number}_{i}", f"Do task {number}.", *pair, lineage=lineage)
        for i, pair in enumerate(pairs)
    ]


def encodings(with_input: list[str], without_input: list[str]) -> Encodings:
    return Encodings.model_validate(
        {
            "with_input": [{"path": "w", "text": text} for text in with_input],
            "without_input": [{"path": "wo", "text": text} for text in without_input],
        }
    )


@pytest.mark.parametrize(
    ("pairs", "kept", "dropped"),
    [
        ([("a", "x"), ("b", "y")], 2, {}),
        ([("a", "x"), ("a", "y"), ("b", "z")], 0, {"contradictory": 3}),
        ([("", "x"), ("", "y")], 2, {}),
        ([("a", "x"), ("a", "x"), ("b", "x")], 2, {"repeated": 1}),
        ([(str(i), "x") for i in range(7)], 5, {"surplus": 2}),
    ],
)
def test_a_tasks_instances_fall_to_these_rules(
    pairs: list[tuple[str, str]], kept: int, dropped: dict[str, int]
) -> None:
    tally, examples = prepare([task(0, *pairs)], Prepare())
    assert len(examples) == kept
    assert tally.dropped == Counter(dropped)
    assert Counter(row["rule"] for row in tally.rows) == Counter(dropped)
    assert tally.proposed == len(pairs)


def test_one_contradiction_drops_one_task_alone() -> None:
    tally, examples = prepare([task(0, ("a", "x"), ("a", "y")), task(1, ("a", "z"))], Prepare())
    assert [e.id for e in examples] == ["generated_1_0"]
    assert [row["request"] for row in tally.rows] == [0, 0]


def test_the_seed_decides_which_instances_stay_and_their_order() -> None:
    tasks = [task(n, *((str(i), "x") for i in range(9))) for n in range(20)]
    first, again, other = (
        [e.id for e in prepare(tasks, Prepare(max_instances=2, seed=seed))[1]] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert set(first) != set(other)
    assert len(first) == 40
    numbers = [int(name.split("_")[1]) for name in first]
    assert numbers != sorted(numbers)
    assert set(Counter(numbers).values()) == {2}


def test_every_encoding_is_drawn_and_says_which() -> None:
    forms = encodings(
        ["{instruction}|{input}|A:", "T {instruction} {input}\n\n"], ["{instruction}"]
    )
    examples = [*task(0, *((f"in {i}", f"out {i}") for i in range(40))), *task(1, ("", "none"))]
    rows = encode(examples, forms, 123)
    assert [row["id"] for row in rows] == [e.id for e in examples]
    for row, example in zip(rows[:-1], examples, strict=False):
        if row["encoding"] == "with_input/0":
            assert row["prompt"] == f"Do task 0.|{example.input}|A:"
            assert row["completion"] == f" {example.output}"
        else:
            assert row["encoding"] == "with_input/1"
            assert row["prompt"] == f"T Do task 0. {example.input}\n"
            assert row["completion"] == example.output
    assert Counter(row["encoding"] for row in rows[:-1]).keys() == {"with_input/0", "with_input/1"}
    assert rows[-1]["prompt"] == "Do task 1."
    assert rows[-1]["encoding"] == "without_input/0"
    assert rows == encode(examples, forms, 123) != encode(examples, forms, 124)


def test_prompts_that_come_out_the_same_stand_once() -> None:
    examples = [*task(0, ("a", "x")), *task(0, ("a", "x"))]
    assert len(encode(examples, encodings(["{instruction} {input}"], ["{instruction}"]), 1)) == 1


def test_half_the_inputs_lose_the_name_of_their_only_field_and_their_empty_lines() -> None:
    forms = encodings(["{input}<{instruction}"], ["{instruction}"])

    def inputs(text: str) -> set[str]:
        examples = [e for n in range(30) for e in task(n, (text, "x"))]
        return {row["prompt"].partition("<")[0] for row in encode(examples, forms, 1)}

    assert inputs("Text: some\n\nwords") == {"Text: some\n\nwords", "some\nwords"}
    assert inputs("Name: a\nAge: b") == {"Name: a\nAge: b"}
    assert inputs("at 10:30") == {"at 10:30", "30"}


def test_an_input_that_was_nothing_but_its_fields_name_takes_the_other_form() -> None:
    forms = encodings(["I {input} {instruction}"], ["{instruction}"])
    examples = [e for n in range(30) for e in task(n, ("Text: ", "x"))]
    kinds = Counter(row["encoding"] for row in encode(examples, forms, 1))
    assert kinds.keys() == {"with_input/0", "without_input/0"}
