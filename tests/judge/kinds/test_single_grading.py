"""Single answers graded 1 to 10: grades out of replies, what the judge is shown, and the scores."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.answer.prompts import Prompt
from harness.artefact.call import StageCall
from harness.artefact.metrics import metric_of
from harness.audit import audit_paths
from harness.errors import HarnessError, InputError
from harness.judge import run as judge
from harness.judge.kinds.single_grading import SingleGradingJudge
from harness.judge.kinds.single_grading.judge import read_grade
from harness.judge.kinds.single_grading.scores import rating
from harness.judge.scores import mean_and_error
from harness.sim.replies import single_grade
from harness.sim.reply import Query
from tests.helpers import ROOT
from tests.llm.fake_server import FakeServer, last_message
from tests.modeling.calls import write_jsonl

PROMPTS = ROOT / "specs" / "mt_bench" / "prompts"
FILES = {
    "system": "system.txt",
    "prompt": "single.txt",
    "prompt_turns": "single_turns.txt",
    "prompt_reference": "reference.txt",
    "prompt_reference_turns": "reference_turns.txt",
}
QUESTIONS: list[dict[str, Any]] = [
    {"question_id": 1, "category": "words", "turns": ["Say a word.", "Another."]},
    {"question_id": 2, "category": "maths", "turns": ["1 + 1?", "And 1?"], "reference": ["2", "3"]},
    {"question_id": 3, "category": "words", "turns": ["Say a letter."]},
]
ANSWERS = ["tea", "two", "b", "milk", "three"]
Grades = dict[str, str]


def settings(**more: Any) -> dict[str, Any]:
    texts = {n: {"path": f, "text": (PROMPTS / f).read_text()} for n, f in FILES.items()}
    return {"kind": "single_grading", "judge": {"model": "j"}, **texts, **more}


def make_call(folder: Path, endpoint: Any, **more: Any) -> StageCall:
    firsts = [question["turns"][0] for question in QUESTIONS]
    later = [
        f"User: {q['turns'][0]}\n\nAssistant: {a}\n\nUser: {q['turns'][1]}"
        for q, a in zip(QUESTIONS, ANSWERS, strict=False)
        if len(q["turns"]) > 1
    ]
    (folder / "outputs").mkdir(parents=True)
    (folder / "work").mkdir()
    rows = [
        {"instruction": i, "output": o, "generator": "model"}
        for i, o in zip([*firsts, *later], ANSWERS, strict=True)
    ]
    (folder / "outputs" / "model_outputs.json").write_text(json.dumps(rows))
    questions = write_jsonl(folder / "questions.jsonl", QUESTIONS)
    params = {
        "judge": settings(judge=endpoint.model_dump(), **more),
        "prompts": {"file": str(questions)},
        "replicate": 0,
    }
    inputs = {"outputs": str(folder / "outputs")}
    return StageCall(
        stage="judge", key="0" * 64, params=params, inputs=inputs, work=str(folder / "work")
    )


def answer_of(body: dict[str, Any]) -> str:
    return re.findall(r"<answer(?:_2)?>\n(.*)\n</answer(?:_2)?>", last_message(body))[-1]


def judged(folder: Path, grades: Grades, **more: Any) -> tuple[StageCall, Any, list[Any]]:
    """`grades`: the judge's reply to each answer."""
    with FakeServer(lambda body, _: grades[answer_of(body)]) as server:
        call = make_call(folder, server.endpoint(), **more)
        result = judge.run(call)
        return call, result, server.requests


GRADES = {"tea": "Fine.\n[[8]]", "two": "Right. [[10]]", "b": "Rating: [[3.5]]", "milk": "[[6]]",
          "three": "Well. Rating: [9]"}  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("Good.\nRating: [[8]]", 8), ("[[7.5]] and not [[3]]", 7.5), ("Rating: [6]", 6),
        ("[[0]]", None), ("[[11]]", None), ("8/10", None), ("", None), ("[1] says so. [[4]]", 4),
        ("[[ 6 ]]", 6), ("Rating: [ 7.5 ]", 7.5),
    ],
)  # fmt: skip
def test_a_grade_is_the_first_number_in_double_brackets_from_1_to_10(
    reply: str, grade: float | None
) -> None:
    assert read_grade(reply) == grade


def test_the_score_is_the_mean_of_all_turns_and_beside_it_those_of_turns_and_categories(
    tmp_path: Path,
) -> None:
    _, result, _ = judged(tmp_path, GRADES)
    values = {name: metric.value for name, metric in result.metrics.items()}
    assert values == {
        "rating": pytest.approx((8 + 10 + 3.5 + 6 + 9) / 5),
        "rating/turn_1": pytest.approx((8 + 10 + 3.5) / 3),
        "rating/turn_2": pytest.approx((6 + 9) / 2),
        "rating/words": pytest.approx((8 + 3.5 + 6) / 3),
        "rating/maths": pytest.approx((10 + 9) / 2),
    }
    assert (result.metrics["rating"].judged, result.metrics["rating"].expected) == (5, 5)
    assert (metric_of("rating/maths").lowest, metric_of("rating/maths").highest) == (1, 10)
    assert (result.counts["prompts"], result.counts["answers"]) == (3, 5)
    assert result.counts["with_reference"] == 2


