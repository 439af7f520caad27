"""Objects and pairs in replies that keep to no form."""

import json
import time
from typing import Any

import pytest

from harness.gen.objects import (
    MOST_UNREADABLE,
    find_objects,
    find_pairs,
    text_of,
    without_quotes,
)

A = {"name": "a", "instruction": "Say it's {1}."}
B = {"name": "b", "instruction": 'Quote "this".\nThen stop.'}
BOTH = [A, B]
LINES = [json.dumps(row) for row in BOTH]


def values(reply: str) -> list[Any]:
    return [piece.fields for piece in find_objects(reply)]


def pairs(reply: str) -> list[Any]:
    return [piece.fields for piece in find_pairs(reply)]


@pytest.mark.parametrize(
    "reply",
    [
        "\n".join(LINES),
        "\r\n\r\n".join(LINES),
        json.dumps(BOTH),
        json.dumps(BOTH, indent=2),
        f"Sure, here {{you}} are:\n```json\n{LINES[0]}\n{LINES[1]}\n```\nEnjoy {{them}}!",
        f"1. {LINES[0]}\n2. {LINES[1]}",
        f"- {LINES[0]},\n- {LINES[1]},",
        f"[{LINES[0]},\n{LINES[1]},\n]",
        repr(A) + "\n" + repr(B),
        repr(BOTH),
        f"{LINES[0]} and {LINES[1]}",
        json.dumps({"pairs": BOTH}),
        json.dumps({"1": A, "2": B}),
        f'{LINES[0]}\n{{"name": "b", "instruction": "Quote \\"this\\".\nThen stop."}}',
        f"{LINES[0]}\n" + LINES[1].replace("name", "Name").replace("instr", "INSTR"),
        f"{LINES[0]}\n" + LINES[1].removesuffix("}") + ",}",
    ],
)
def test_objects_are_found_however_they_are_listed(reply: str) -> None:
    assert values(reply) == BOTH


@pytest.mark.parametrize(
    "line",
    [
        '{"name": "x", "name": "y", "instruction": "i"}',
        "{'name': 'x', 'name': 'y', 'instruction': 'i'}",
        '{"name": "x", "Name": "y", "instruction": "i"}',
        "{'name': 'x', 'instruction': 'replace '' by y'}",
        '{"name": "x", "instruction": "say "hello" now"}',
        "{'name': open('/etc/passwd'), 'instruction': 'i'}",
        "{'name': f'x', 'instruction': 'i'}",
        "{'name': 'x', ['list']: 'i'}",
        "{'name': 'x' 'y', 'instruction': 'i'}",
        "{'name': '" + "\\x00" + "', 'instruction': \x00}",
        "{'name': " + "[" * 4000 + "]" * 4000 + "}",
        '{"name": ' + "[" * 100_000 + "}",
    ],
)
def test_what_can_be_read_in_two_ways_or_not_at_all_is_an_unreadable_piece(line: str) -> None:
    assert values(f"{LINES[0]}\n{line}\n{LINES[1]}") == [A, None, B]


def test_an_object_that_is_never_closed_does_not_take_the_next_lines_with_it() -> None:
    found = find_objects(f'{LINES[0]}\n{{"name": "x", "instruction": "never\n{LINES[1]}')
    assert [piece.fields for piece in found] == [A, None, B]
    assert [piece.is_open for piece in found] == [False, False, False]


def test_what_stands_inside_a_broken_object_is_not_taken_for_one_of_the_list() -> None:
    broken = '{\n  "name": "x",\n  "instances": [\n    {"input": "1", "output": "2"}\n  ],\n  "in'
    found = find_objects(f"{LINES[0]}\n{broken}\n{LINES[1]}")
    assert [piece.fields for piece in found] == [A, None, B]
    (closed,) = find_objects(broken.removesuffix('"in') + 'oops: "no"}')
    assert closed.fields is None


