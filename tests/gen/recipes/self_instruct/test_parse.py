"""Self-Instruct's replies taken apart, against hand-made ones: well-formed, clumsy and hostile."""

import time

import pytest

from harness.gen.recipes.self_instruct.parse import (
    ParsedInstance,
    read_classification,
    read_instances,
    read_instructions,
)
from harness.llm.reply import REFUSED, Reply
from tests.llm.fake_server import reply


def instructions(text: str, chat: bool = True, first: int = 9) -> list[str]:
    rule, pieces = read_instructions(reply(text), first, chat)
    assert rule is None
    return [piece.strip() for piece in pieces]


def pairs(text: str, kind: bool = False, chat: bool = True) -> list[tuple[str, str]]:
    found = read_instances(reply(text), kind, chat)
    assert [f.rule for f in found] == [None] * len(found)
    return [(f.input, f.output) for f in found]


def test_a_completion_goes_on_in_the_middle_of_its_first_item() -> None:
    text = " Name a river.\n10. Name a lake.\n11 . Name a sea."
    assert instructions(text, chat=False) == ["Name a river.", "Name a lake.", "Name a sea."]


def test_a_completion_is_split_at_any_number_and_nowhere_else_as_upstream_does() -> None:
    assert instructions(" A\n3. B\n10.C\n 11. D", chat=False) == ["A", "B\n10.C\n 11. D"]


@pytest.mark.parametrize(
    "text",
    [
        "9. Name a river.\n10. Name a lake.",
        "Name a river.\n10. Name a lake.",
        " Name a river.\r\n10. Name a lake.\r\n",
        "Sure, here are more:\n9. Name a river.\n10. Name a lake.",
        "Sure, here are more:\n\n1. Name a river.\n2. Name a lake.\n\nShall I go on?",
        "```\n9. Name a river.\n10. Name a lake.\n```",
        "Here:\n```text\n9) Name a river.\n10) Name a lake.\n```\nMore?\n",
        "9. Name a river.\n\n10. Name a lake.\n\nI hope this helps!",
        "**9.** Name a river.\n**10.** Name a lake.",
        "  9. Name a river.\n  10. Name a lake.",
    ],
)
def test_a_chat_teachers_list_is_found_in_what_it_says(text: str) -> None:
    found = [piece.removesuffix("\nMore?") for piece in instructions(text)]
    assert found == ["Name a river.", "Name a lake."]


def test_a_chat_teachers_inner_list_stays_in_its_instruction() -> None:
    text = "9. Sort these:\n   1. pears\n   2. plums\n10. Name a lake."
    assert instructions(text) == ["Sort these:\n   1. pears\n   2. plums", "Name a lake."]


@pytest.mark.parametrize(
    "text",
    ["- Name a river.\n- Name a lake.", '{"reply": "9. Name"}', "Gladly! What about?", "9.Name"],
)
def test_a_chat_reply_without_a_numbered_list_is_one_unreadable_piece(text: str) -> None:
    assert read_instructions(reply(text), 9, True) == ("unparsable", [text])


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize(
    ("said", "rule", "count"),
    [
        (reply("9. Name a river.\n10. Name a la", "length"), "cut", 2),
        (reply(" \n "), "empty_reply", 1),
        (reply("", REFUSED), "refused", 1),
    ],
)
def test_a_reply_that_ended_badly_is_dropped_whole(
    said: Reply, rule: str, count: int, chat: bool
) -> None:
    found, pieces = read_instructions(said, 9, chat)
    assert (found, len(pieces)) == (rule, count)


def test_a_refusal_in_words_is_told_from_a_chat_teachers_instructions() -> None:
    said = reply("I'm sorry, but I can't help with:\n1. that\n2. this")
    assert read_instructions(said, 9, True)[0] == "refused"
    assert read_instances(said, False, True)[0].rule == "refused"


@pytest.mark.parametrize(
    ("text", "chat", "expected"),
    [
        ("Yes", True, True),
        (" yes\n", True, True),
        ("YES", False, True),
        ("No", True, False),
        ("no", False, False),
        ("Yes.", True, True),
        ("No.", True, False),
        ("Yes.", False, None),
        ("Yes, it", True, None),
        ("yEs", True, None),
        ("", True, None),
        ("Ja", True, None),
    ],
)
def test_only_a_plain_yes_or_no_is_clear(text: str, chat: bool, expected: bool | None) -> None:
    assert read_classification(text, chat) is expected


@pytest.mark.parametrize("chat", [True, False])
def test_examples_are_an_input_and_an_output(chat: bool) -> None:
    text = (
        "Example 1\nSend it today.\nOutput: Could you send it today?\n\n"
        "Example 2.\nInput: Move\nover.\nOutput 2: May I\n\npass?\nExample 3\nOutput: None needed."
    )
    assert pairs(text, chat=chat) == [
        ("Send it today.", "Could you send it today?"),
        ("Move\nover.", "May I\n\npass?"),
        ("", "None needed."),
    ]