def test_the_judge_is_shown_both_turns_and_the_right_answers_where_there_are_any(
    tmp_path: Path,
) -> None:
    _, _, requests = judged(tmp_path, GRADES)
    by_answer = {answer_of(body): last_message(body) for body in requests}
    assert "<answer_1>\ntea\n</answer_1>\n\n<question_2>\nAnother." in by_answer["milk"]
    assert "<reference" not in by_answer["milk"]
    assert "<reference>\n2\n</reference>" in by_answer["two"]
    assert "<reference_1>\n2\n" in by_answer["three"]
    assert "<reference_2>\n3\n" in by_answer["three"]
    assert "Say a word." not in by_answer["b"]
    assert {body["temperature"] for body in requests} == {0.0}
    assert {body["messages"][0]["role"] for body in requests} == {"system"}


def test_an_answer_without_a_grade_is_asked_again_then_counted_and_bounds_the_score(
    tmp_path: Path,
) -> None:
    call, result, requests = judged(tmp_path, GRADES | {"b": "It is fine."})
    metric = result.metrics["rating"]
    assert (metric.judged, metric.expected) == (4, 5)
    assert metric.value == pytest.approx((8 + 10 + 6 + 9) / 4)
    assert metric.lower_bound == pytest.approx((33 + 1) / 5)
    assert metric.upper_bound == pytest.approx((33 + 10) / 5)
    assert [answer_of(body) for body in requests].count("b") == 2
    [row] = [json.loads(x) for x in (call.folder / "unjudged.jsonl").read_text().splitlines()]
    assert (row["instruction"], row["reply"]) == ("Say a letter.", "It is fine.")


def test_replies_of_another_form_are_counted_apart_among_the_unjudged(tmp_path: Path) -> None:
    _, result, _ = judged(tmp_path, GRADES | {"b": "Rating: [[8/10]]", "tea": "It is fine."})
    assert (result.counts["judged"], result.counts["unjudged"]) == (3, 2)
    [note] = [note for note in result.notes if "[[8/10]]" in note]
    assert note.startswith("1 of the 2 unjudged replies hold in brackets more than a number")


def test_no_grade_at_all_is_an_error_that_shows_the_first_reply(tmp_path: Path) -> None:
    with pytest.raises(
        HarnessError, match="none of the judge's 5 replies holds a grade from 1 to 10"
    ) as told:
        judged(tmp_path, dict.fromkeys(GRADES, "No." * 1000))
    assert len(told.value.message) < 320
    assert re.search(r"; does [\w.-]+ \(eval\.judge\.prompt\) ask for one\?", told.value.hint)


def test_a_replay_and_a_resumed_run_give_the_same_files_and_ask_nothing(tmp_path: Path) -> None:
    call, result, _ = judged(tmp_path / "whole", GRADES)
    (tmp_path / "replay").mkdir()
    shutil.copy(call.folder / "transcript.jsonl", tmp_path / "replay")
    again = replace(call, replay=True, work=str(tmp_path / "replay"))
    replayed = judge.run(again)
    assert replayed.metrics == result.metrics
    for name in result.keep:
        assert (again.folder / name).read_bytes() == (call.folder / name).read_bytes()
    resumed = judge.run(call)
    assert resumed.metrics == result.metrics


def test_of_single_turns_the_error_is_the_plain_one_and_turns_that_agree_count_as_one() -> None:
    grades = [3.0, 5.0, 9.0, 4.0]
    _, error = mean_and_error(grades)
    assert rating(grades, range(4)).standard_error == pytest.approx(error)
    twice = rating([*grades, *grades], [*range(4), *range(4)])
    assert twice.standard_error == pytest.approx(error)
    opposed = rating([2.0, 4.0, 8.0, 6.0], [0, 1, 0, 1])
    assert opposed.standard_error == 0
    assert rating([5.0, None], [0, 1]).standard_error is None
    deviations = [-1.0 - 1.0, 2.0]
    clustered = rating([3.0, 3.0, 6.0], [0, 0, 1]).standard_error
    assert clustered == pytest.approx(math.sqrt(2 * sum(d**2 for d in deviations)) / 3)


