from pathlib import Path

import pytest

from harness.llm.calls import fill
from harness.sim.replies import expand
from harness.sim.reply import Query

PROMPT_4 = (Path(__file__).parents[3] / "specs/mini_lima_paper/prompts/prompt4.txt").read_text()


def prompt(output: str = "cold", instruction: str = "Opposite of hot?", given: str = "") -> str:
    shown = {
        "ex_name": "e",
        "ex_instr": "Say.",
        "ex_input": "",
        "ex_output": "a",
        "ex_expanded": "b",
    }
    task = {"name": "n", "instr": instruction, "input": given, "output": output}
    return fill(PROMPT_4, shown | task)


@pytest.mark.parametrize(
    "output", ["cold", "Two lines,\nor three.", "It's 'so', output: 'x'.", "{braces}", "最"]
)
def test_the_longer_output_still_holds_the_first(output: str) -> None:
    assert expand.matches(prompt(output))
    reply = expand.reply(Query(prompt(output), 0, "x"))
    assert output in reply
    assert len(reply) > len(output) + 40


def test_replies_depend_on_request_seed_and_salt_alone() -> None:
    first = expand.reply(Query(prompt(), 0, "x"))
    assert first == expand.reply(Query(prompt(), 0, "x"))
    assert len({expand.reply(Query(prompt(), 0, str(i))) for i in range(20)}) > 10


def test_the_wrong_format_is_labelled_and_quoted() -> None:
    assert (
        expand.reply(Query(prompt(), 0, "x", wrong=True))
        == f'Output: "{expand.reply(Query(prompt(), 0, "x"))}"'
    )


def test_other_prompts_are_not_for_it() -> None:
    assert not expand.matches("Opposite of hot?")
