"""The simulated teacher of Self-Instruct's steps, asked with the templates in specs/."""

from pathlib import Path

import pytest

from harness.gen.recipes.self_instruct.parse import read_instances, read_instructions
from harness.llm.calls import fill
from harness.llm.reply import Reply
from harness.sim import grammar
from harness.sim.replies import self_instruct
from harness.sim.reply import Query

PROMPTS = Path(__file__).parents[3] / "specs/self_instruct/prompts"
SHOWN = ["Name the opposite of hot.", "Spell the number 20.", "Make this noun plural."]
LABELLED = "Classify the word as country or verb."


def ask(template: str, seed: int = 0, salt: str = "x", wrong: bool = False, **parts: str) -> str:
    prompt = fill((PROMPTS / template).read_text(), parts).strip()
    reply = self_instruct.reply(Query(prompt, seed, salt, wrong=wrong))
    assert reply is not None
    return reply


def ask_for_instructions(template: str = "instructions.txt", **how: object) -> str:
    examples = "\n".join(f"{i}. {text}" for i, text in enumerate(SHOWN, start=1))
    return ask(template, examples=examples, next="4", **how)  # type: ignore[arg-type]


def as_reply(text: str) -> Reply:
    return Reply(text, "stop", "m", {}, {}, True, False)


def instructions(text: str) -> list[str]:
    rule, pieces = read_instructions(as_reply(text), 4, True)
    assert rule is None
    return [piece.strip() for piece in pieces]


def test_new_instructions_go_on_with_the_list() -> None:
    reply = ask_for_instructions()
    first, *later = reply.splitlines()
    assert not first[0].isdigit()
    assert [line.partition(".")[0] for line in later] == [*"56789", "10"]
    found = instructions(reply)
    teachable = {task.instruction for task in grammar.teachable_tasks()}
    kinds = [ask("classification.txt", instruction=text) for text in found]
    assert kinds.count("Yes") == self_instruct.LABELLED_PER_REPLY
    for text, kind in zip(found, kinds, strict=True):
        assert text not in SHOWN
        assert (text in teachable) == (kind == "No")


def test_replies_differ_with_seed_and_salt_and_are_the_same_for_the_same() -> None:
    first = ask_for_instructions()
    assert first == ask_for_instructions()
    others = [ask_for_instructions(seed=1), ask_for_instructions(salt="y")]
    assert len({first, *others}) == 3


def test_what_is_shown_is_not_set_again() -> None:
    # All but ten of the tasks that leave the key to an input are shown.
    without_key = {t.instruction for t in grammar.teachable_tasks() if t.input}
    shown = sorted(without_key)[10:]
    examples = "\n".join(f"{i}. {text.lower()}" for i, text in enumerate(shown, start=1))
    for salt in map(str, range(30)):
        reply = ask("instructions.txt", salt=salt, examples=examples, next=str(len(shown) + 1))
        first, *later = reply.splitlines()
        found = [first, *(line.partition(". ")[2] for line in later)]
        assert len(set(found)) == self_instruct.PER_REPLY
        assert not {*found} & {*shown}
        assert {*found} & without_key


def test_the_template_for_classification_brings_classification_tasks_alone() -> None:
    found = instructions(ask_for_instructions("instructions_classification.txt"))
    assert len(found) == self_instruct.PER_REPLY
    assert {ask("classification.txt", instruction=text) for text in found} == {"Yes"}


def test_kinds_are_told_whatever_the_case() -> None:
    assert ask("classification.txt", instruction=LABELLED.lower().capitalize()) == "Yes"
    assert ask("classification.txt", instruction="Capital of france?") == "No"
    assert ask("classification.txt", instruction="Do something else entirely.") == "No"


@pytest.mark.parametrize("instruction", ["Make this noun plural.", "Give the plural of leaf."])
def test_inputs_come_with_right_answers(instruction: str) -> None:
    reply = ask("instances_input_first.txt", instruction=instruction.lower())
    found = read_instances(as_reply(reply), False, True)
    assert len(found) == (5 if "this" in instruction else 1)
    for given, output, rule in found:
        assert rule is None
        assert grammar.solve(instruction, given) == output


def test_instances_of_held_out_tasks_are_never_given() -> None:
    held_out = {(t.instruction, t.input) for t in grammar.held_out_tasks() if t.input}
    by_instruction = {instruction for instruction, _ in held_out}
    for instruction in by_instruction:
        for salt in map(str, range(20)):
            reply = ask("instances_input_first.txt", salt=salt, instruction=instruction)
            found = read_instances(as_reply(reply), False, True)
            assert not {(instruction, given) for given, _, _ in found} & held_out


@pytest.mark.parametrize("labels_first", [True, False])
def test_a_classification_tasks_words_have_the_labels_that_fit(labels_first: bool) -> None:
    template = f"instances_{'output' if labels_first else 'input'}_first.txt"
    found = read_instances(as_reply(ask(template, instruction=LABELLED)), labels_first, True)
    assert sorted(output for _, output, _ in found) == ["country", "country", "verb", "verb"]
    for word, label, _ in found:
        past = grammar.solve(f"Give the past tense of {word}.")
        capital = grammar.solve(f"Name the capital of {word}.")
        assert (past is not None) == (label == "verb")
        assert (capital is not None) == (label == "country")


def test_no_word_fits_both_labels_of_a_task() -> None:
    tasks = [(a, b) for _, a, b in self_instruct._choices().values()]
    assert len(tasks) > 100
    for a, b in tasks:
        fits = set(self_instruct._only(a, b))
        assert len(fits) >= 2
        assert not fits & set(self_instruct._words(b))


def test_the_wrong_format_cannot_be_read() -> None:
    assert read_instructions(as_reply(ask_for_instructions(wrong=True)), 4, True)[0] == "unparsable"
    assert ask("classification.txt", instruction=LABELLED, wrong=True) not in ("Yes", "No")
    for kind, template in ((False, "input"), (True, "output")):
        reply = ask(f"instances_{template}_first.txt", instruction=LABELLED, wrong=True)
        assert [i.rule for i in read_instances(as_reply(reply), kind, True)] == ["unparsable"]


@pytest.mark.parametrize(
    "prompt",
    ["What is the opposite of hot?", "", "Task: a", "Task: a\nKnown labels: Yes", "1. a\n2."],
)
def test_other_prompts_are_left_to_others(prompt: str) -> None:
    assert not self_instruct.matches(prompt)