@pytest.mark.parametrize("chat", [True, False])
def test_without_an_example_line_there_is_one_pair(chat: bool) -> None:
    assert pairs("Input: a\nOutput: b", chat=chat) == [("a", "b")]
    assert pairs("Output: b", chat=chat) == [("", "b")]


@pytest.mark.parametrize("chat", [True, False])
def test_an_output_ends_where_another_label_follows(chat: bool) -> None:
    text = "Example 1\na\nOutput: b\nInput: c\nOutput: d"
    assert pairs(text, chat=chat) == [("a", "b")]


@pytest.mark.parametrize("chat", [True, False])
def test_labels_come_before_their_inputs(chat: bool) -> None:
    text = "Class label: good\nI liked it.\nAll of it.\n\nClass label:bad\nNever again."
    expected = [("I liked it.\nAll of it.", "good"), ("Never again.", "bad")]
    assert pairs(text, kind=True, chat=chat) == expected
    assert pairs("Class label: seven", kind=True, chat=chat) == [("", "seven")]


@pytest.mark.parametrize(
    "text",
    [
        "Sure!\n\nExample 1\na\nOutput: b\n\nExample 2\nc\nOutput: d",
        "**Example 1**\n**Input:** a\n**Output:** b\n\n**Example 2:**\n**Input**: c\n**Output**: d",
        "### Example 1:\na\nOutput: b\n---\n### Example 2:\nc\nOutput: d\n\n###",
        "Example 1: a\nOutput: b\nExample 2: c\nOutput: d\n\n**",
        "```\nExample 1\na\nOutput: b\nExample 2\nc\nOutput: d\n```",
        "a\r\nOutput: b\r\nExample 2\r\nc\r\nOutput: d",
    ],
)
def test_a_chat_teachers_dress_does_not_get_into_the_data(text: str) -> None:
    assert pairs(text) == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    "text",
    [
        'Example Input: "racecar"\nExample Output: aceca',
        'Sure!\n\nExample 1 Input: "racecar"\nExample 1 Output: aceca',
        '**Example Input:** "racecar"\n**Example Output:** aceca',
        '### Example 1: Input: "racecar"\n### Expected Output: aceca',
        'Input 1: "racecar"\nOutput 1: aceca',
        '1. Input: "racecar"\n   Output: aceca',
        'INPUT: "racecar"\nOUTPUT: aceca',
        'Example 1\n- **Sample Input**: "racecar"\n- **Sample Output**: aceca',
    ],
)
def test_a_chat_teachers_longer_labels_are_no_data(text: str) -> None:
    assert pairs(text) == [('"racecar"', "aceca")]


@pytest.mark.parametrize(
    "text",
    [
        "Example 1 Input: a\nExample 1 Output: b\n\nExample 2 Input: c\nExample 2 Output: d",
        "Example Input: a\nExample Output: b\n\nExample Input: c\nExample Output: d",
        "Input 1: a\nOutput 1: b\nInput 2: c\nOutput 2: d",
        "1. Input: a\n   Output: b\n2. Input: c\n   Output: d",
        "1. **Input:** a\n   **Output:** b\n\n2. **Input:** c\n   **Output:** d",
        "Example 1\nInput 1: a\nOutput 1: b\nExample 2\nInput 2: c\nOutput 2: d",
    ],
)
def test_each_numbered_pair_of_labels_is_an_example(text: str) -> None:
    assert pairs(text) == [("a", "b"), ("c", "d")]


def test_a_completions_longer_labels_are_split_as_upstream_splits_them() -> None:
    text = "Example 1 Input: a\nExample 1 Output: b"
    found = read_instances(reply(text), False, chat=False)
    assert found == [ParsedInstance("", "", "empty_output"), ParsedInstance("", "b")]


def test_numbered_outputs_alone_are_examples_without_an_input() -> None:
    assert pairs("Output 1: a\nOutput 2: b") == [("", "a"), ("", "b")]


@pytest.mark.parametrize(
    "text",
    [
        "Example 1\nClass label: x\nInput: a\n\nExample 2\nClass label: y\nInput: b",
        "Example 1 Class label: x\nExample 1 Input: a\nExample 2 Class label: y\nExample 2 Input: b",
        "**Example 1:**\n**Class Label:** x\n**Text**\n\n### Example 2:\nClass label 2: y\nInput 2: b",
        "1. Class label: x\n   Input: a\n2. Class label: y\n   Input: b",
    ],
)
def test_a_chat_teachers_class_labels_leave_no_debris(text: str) -> None:
    expected = (
        [("a", "x"), ("b", "y")] if "**Text**" not in text else [("**Text**", "x"), ("b", "y")]
    )
    assert pairs(text, kind=True) == expected


def test_a_chat_teachers_dressed_labels_are_labels() -> None:
    text = "Here you are:\n\n**Class label:** x\nInput: a\n\n---\n**Class label**: y\nb"
    assert pairs(text, kind=True) == [("a", "x"), ("b", "y")]


def test_code_within_an_output_keeps_its_fences() -> None:
    text = "Example 1\na\nOutput: ```python\nprint(1)\n```"
    assert pairs(text) == [("a", "```python\nprint(1)\n```")]