def test_a_reply_that_stops_within_an_object_ends_with_an_open_piece() -> None:
    found = find_objects(f'{LINES[0]}\n{{"name": "x", "instru')
    assert [(piece.fields, piece.is_open) for piece in found] == [(A, False), (None, True)]
    assert find_objects(LINES[0])[0].is_open is False


def test_numbers_are_read_as_they_are_written() -> None:
    assert values('{"output": 1.50, "input": 007}') == [None]
    assert values('{"output": 1.50, "input": -7e3, "n": NaN}') == [
        {"output": "1.50", "input": "-7e3", "n": "NaN"}
    ]
    assert text_of(5) == "5"
    assert text_of(True) is None
    assert text_of(["a"]) is None


@pytest.mark.parametrize("text", ["", "{name, instruction}", "{ }", "No {s here.", "[1, 2]"])
def test_text_without_objects_has_no_pieces(text: str) -> None:
    assert find_objects(text) == []
    assert find_pairs(text) == []


@pytest.mark.parametrize(
    "unit",
    [
        "{'",
        '{"a\n',
        '{"a": [',
        "{'a': '",
        "**",
        '{"a":{',
        "\\\"{'",
        " " * 200 + "\n",
        "1. - * ",
        "{ ",
    ],
)
def test_a_reply_that_never_ends_is_read_in_little_time(unit: str) -> None:
    reply = (unit * 60_000)[:60_000]
    start = time.perf_counter()
    assert len(find_objects(reply)) <= MOST_UNREADABLE + 1
    assert find_pairs(reply) == []
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "reply",
    [
        "Name: a\nInstruction: Do it.\n\nName: b\nInstruction: Do\nthat.",
        "1. Name: a\n   Instruction: Do it.\n2. Name: b\n   Instruction: Do\nthat.",
        "1.\nName: a\nInstruction: Do it.\n\n2.\nName: b\nInstruction: Do\nthat.\n",
        "**Name:** a\n**Instruction:** Do it.\n---\n**Name:** b\n**Instruction:** Do\nthat.",
        'Task name: "a", Instruction: "Do it."\nTask name: "b", Instruction: "Do\nthat."',
        "Here:\n- Name: a; Instruction: Do it.\n- name: b | instruction: Do\nthat.",
        "### Pair 1\nname: a\ninstruction: Do it.\n\n### Pair 2\nname: b\ninstruction: Do\nthat.",
    ],
)
def test_labelled_pairs_are_found_however_they_are_listed(reply: str) -> None:
    assert pairs(reply) == [
        {"name": "a", "instruction": "Do it."},
        {"name": "b", "instruction": "Do\nthat."},
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "Name: a",
        "Name: a\nInstruction: b\nInstruction: c",
        "Name: a\nmore\nInstruction: b",
        "Name: a\nInstruction: b\n\nI hope that these help!",
    ],
)
def test_a_pair_that_can_be_read_in_two_ways_is_an_unreadable_piece(reply: str) -> None:
    assert pairs(reply) == [None]


def test_a_number_at_the_end_of_an_instruction_stays() -> None:
    reply = "Name: a\nInstruction: Add up\n3 and\n4\n\nName: b\nInstruction: Count to\n3."
    assert [pair["instruction"] for pair in pairs(reply)] == ["Add up\n3 and\n4", "Count to\n3."]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('"A b."', "A b."),
        ("'It isn't so.'", "It isn't so."),
        ("“A b.”", "A b."),
        ("'A' or 'b'", "'A' or 'b'"),
        ('"A," she said, "b."', '"A," she said, "b."'),
        ('"', '"'),
        ('""', ""),
        ('"See "A b" and ("c")."', 'See "A b" and ("c").'),
        ("'See 'A b', isn't it?'", "See 'A b', isn't it?"),
        ('"A" is not "b"', '"A" is not "b"'),
        ("A b.", "A b."),
    ],
)
def test_only_quotes_around_the_whole_text_are_taken_off(text: str, plain: str) -> None:
    assert without_quotes(text) == plain
