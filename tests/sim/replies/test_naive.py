import json
from pathlib import Path
from typing import Any

import pytest

from harness.sim.grammar import find, held_out_tasks, is_right, teachable_tasks
from harness.sim.replies import naive
from harness.sim.reply import Query

PROMPTS = Path(__file__).parents[3] / "specs/mini_lima_paper/prompts"
IN_TEXT = next(t for t in teachable_tasks() if not t.input)
WITH_INPUT = next(t for t in teachable_tasks() if t.input)


def prompt(number: int, *rows: dict[str, Any]) -> str:
    text = (PROMPTS / f"prompt{number}.txt").read_text().removesuffix("\n")
    return "\n".join([text, "", *map(json.dumps, rows)])


def line(instruction: str, *instances: tuple[str, str], name: str = "n") -> dict[str, Any]:
    held = [{"input": i, "output": o} for i, o in instances]
    return {"name": name, "instruction": instruction} | ({"instances": held} if held else {})


def replied(*given: Any, seed: int = 0, salt: str = "x") -> list[dict[str, Any]]:
    return [json.loads(row) for row in naive.reply(Query(*given, seed, salt)).splitlines()]


SHOWN = [line(t.instruction, name=f"n{i}") for i, t in enumerate(teachable_tasks()[:10])]
MORE_PAIRS = prompt(1, *SHOWN)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_studys_prompts_are_known_by_how_they_begin(number: int) -> None:
    assert naive.matches(prompt(number))
    assert not naive.matches("Say: " + prompt(number))
    assert not naive.matches(prompt(4))


def test_new_pairs_are_teachable_tasks_that_were_not_shown() -> None:
    pairs = replied(MORE_PAIRS)
    assert len(pairs) == 10
    instructions = [pair["instruction"] for pair in pairs]
    assert len({*instructions, *(row["instruction"] for row in SHOWN)}) == 20
    assert {*instructions} <= {task.instruction for task in teachable_tasks()}
    assert all(pair.keys() == {"name", "instruction"} and pair["name"] for pair in pairs)


def test_a_given_task_comes_back_with_two_more_right_instances() -> None:
    for task in (IN_TEXT, WITH_INPUT):
        given = line(task.instruction, (task.input, task.output))
        (row,) = replied(prompt(2, given))
        assert row["instances"][0] == given["instances"][0]
        assert len({json.dumps(i) for i in row["instances"]}) == 3
        for instance in row["instances"]:
            known = find(task.instruction, instance["input"])
            assert known is not None
            assert is_right(known, instance["output"])


def test_a_new_task_gets_five_instances_and_none_that_is_held_out() -> None:
    example = line(IN_TEXT.instruction, ("", IN_TEXT.output))
    (row,) = replied(prompt(3, example, line(WITH_INPUT.instruction)))
    assert row["instruction"] == WITH_INPUT.instruction
    assert len({i["input"] for i in row["instances"]}) == 5
    every = [replied(prompt(3, line(t.instruction)), salt=str(s)) for t in teachable_tasks()[::40]
             for s in range(3)]  # fmt: skip
    taught = {
        (r["instruction"], i["input"]) for reply in every for r in reply for i in r["instances"]
    }
    assert not taught & {(t.instruction, t.input) for t in held_out_tasks()}


def test_a_task_outside_the_grammar_gets_different_sentences() -> None:
    (row,) = replied(prompt(3, line("Write a poem.")))
    assert len({i["output"] for i in row["instances"]}) == 5


def test_replies_depend_on_request_seed_and_salt_alone() -> None:
    first = naive.reply(Query(MORE_PAIRS, 0, "x"))
    assert first == naive.reply(Query(MORE_PAIRS, 0, "x"))
    assert (
        len({first, naive.reply(Query(MORE_PAIRS, 1, "x")), naive.reply(Query(MORE_PAIRS, 0, "y"))})
        == 3
    )


def test_the_wrong_format_has_no_object_in_it() -> None:
    for text in (MORE_PAIRS, prompt(2, line("a", ("b", "c"))), prompt(3, line("a"))):
        assert "{" not in naive.reply(Query(text, 0, "x", wrong=True))


@pytest.mark.parametrize("rest", ["", "{not json}", '{"name": 1, "instruction": []}', "[" * 5000])
def test_a_prompt_without_tasks_gets_an_empty_reply(rest: str) -> None:
    for number in (1, 2, 3):
        assert naive.reply(Query(f"{prompt(number)}{rest}", 0, "x")) == ""