def test_text_without_an_output_label_is_data_from_a_completion_only() -> None:
    text = "Example 1\nA whole answer.\nExample 2\na\nOutput: b"
    assert pairs(text, chat=False) == [("", "A whole answer."), ("a", "b")]
    assert read_instances(reply(text), False, True) == [
        ParsedInstance("", "A whole answer.", "unparsable"),
        ParsedInstance("a", "b"),
    ]


@pytest.mark.parametrize(
    ("text", "kind", "rules"),
    [
        ("Some prose.", False, ["unparsable"]),
        ("Some prose.", True, ["unparsable"]),
        ("Output: b", True, ["unparsable"]),
        ("Class label: x\na", False, ["unparsable"]),
        ("Example 1\nExample 2", False, ["unparsable"]),
        ("", False, ["empty_reply"]),
        ("Example 1\na\nOutput:\nExample 2\nb\nOutput: c", False, ["empty_output", None]),
        ("Class label:\nClass label: x\ny", True, ["empty_output", None]),
        ("Example 1\nsame\nOutput: same", False, ["same_as_input"]),
        ("Class label: same\nsame", True, ["same_as_input"]),
        ("Example 1\nthe list:\nOutput: b", False, ["ends_with_colon"]),
        ("Example 1\na\nOutput: as follows:", False, ["ends_with_colon"]),
        ("Example 1\na\nOutput: half \ud800", False, ["unparsable"]),
    ],
)
@pytest.mark.parametrize("chat", [True, False])
def test_each_instance_falls_to_the_first_rule_that_it_breaks(
    text: str, kind: bool, rules: list[str | None], chat: bool
) -> None:
    assert [found.rule for found in read_instances(reply(text), kind, chat)] == rules


@pytest.mark.parametrize("chat", [True, False])
def test_of_a_reply_that_ended_for_length_the_last_instance_goes(chat: bool) -> None:
    text = "Example 1\na\nOutput: b\nExample 2\nc\nOutput: d"
    assert [f.rule for f in read_instances(reply(text, "length"), False, chat)] == [None, "cut"]
    text = "Class label: x\na\nClass label: y\nb"
    assert [f.rule for f in read_instances(reply(text, "length"), True, chat)] == [None, "cut"]


@pytest.mark.parametrize(
    "text",
    [
        "Output" + " " * 50_000,
        "Output" + "1 " * 50_000,
        "**Input" + " " * 50_000 + "1" * 50_000,
        "\n" * 100_000,
        "\n- " * 50_000,
        "```\n" + " " * 100_000 + "```x",
        "9. a\n" + " " * 100_000 + "\n",
        "Example\n" * 20_000,
        "1. \n" * 50_000,
        "\n---" * 30_000,
        "Example" + " " * 50_000,
        "Example 1 " * 20_000,
        "Example 1 Output:\n" * 10_000,
        "1. " + "\t" * 50_000,
    ],
)
@pytest.mark.parametrize("chat", [True, False])
def test_a_hostile_reply_is_read_in_no_time(text: str, chat: bool) -> None:
    started = time.monotonic()
    read_instructions(reply(text), 9, chat)
    for kind in (True, False):
        read_instances(reply(text), kind, chat)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "text",
    [
        "Test Input: a\nTest Output: b", "First Example Input: a\nFirst Example Output: b",
        "Your Input: a\nYour Output: b", "*Input:* a\n*Output:* b", "__Input__: a\n__Output__: b",
        "\u2022 **Input:** a\n\u2022 **Output:** b", "> Input: a\n> Output: b",
        "<b>Input:</b> a\n<b>Output:</b> b", "Example #1\nInput: a\nOutput: b",
        "Example 1 (easy)\nInput: a\nOutput: b", "Example One:\nInput: a\nOutput: b",
        "Input: a\nActual Output: b", "Input: a\nCorrect Output: b",
        "Input (string): a\nOutput (string): b", "Input #1: a\nOutput #1: b",
        "Input:\n```\na\n```\nOutput:\n```\nb\n```",
    ],
)  # fmt: skip
def test_of_labels_however_a_chat_dresses_them_nothing_stays_in_the_texts(text: str) -> None:
    assert read_instances(reply(text), False, True) == [("a", "b", None)]
    more = text.replace("#1", "#2").replace("1 (", "2 (").replace("One", "Two")
    if more != text:
        assert read_instances(reply(f"{text}\n{more}"), False, True) == [("a", "b", None)] * 2


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("Input: the field Output: is empty\nOutput: fill Input: first",
         ("the field Output: is empty", "fill Input: first")),
        ("Input: log\nConsole Output: 3\nOutput: b", ("log\nConsole Output: 3", "b")),
        ("Input: a\nOutput:\n```python\nb\n```", ("a", "```python\nb\n```")),
    ],
)  # fmt: skip
def test_words_like_labels_within_a_chats_texts_stay_there(
    text: str, pair: tuple[str, str]
) -> None:
    assert read_instances(reply(text), False, True) == [(*pair, None)]
