import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.sim.facts import RELATIONS
from harness.sim.grammar import draw, find, held_out_tasks, is_right, solve, teachable_tasks
from tests.sim import smoke
from tests.sim.smoke import evaluation_prompts, seed_tasks

SMOKE = Path(__file__).parents[2] / "specs" / "smoke"


@pytest.mark.parametrize(
    ("instruction", "input", "answer"),
    [
        ("What is the opposite of hot?", "", "cold"),
        ("Give the plural of mouse.", "", "mice"),
        ("Write the past tense.", "go", "went"),
        ("Capital of France?", "", "Paris"),
        ("What do you call a baby kangaroo?", "", "joey"),
        ("Colour of grass?", "", "green"),
        ("Write seventeen in digits.", "", "17"),
        ("How do you spell 90?", "", "ninety"),
        ("What comes after Sunday?", "", "Monday"),
        ("What follows December?", "", "January"),
        ("Comparative of good?", "", "better"),
        ("What is the female form of king?", "", "queen"),
    ],
)
def test_known_questions_have_known_answers(instruction: str, input: str, answer: str) -> None:
    assert solve(instruction, input) == answer


def test_the_input_may_follow_the_instruction_on_a_line_of_its_own() -> None:
    assert solve("Write the past tense.\ngo") == "went"
    assert solve("  write the past tense. \n go ") == "went"


def test_what_is_not_a_task_of_the_grammar_has_no_answer() -> None:
    assert solve("What is the opposite of a kettle?") is None
    assert solve("Write the past tense.") is None
    assert solve("") is None


def test_every_task_is_solved_by_its_own_output() -> None:
    tasks = teachable_tasks() + held_out_tasks()
    assert len({task.text.casefold() for task in tasks}) == len(tasks)
    for task in tasks:
        assert solve(task.instruction, task.input) == task.output
        assert solve(task.text) == task.output
        assert is_right(task, task.output)


def test_the_whole_answer_has_to_be_right() -> None:
    task = find("What is the opposite of big?")
    assert task is not None
    for answer in ("small", "Small.", " little\n"):
        assert is_right(task, answer)
    for answer in (
        "small small",
        "small\nQ: What",
        "The opposite is small",
        "large",
        "",
        "small..",
    ):
        assert not is_right(task, answer)


def test_about_a_tenth_is_held_out_and_none_of_it_can_be_taught() -> None:
    held_out, teachable = held_out_tasks(), teachable_tasks()
    assert not {t.text for t in held_out} & {t.text for t in teachable}
    assert 0.08 < len(held_out) / (len(held_out) + len(teachable)) < 0.12
    assert {t.relation for t in held_out} == {r.name for r in RELATIONS}


def test_every_fact_and_every_phrasing_can_be_learnt() -> None:
    phrasings = Counter((t.relation, t.key) for t in teachable_tasks())
    facts = [(r.name, key) for r in RELATIONS for key in r.facts]
    assert all(phrasings[fact] >= 5 for fact in facts)
    starts = {(t.relation, t.instruction.replace(t.key, "{}")) for t in teachable_tasks()}
    assert starts >= {(r.name, p) for r in RELATIONS for p in r.phrasings}


def test_about_a_quarter_of_the_tasks_has_an_input() -> None:
    share = sum(bool(t.input) for t in teachable_tasks()) / len(teachable_tasks())
    assert 0.2 < share < 0.3


def test_evaluation_prompts_are_held_out_and_their_baseline_is_mostly_wrong() -> None:
    prompts = evaluation_prompts(100, seed=3)
    by_text = {t.text: t for t in held_out_tasks()}
    assert len({p["instruction"] for p in prompts}) == 100
    right = [is_right(by_text[p["instruction"]], p["output"]) for p in prompts]
    assert sum(right) == 10
    assert all(p["output"] for p in prompts)
    assert {frozenset(p) for p in prompts} == {
        frozenset({"instruction", "output", "generator", "dataset"})
    }


def test_wrong_baseline_answers_are_of_both_kinds() -> None:
    prompts = evaluation_prompts(100)
    excuses = sum(p["output"] in smoke.NO_ANSWER for p in prompts)
    assert 25 <= excuses <= 65


def test_the_same_seed_gives_the_same_prompts_and_another_seed_others() -> None:
    assert evaluation_prompts(50, 1) == evaluation_prompts(50, 1)
    assert evaluation_prompts(50, 1) != evaluation_prompts(50, 2)
    assert seed_tasks(20, 1) == seed_tasks(20, 1)
    assert seed_tasks(20, 1) != seed_tasks(20, 2)


def test_more_prompts_than_are_held_out_are_refused() -> None:
    with pytest.raises(ValueError, match=f"holds out {len(held_out_tasks())}"):
        evaluation_prompts(len(held_out_tasks()) + 1)


def test_seed_tasks_are_teachable_and_in_self_instructs_format() -> None:
    teachable = {(t.instruction, t.input, t.output) for t in teachable_tasks()}
    for task in seed_tasks(40, 5):
        assert set(task) == {"id", "name", "instruction", "instances", "is_classification"}
        (instance,) = task["instances"]
        assert (task["instruction"], instance["input"], instance["output"]) in teachable


def test_a_draw_has_no_repeats_and_stops_at_what_there_is() -> None:
    assert sorted(draw(range(10), 99, "salt")) == list(range(10))
    firsts = Counter(draw(range(4), 1, "salt", i)[0] for i in range(4000))
    assert all(900 < count < 1100 for count in firsts.values())


@pytest.mark.parametrize("name", ["seeds.jsonl", "prompts.jsonl"])
def test_the_committed_files_are_what_the_command_writes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["smoke", "--write", str(tmp_path)])
    smoke.main()
    assert (tmp_path / name).read_bytes() == (SMOKE / name).read_bytes()