def test_what_cannot_be_graded_is_told_before_anything_is_asked() -> None:
    made = SingleGradingJudge.model_validate(settings())
    first_only = made.model_copy(
        update=dict.fromkeys(("prompt_turns", "prompt_reference", "prompt_reference_turns"))
    )
    two = Prompt("a", "", later=("b",), fields={"reference": ["x"]})
    with pytest.raises(InputError, match="two turns, and no prompt says how the second"):
        first_only.check([two], {})
    with pytest.raises(InputError, match="has 2 turns, and a reference for 1"):
        made.check([two], {})
    with pytest.raises(InputError, match="has 1 turn, and 2 references, which would not be shown"):
        made.check([Prompt("a", "", fields={"reference": ["x", "y"]})], {})
    numbered = [Prompt(text, "", fields={"question_id": 7}) for text in "ab"]
    with pytest.raises(InputError, match="1 question_ids are there more than once, for example 7"):
        made.check(numbered, {})
    made.check([numbered[0], Prompt("b", "", dataset="x", fields={"question_id": 7})], {})
    with pytest.raises(InputError, match="has 3 turns, and two are graded"):
        made.check([Prompt("a", "", later=("b", "c"))], {})
    with pytest.raises(InputError, match="`reference` that is no list of texts"):
        made.check([Prompt("a", "", fields={"reference": 3})], {})
    with pytest.raises(ValidationError, match="give both of prompt_reference"):
        SingleGradingJudge.model_validate(settings(prompt_reference_turns=None))
    with pytest.raises(ValidationError, match=r"has no place for \{answer\}"):
        SingleGradingJudge.model_validate(settings(prompt={"path": "p", "text": "{question}"}))


def test_an_audit_finds_the_mean_and_its_error_over_questions_again(tmp_path: Path) -> None:
    call, result, _ = judged(tmp_path, GRADES)
    manifest = {"metrics": {name: metric.to_json() for name, metric in result.metrics.items()}}
    (tmp_path / "artefact").mkdir()
    shutil.copy(call.folder / "annotations.json", tmp_path / "artefact")
    (tmp_path / "artefact" / "manifest.json").write_text(json.dumps(manifest))
    [audited] = audit_paths([tmp_path / "artefact"])
    metric = result.metrics["rating"]
    _, over_answers = mean_and_error([8, 10, 3.5, 6, 9])
    assert metric.standard_error != pytest.approx(over_answers)
    assert audited.metrics["standard_error"] == pytest.approx(metric.standard_error)
    assert audited.metrics["lower_bound"] == metric.lower_bound
    assert audited.matches


def test_a_category_called_like_a_turn_or_a_set_of_other_questions_is_refused() -> None:
    made = SingleGradingJudge.model_validate(settings())

    def prompt(text: str, category: str, dataset: str | None = None) -> Prompt:
        return Prompt(text, "", dataset=dataset, fields={"category": category})

    with pytest.raises(InputError, match=r"category 'turn_1', as of 'a', is called like a turn"):
        made.check([prompt("a", "turn_1")], {})
    sets = [prompt("a", "x", "x"), prompt("b", "x", "y")]
    with pytest.raises(InputError, match=r"like a prompt set: both would have the metric rating/x"):
        made.check(sets, {})
    made.check([sets[0], prompt("b", "y", "y"), prompt("c", "turn_3", "z")], {})


def test_a_question_twice_is_refused_before_anything_runs_where_there_are_later_turns() -> None:
    made = SingleGradingJudge.model_validate(settings())
    twice = [Prompt("a", "", later=("b",)), Prompt("a", "", later=("c",)), Prompt("d", "")]
    with pytest.raises(InputError, match="1 questions are there more than once, for example 'a'"):
        made.check(twice, {})
    made.check(twice[1:], {})
    made.check([Prompt("a", ""), Prompt("a", "")], {})


def test_the_simulated_judge_grades_right_above_wrong_and_reads_every_prompt_of_the_specs() -> None:
    question = "Name the plural form of wolf."

    def shown(name: str, answer: str) -> str:
        text = (PROMPTS / name).read_text()
        parts = dict.fromkeys(("question_1", "answer_1", "ref_answer_1", "ref_answer_2"), "x")
        parts |= {
            "question": question,
            "question_2": question,
            "answer": answer,
            "answer_2": answer,
        }
        for part, value in parts.items():
            text = text.replace(f"{{{part}}}", value)
        return text

    for name in list(FILES.values())[1:]:
        right, wrong = shown(name, "wolves"), shown(name, "a cat")
        assert single_grade.matches(right)
        grades = [read_grade(single_grade.reply(Query(text))) for text in (right, wrong)]
        assert grades[0] is not None
        assert grades[1] is not None
        assert grades[0] > grades[1]
        turned = read_grade(single_grade.reply(Query(right, turned=True)))
        assert turned == 11 - grades[0]
        assert read_grade(single_grade.reply(Query(right, wrong=True))) is None
