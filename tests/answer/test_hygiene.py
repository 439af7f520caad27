"""Flags: what they find in real outputs of a faulty study, and what they leave alone."""

import json
import time
from pathlib import Path

import pytest

from harness.answer.hygiene import count_flags, findings, flags, split_reasoning


def found_in(path: Path) -> list[list[str]]:
    return [flags(row["output"], None) for row in json.loads(path.read_text())]


def test_the_outputs_of_a_prompt_without_assistant_header_begin_with_the_role(
    shared_data: Path,
) -> None:
    folder = shared_data.parent / "oracles" / "mini_lima"
    faulty = found_in(folder / "338-default-prompt-results1" / "model_outputs.json")
    counts = count_flags(faulty)
    assert counts["flag_role_word"] == len(faulty) == 805
    assert counts["flag_extra_turns"] > 700
    assert [f.kind for f in findings(faulty)] == ["role_words"]
    sound = count_flags(found_in(folder / "338-qwen-prompt1-results" / "model_outputs.json"))
    assert sound["flag_role_word"] == 0
    assert sound["flag_extra_turns"] < 5


@pytest.mark.parametrize(
    ("text", "rest", "expected"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", "\n\nYes.", {"reasoning"}),
        ("<thinking>Hm.</thinking>Yes.", "Yes.", {"reasoning"}),
        ("Hm.\n</think>\n\nYes.", "\n\nYes.", {"reasoning"}),
        ("<think>a</think>b<think>c</think>d", "bd", {"reasoning"}),
        ("<think></think>Yes.", "Yes.", {"reasoning"}),
        ("<think>\nHm, so", "", {"open_reasoning"}),
        ("Well.\n<think>so", "Well.\n", {"open_reasoning"}),
        ("<think>a</think>b\n<think>so", "b\n", {"reasoning", "open_reasoning"}),
        ("Write `<think>` first.", "Write `<think>` first.", set()),
        ("It ends with `</think>` there.", "It ends with `</think>` there.", set()),
        ("<think>a</think >b", "b", {"reasoning"}),
        ("<THINK>a</THINK>b", "b", {"reasoning"}),
        ("<thinking>a</think>b", "b", {"reasoning"}),
        ("<think>a<think>b</think>c</think>d", "d", {"reasoning"}),
        ("<think>Not <think> here.</think>b", "b", {"reasoning"}),
        ("Use `<think>x</think>` tags", "Use `<think>x</think>` tags", set()),
        ("```\n<think>\nx\n</think>\n```", "```\n<think>\nx\n</think>\n```", set()),
        ("I think so.", "I think so.", set()),
    ],
)
def test_reasoning_is_told_from_the_answer(text: str, rest: str, expected: set[str]) -> None:
    assert split_reasoning(text) == (rest, expected)
    assert set(flags(text, "stop")) & {"reasoning", "open_reasoning"} == expected


def test_a_run_of_opening_marks_is_read_at_once() -> None:
    started = time.thread_time()
    split_reasoning("x <think>" * 200_000)
    assert time.thread_time() - started < 2


def test_reasoning_is_found_however_seldom_and_the_judges_view_is_said() -> None:
    few = [["reasoning"], ["open_reasoning"]] + [[]] * 98
    [found] = findings(few)
    assert (found.kind, found.severity) == ("reasoning", "warning")
    assert "part of what the judge sees" in found.message
    assert found.evidence == {"answers": 100, "reasoning": 1, "open_reasoning": 1}
    [found] = findings(few, is_reasoning_cut=True)
    assert "cut out of what the judge sees" in found.message


def test_a_strong_models_answers_have_no_flags(shared_data: Path) -> None:
    found = found_in(shared_data / "alpaca_eval" / "gpt4_1106_preview_outputs.json")
    assert not any(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" \n", ["empty"]),
        ("Sure.", []),
        ("assistant\nSure.", ["role_word"]),
        ("Assistant: Sure.", ["role_word"]),
        ("### Human: hi", ["role_word"]),
        ("**User**: hi", ["role_word"]),
        ("Human rights are universal.", []),
        ("System design is hard.", []),
        ("assistants help", []),
        ("Yes.\nHuman: and now?", ["extra_turns"]),
        ("Yes.\nuser\nand now?\nassistant\nNo.", ["extra_turns"]),
        ("Yes.<|im_end|>\n<|im_start|>user\nhi", ["extra_turns"]),
        ("Yes.\n\n### Instruction:\nSay no.", ["extra_turns"]),
        ("The parties:\nUser\nThe user is a person.", []),
        ("no " * 20, ["loop"]),
        ("no " * 19, []),
        ("one two three four five six " * 4, ["loop"]),
        ("one two three four five six " * 3, []),
        ("".join(f"{n}. Eat an apple a day.\n" for n in range(5)), ["loop"]),
        ("".join(f"{n} " for n in range(200)), []),
        ("- " * 100, []),
        ("=" * 200, []),
        ("哈哈" * 30, ["loop"]),
    ],
)
def test_each_flag_is_what_its_definition_says(text: str, expected: list[str]) -> None:
    assert flags(text, "stop") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" " * 200_000 + "x", []),
        ("\n" * 100_000 + "x", []),
        ("Yes.\n" + " " * 200_000 + "no", []),
        ("Yes." + "\n" * 100_000 + "user:", ["extra_turns"]),
        (" " * 200_000 + "### user" + " " * 200_000 + ": x", ["role_word"]),
        ("[ " * 100_000, []),
    ],
)
def test_an_answer_of_white_space_is_read_at_once(text: str, expected: list[str]) -> None:
    started = time.perf_counter()
    assert flags(text, "stop") == expected
    assert time.perf_counter() - started < 0.9


def test_a_cut_answer_is_flagged_by_its_finish_reason() -> None:
    assert flags("Yes", "length") == ["cut"]
    assert flags("", "length") == ["empty", "cut"]


def test_a_finding_is_made_from_a_twentieth_of_the_answers_on() -> None:
    assert findings([["cut"]] + [[]] * 20) == []
    (found,) = findings([["cut", "empty"]] + [[]] * 19)
    assert found.kind == "empty_or_truncated"
    assert found.evidence == {"answers": 20, "empty": 1, "cut": 1, "share": 0.05}
    assert findings([]) == []


def test_a_finding_names_no_count_of_none() -> None:
    def told(*flagged: list[str]) -> list[str]:
        return [one.message for one in findings(flagged)]

    assert told(["cut"], []) == ["of 2 answers 1 is cut at the token limit"]
    assert told(["empty"], ["empty"]) == ["of 2 answers 2 are empty"]
    assert told(["empty"], ["cut"]) == ["of 2 answers 1 is empty and 1 is cut at the token limit"]
    assert told(["extra_turns"]) == ["of 1 answer 1 goes on into invented turns"]
    (reasons,) = told(["reasoning"])
    assert reasons.startswith("of 1 answer 1 holds reasoning (<think>); it is part of")
