"""What is said of outputs alone: the shortcut that spares looking for loops, and ends of texts."""

import random

import pytest

from harness.answer.hygiene import has_loop
from harness.audit.checks.texts import StoredOutput, breaks_off, check_texts, may_loop
from harness.audit.model import Result
from tests.audit.folders import WORDS, text


@pytest.mark.parametrize("seed", range(300))
def test_the_shortcut_never_misses_a_loop(seed: int) -> None:
    draw = random.Random(seed)
    size = draw.randint(1, 50)
    block = [draw.choice(WORDS) for _ in range(size)]
    for k in range(size):
        if draw.random() < 0.2:
            block[k] = draw.choice(["7", "12.", "(3)", "x5", "-", "4)"])
    times = max(4, -(-20 // size)) + draw.randint(0, 3)
    looped = []
    for _ in range(times):
        # A list that counts on is a loop all the same.
        looped += [
            w.translate({ord(d): str(draw.randint(0, 9)) for d in "0123456789"}) for w in block
        ]
    output = " ".join([text(draw, draw.randint(0, 60)), *looped, text(draw, draw.randint(0, 60))])
    if has_loop(output):
        assert may_loop(output)


def test_the_shortcut_sees_loops_without_spaces() -> None:
    assert has_loop("ha" * 40)
    assert may_loop("ha" * 40)


def test_the_shortcut_spares_ordinary_texts() -> None:
    draw = random.Random(1)
    assert not any(may_loop(text(draw, 300)) for _ in range(50))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("unfinished", [0.1, 0.5, 0.9])
def test_texts_of_which_long_and_short_break_off_alike_were_not_cut(
    seed: int, unfinished: float
) -> None:
    draw = random.Random(f"{seed} {unfinished}")
    result = Result("", "")
    texts = [text(draw, max(3, int(draw.lognormvariate(4, 0.7))), unfinished) for _ in range(200)]
    check_texts(result, [StoredOutput(str(k), t) for k, t in enumerate(texts)])
    assert result.findings == []


@pytest.mark.parametrize(
    ("ending", "broken"),
    [("done.", False), ("done!", False), ("done?\n", False), ('"done"', False), ("(done)", False),
     ("完了。", False), ("done `x`", False), ("and then", True), ("and,", True), ("1.2 or 3", True),
     ("f(", True), ("", False), ("done:", False), ("done...", False), ("\U0001f600", False)],
)  # fmt: skip
def test_a_text_breaks_off_after_a_letter_a_digit_a_comma_or_an_open_bracket(
    ending: str, broken: bool
) -> None:
    assert breaks_off(ending) is broken


@pytest.mark.parametrize("role", [True, False])
def test_turns_that_run_on_may_lack_a_stop_and_a_roles_name_at_the_beginning_may_not(
    role: bool,
) -> None:
    result = Result("", "")
    draw = random.Random(0)
    begin = "Assistant: " if role else ""
    texts = [f"{begin}{text(draw, 20)}\n\nHuman: And then?\n\nAssistant: Yes." for _ in range(20)]
    check_texts(result, [StoredOutput(str(k), t) for k, t in enumerate(texts)])
    message = next(f.message for f in result.findings if f.kind == "prompt_mismatch")
    assert ("or it was not stopped" in message) is not role
