from pathlib import Path

import pytest

from harness.judge.grades import read_scores
from harness.judge.kinds.flow_judge.rubrics import load_rubric, prompt_of, read_reply
from harness.llm.calls import fill
from harness.sim.grammar import teachable_tasks
from harness.sim.replies import grade, judge, rate, rubric
from harness.sim.reply import Query

TEMPLATE = (Path(__file__).parents[3] / "specs/alpagasus/prompts/grade.txt").read_text()


def prompt(question: str, first: str, second: str) -> str:
    parts = {"question": question, "answer_1": first, "answer_2": second}
    return fill(TEMPLATE, parts).strip()


def scores(text: str, seed: int = 0, **how: object) -> tuple[float, float]:
    found = read_scores(grade.reply(Query(text, seed, **how)), 1, 10)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_right_answers_score_above_wrong_ones_in_either_place() -> None:
    for task in teachable_tasks()[::50]:
        asked = f"{task.instruction} Input: {task.input}" if task.input else task.instruction
        first, second = scores(prompt(asked, task.output, "I do not know."))
        assert first > second
        assert scores(prompt(asked, "I do not know.", task.output)) == (second, first)


def test_readable_answers_score_above_noise_where_nothing_is_known() -> None:
    good, bad = scores(prompt("Write a line.", "The first step is the one to take.", "xq zzrt"))
    assert good > 5 > bad >= 1


def test_of_two_wrong_answers_the_readable_one_scores_higher() -> None:
    for task in teachable_tasks()[::50]:
        first, second = scores(prompt(task.text, "I do not know.", "xq zzrt"))
        assert 5 > first > second


def test_some_scores_have_decimals() -> None:
    tasks = teachable_tasks()[:40]
    found = {scores(prompt(t.text, t.output, "I do not know."))[0] for t in tasks}
    assert found == {9.1, 10.0}


def test_the_favoured_place_gains_two_points() -> None:
    text = prompt("Write a line.", "the cat zzrt", "the cat zzrt")
    first, second = scores(text)
    assert first == second
    assert 3 < first < 9
    assert scores(text, favours="first") == (first + 1, second - 1)
    assert scores(text, favours="second") == (first - 1, second + 1)
    best = prompt("Opposite of hot?", "cold", "cold")
    assert scores(best, favours="first")[0] <= 10


def test_turned_scores_are_exchanged_and_the_wrong_format_has_none() -> None:
    text = prompt("Opposite of hot?", "cold", "wet")
    first, second = scores(text)
    assert scores(text, turned=True) == (second, first)
    assert read_scores(grade.reply(Query(text, 0, wrong=True)), 1, 10) is None


def test_each_kind_of_request_is_taken_for_its_own() -> None:
    grading = prompt("Say.", "a", "b")
    scoring = prompt_of(
        load_rubric("response_relevance_3point"), {"query": "Say.", "context": "c"}, "a"
    )
    assert grade.matches(grading)
    assert rubric.matches(scoring)
    for other in (judge.read_question, rate.matches, rubric.matches):
        assert not other(grading)
    for other in (judge.read_question, rate.matches, grade.matches):
        assert not other(scoring)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("binary", 0, 1), ("3point", 1, 3), ("5point", 1, 5)]
)
def test_the_simulated_rubric_judge_keeps_to_the_rubric(name: str, low: int, high: int) -> None:
    chosen = load_rubric(f"response_correctness_{name}")
    task = teachable_tasks()[0]

    def score(output: str, **how: bool) -> int | None:
        shown = {"query": task.text, "reference_answer": task.output}
        read = read_reply(chosen, rubric.reply(Query(prompt_of(chosen, shown, output), 0, **how)))
        return None if read is None else read.score

    assert score(task.output) == high
    assert (score("nothing of the kind") or 0) < high
    assert score(task.output, turned=True) == low
    assert score(task.output, wrong=True) is None


def test_what_is_taken_from_the_context_scores_above_what_is_made_up() -> None:
    shown = {"query": "What happened?", "context": "The dam broke in the night of the third."}
    assert rubric.merit(shown, "The dam broke in the night.") == 1
    assert rubric.merit(shown, "Aliens landed near Boston.") == 0
    assert 0 < rubric.merit(shown, "The dam held.") < 1
