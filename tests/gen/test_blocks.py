"""Task blocks as a teacher writes them, well and badly."""

import time

import pytest

from harness.gen.blocks import Block, render, split
from harness.gen.seeds import AlpacaTask

WHOLE = """### 4. Instruction: Give the plural.
Input: mouse
Output: mice

### 5. Instruction: Name a colour.
Input: <none>
Output: red"""


def tasks(reply: str) -> list[AlpacaTask | None]:
    return [block.task for block in split(reply)]


def test_a_whole_reply_gives_its_tasks_in_order() -> None:
    assert tasks(WHOLE) == [
        AlpacaTask("Give the plural.", "mouse", "mice"),
        AlpacaTask("Name a colour.", "", "red"),
    ]


def test_what_is_rendered_is_read_back() -> None:
    shown = [
        AlpacaTask("Say {it}.", "a\n\nb", "x {y}\n- z\n\n# not a block"),
        AlpacaTask("Go on now.", "", "1"),
    ]
    assert tasks("\n\n".join(render(i, t) for i, t in enumerate(shown, 7))) == shown


@pytest.mark.parametrize(
    "reply",
    [
        "Here are the tasks:\n\n" + WHOLE,
        WHOLE.replace("\n", "\r\n"),
        WHOLE.replace("### 4. Instruction: ", "###4 .Instruction:"),
        WHOLE.replace("<none>", ""),
        WHOLE.replace("<none>", "<NONE>"),
        WHOLE + "\n\n",
    ],
)
def test_small_differences_in_form_do_not_matter(reply: str) -> None:
    assert tasks(reply) == tasks(WHOLE)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I am sorry, but I cannot help with that.",
        "Task: x\nAnswer: y",
        "1) What is it? => that",
        "### 4. Task: x\nAnswer: y",
        "### 4. Instruction: no output here\nInput: <none>",
        "### 4. Instruction: no input\nOutput: y",
        "### 4. Instruction: x\nOutput: y\nInput: z",
        "### 4. Instruction: x\nInput: y\nOutput: z\nOutput: w",
    ],
)
def test_what_is_not_a_task_is_one_unreadable_piece(reply: str) -> None:
    assert split(reply) == [Block(reply, None)]


def test_an_unreadable_block_does_not_spoil_its_neighbours() -> None:
    reply = WHOLE.replace("Input: mouse\n", "") + "\n\n### 6. Task: x"
    assert tasks(reply) == [None, AlpacaTask("Name a colour.", "", "red"), None]


def test_a_heading_inside_an_output_stays_in_it() -> None:
    output = "Plan\n\n### First\nbuy\n\n### 1. Second\ncook"
    reply = WHOLE.replace("mice", output)
    assert tasks(reply) == [
        AlpacaTask("Give the plural.", "mouse", output),
        AlpacaTask("Name a colour.", "", "red"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "### 4. Instruction: a" + "\nInput: x" * 20_000,
        "### 4. Instruction: a" + "\nInput: x" * 20_000 + "\nOutput: y" * 20_000,
        "\n".join(f"### {i}. Instruction: a" for i in range(20_000)),
        "### " + "9" * 5000 + ". Instruction: a\nInput: b\nOutput: c",
    ],
)
def test_a_degenerate_reply_is_read_at_once_and_holds_no_task(text: str) -> None:
    started = time.process_time()
    assert set(tasks(text)) == {None}
    assert time.process_time() - started < 2
