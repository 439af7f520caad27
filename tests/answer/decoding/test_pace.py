"""How far the answers are: no guess before there is ground for one, and then one from tokens."""

from typing import Any

import pytest

from harness.answer.decoding.pace import ENOUGH_ENDED, Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("harness.answer.decoding.pace.time.monotonic", lambda: now[0])
    return now


def test_nothing_is_guessed_before_enough_answers_have_ended(clock: list[float]) -> None:
    pace = Pace(dict.fromkeys(range(700), 100))
    clock[0] += 10
    expected: dict[str, Any] = {"tokens": 0, "tokens_per_second": None, "seconds_left": None}
    assert pace.info({}) == expected
    for index in range(ENOUGH_ENDED - 1):
        pace.end(index, 20)
    making = dict.fromkeys(range(50, 60), 30)
    told = pace.info(making)
    made = 20 * (ENOUGH_ENDED - 1) + 300
    assert told == {"tokens": made, "tokens_per_second": made // 10, "seconds_left": None}
    assert pace.tokens == 20 * (ENOUGH_ENDED - 1)


def test_what_is_left_is_guessed_from_the_tokens_of_all_answers(clock: list[float]) -> None:
    pace = Pace(dict.fromkeys(range(110), 1000))
    for index in range(10):
        pace.end(index, 40)
    clock[0] += 10
    # 40 tokens a second; 100 answers of 40 tokens are to come.
    assert pace.info({})["seconds_left"] == 100
    # Those under way count as well: (400 + 600) / 10 tokens an answer, at 100 a second.
    assert pace.info(dict.fromkeys(range(10, 20), 60))["seconds_left"] == 100 * 100 / 100


def test_no_answer_is_expected_to_go_past_its_limit(clock: list[float]) -> None:
    pace = Pace(dict.fromkeys(range(10), 500) | {10: 20, 11: 100})
    for index in range(10):
        pace.end(index, 100)
    clock[0] += 10
    told = pace.info({11: 90})
    # 20 and the last 10, at 109 tokens a second.
    assert told["seconds_left"] == round(30 / 109)
    assert Pace({0: 5}).info({0: 1})["seconds_left"] is None
