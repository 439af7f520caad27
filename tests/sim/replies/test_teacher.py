import re
from pathlib import Path

import pytest

from harness.sim.grammar import held_out_tasks, teachable_tasks
from harness.sim.replies import tasks, teacher
from harness.sim.reply import Query

TEMPLATE = (Path(__file__).parents[3] / "specs/smoke/prompts/tasks.txt").read_text()
TEACHABLE = {(t.instruction, t.input or "<none>", t.output) for t in teachable_tasks()}


def request(count: int, shown: int = 3, start: int = 0) -> str:
    tasks = teachable_tasks()[start : start + shown]
    examples = "\n\n".join(
        f"### {i}. Instruction: {t.instruction}\nInput: {t.input or '<none>'}\nOutput: {t.output}"
        for i, t in enumerate(tasks, 1)
    )
    values = {"count": count, "shown": shown, "next": shown + 1, "examples": examples}
    prompt = TEMPLATE
    for name, value in values.items():
        assert "{" + name + "}" in prompt
        prompt = prompt.replace("{" + name + "}", str(value))
    return prompt


def blocks(reply: str) -> list[tuple[int, tuple[str, ...]]]:
    found = []
    for block in reply.split("\n\n"):
        match = re.fullmatch(r"### (\d+)\. Instruction: (.+)\nInput: (.+)\nOutput: (.+)", block)
        assert match is not None, block
        number, *parts = match.groups()
        found.append((int(number), tuple(parts)))
    return found


def test_the_reply_goes_on_with_as_many_teachable_tasks_as_wanted() -> None:
    found = blocks(tasks.reply(Query(request(20), 0, "x")))
    assert [number for number, _ in found] == list(range(4, 24))
    assert {task for _, task in found} <= TEACHABLE
    assert len({task for _, task in found}) == 20


def test_a_shown_task_is_not_given_again() -> None:
    everything = len(teachable_tasks())
    found = blocks(tasks.reply(Query(request(everything, shown=40), 0, "x")))
    assert len(found) == everything - 40
    shown = {(t.instruction, t.input or "<none>", t.output) for t in teachable_tasks()[:40]}
    assert not {task for _, task in found} & shown


def test_no_held_out_task_is_ever_taught() -> None:
    found = blocks(tasks.reply(Query(request(5000), 0, "x")))
    taught = {parts[:2] for _, parts in found}
    assert not taught & {(t.instruction, t.input or "<none>") for t in held_out_tasks()}


def test_replies_depend_on_request_and_seed_alone() -> None:
    first = tasks.reply(Query(request(20), 0, "x"))
    assert first == tasks.reply(Query(request(20), 0, "x"))
    assert first != tasks.reply(Query(request(20), 1, "x"))
    assert first != tasks.reply(Query(request(20), 0, "y"))


def test_the_wrong_format_has_no_block_of_the_asked_form() -> None:
    assert "### " not in tasks.reply(Query(request(20), 0, "x", wrong=True))


@pytest.mark.parametrize("prompt", ["Capital of Peru?", "Tasks wanted: 5", "Write a poem."])
def test_other_prompts_are_not_requests_for_tasks(prompt: str) -> None:
    assert not tasks.matches(prompt)


def test_chat_is_answered_from_the_grammar_or_by_a_sentence() -> None:
    assert teacher.answer("Capital of Peru?", 0) == "Lima"
    sentences = {teacher.answer(f"Write a poem about {i}.", 0) for i in range(100)}
    assert len(sentences) > 40
    assert all(s.endswith(".") and len(s.split()) > 6 for s in sentences)
