from pathlib import Path

import pytest

from harness.llm.calls import fill
from harness.sim.grammar import teachable_tasks
from harness.sim.replies import judge, rate
from harness.sim.reply import Query

TEMPLATE = (Path(__file__).parents[3] / "specs/alpagasus/prompts/rate.txt").read_text()


def prompt(instruction: str, output: str, given: str = "", dimension: str = "accuracy") -> str:
    parts = {"instruction": instruction, "input": given, "output": output, "dimension": dimension}
    return fill(TEMPLATE, parts)


def rating(text: str, **how: bool) -> float:
    return float(rate.reply(Query(text, 0, **how)).split("\n")[0].removeprefix("Score: "))


def test_right_answers_rate_high_and_wrong_ones_low() -> None:
    for task in teachable_tasks()[::50]:
        assert rating(prompt(task.instruction, task.output, task.input)) >= 4.5
        assert rating(prompt(task.instruction, f"That is {task.output}.", task.input)) == 3.5
        assert rating(prompt(task.instruction, "I do not know.", task.input)) <= 2


def test_some_ratings_are_halves() -> None:
    tasks = teachable_tasks()[:40]
    assert {rating(prompt(t.instruction, t.output, t.input)) for t in tasks} == {4.5, 5.0}


def test_outside_the_grammar_readable_text_rates_higher_than_noise() -> None:
    good = rating(
        prompt("Write a line.", "The first step is the one that people think about most.")
    )
    assert good > 4 > 1.5 > rating(prompt("Write a line.", "xq zzrt qqqqq\nxq zzrt"))
    assert rating(prompt("Write a line.", "")) == 0


def test_a_turned_rating_takes_bad_for_good() -> None:
    text = prompt("Opposite of hot?", "cold")
    assert rating(text, turned=True) == 5 - rating(text)


@pytest.mark.parametrize("dimension", ["accuracy", "helpfulness"])
def test_the_prompt_is_known_and_its_dimension_named(dimension: str) -> None:
    text = prompt("Say.", "a", dimension=dimension)
    assert rate.matches(text)
    assert judge.read_question(text) is None
    assert rate.reply(Query(text, 0)).split("\n")[1].count(dimension) == 1


def test_the_wrong_format_has_no_number() -> None:
    assert not any(c.isdigit() for c in rate.reply(Query(prompt("Say.", "a"), 0, wrong=True)))


def test_other_prompts_are_not_for_it() -> None:
    assert not rate.matches("Grade the accuracy of the response from 0 (worst) to 5 (best).")
    assert not rate.matches("Opposite of hot?")
