"""The recorder between another package's OpenAI client and a scripted server."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from harness.errors import HarnessError, InputError
from harness.llm import faults
from harness.llm.recorder import DUMMY_KEY, SKIP, Recorder
from tests.llm.fake_server import Answer, FakeServer, ask, completion, failure, last_message


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FIRST_BACKOFF_S", 0.01)


def echo(body: dict[str, Any], seen: int) -> Answer:
    return "re: " + last_message(body)


def package(recorder: Recorder) -> openai.OpenAI:
    """The kind of client that a package makes for itself."""
    return openai.OpenAI(base_url=recorder.base_url, api_key=DUMMY_KEY, max_retries=0)


def test_a_packages_calls_are_recorded_with_the_real_key_and_not_paid_for_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-real")
    told: list[str] = []
    with FakeServer(echo) as server:
        for _ in range(2):
            with Recorder(
                server.endpoint(api_key_env="MY_KEY"),
                tmp_path / "t.jsonl",
                on_call=lambda reply: told.append(reply.text),
            ) as recorder:
                reply = package(recorder).chat.completions.create(
                    model="m", messages=ask("hi")["messages"], temperature=0
                )
                assert reply.choices[0].message.content == "re: hi"
                assert reply.model == "served-1"
        assert len(server.requests) == 1
        assert server.keys == ["Bearer sk-real"]
        assert server.requests[0] == {"model": "m", **ask("hi"), "temperature": 0}
    assert told == ["re: hi"] * 2
    assert recorder.error is None
    assert recorder.client.cost()["calls"] == 1
    [record] = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert record["request"]["body"] == {**ask("hi"), "temperature": 0}


def test_faults_upstream_are_retried_by_the_recorder_not_by_the_package(tmp_path: Path) -> None:
    with (
        FakeServer(lambda body, seen: failure(500) if seen < 3 else "fine") as server,
        Recorder(server.endpoint(), tmp_path / "t.jsonl") as recorder,
    ):
        reply = package(recorder).chat.completions.create(model="m", messages=ask("x")["messages"])
    assert reply.choices[0].message.content == "fine"
    assert len(server.requests) == 4


def test_threads_of_a_package_share_the_endpoints_limit(tmp_path: Path) -> None:
    with (
        FakeServer(echo, delay_s=0.02) as server,
        Recorder(server.endpoint(concurrency=3), tmp_path / "t.jsonl") as recorder,
        ThreadPoolExecutor(10) as pool,
    ):
        client = package(recorder)

        def one(i: int) -> str | None:
            messages = ask(str(i))["messages"]
            return (
                client.chat.completions.create(model="m", messages=messages)
                .choices[0]
                .message.content
            )

        assert list(pool.map(one, range(20))) == [f"re: {i}" for i in range(20)]
        assert server.most_in_flight == 3


@pytest.mark.parametrize(
    ("answer", "budget", "error", "said"),
    [
        (lambda: failure(401, "bad key"), None, InputError, "bad key"),
        (lambda: "fine", {"calls": 0}, HarnessError, "budget of 0 calls"),
        (lambda: failure(500), None, HarnessError, "no answer in 2 attempts"),
    ],
)
def test_after_a_failure_every_request_is_refused_at_once_and_the_cause_is_kept(
    tmp_path: Path,
    answer: Callable[[], Answer],
    budget: dict[str, int | None] | None,
    error: type[HarnessError],
    said: str,
) -> None:
    with (
        FakeServer(lambda body, seen: answer()) as server,
        Recorder(server.endpoint(max_attempts=2), tmp_path / "t.jsonl", budget) as recorder,
    ):
        asked = []
        for text in ("x", "y"):
            with pytest.raises(openai.BadRequestError, match="its own message says why") as caught:
                package(recorder).chat.completions.create(model="m", messages=ask(text)["messages"])
            # alpaca-eval asks again, ten times, where an error's text has this in it.
            assert "rate " not in str(caught.value)
            asked.append(len(server.requests))
        assert asked[0] == asked[1]
        assert isinstance(recorder.error, error)
        assert said in recorder.error.message


def test_a_declined_prompt_is_refused_alone(tmp_path: Path) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        bad = last_message(body) == "bad"
        return failure(400, "filtered", code="content_filter") if bad else "fine"

    with (
        FakeServer(script) as server,
        Recorder(server.endpoint(), tmp_path / "t.jsonl") as recorder,
    ):
        create = package(recorder).chat.completions.create
        with pytest.raises(openai.BadRequestError, match=SKIP):
            create(model="m", messages=ask("bad")["messages"])
        assert create(model="m", messages=ask("x")["messages"]).choices[0].message.content == "fine"
        assert recorder.error is None


def test_a_request_for_another_model_is_not_passed_on(tmp_path: Path) -> None:
    with (
        FakeServer(echo) as server,
        Recorder(server.endpoint(), tmp_path / "t.jsonl") as recorder,
    ):
        with pytest.raises(openai.BadRequestError):
            package(recorder).chat.completions.create(model="gpt-4", messages=ask("x")["messages"])
        assert server.requests == []
        assert recorder.error is not None
        assert "'gpt-4' in place of 'm'" in recorder.error.message


def test_a_server_without_usage_does_not_break_the_package(tmp_path: Path) -> None:
    raw = completion("x")
    del raw["usage"]
    with (
        FakeServer(lambda body, seen: web.json_response(raw)) as server,
        Recorder(server.endpoint(), tmp_path / "t.jsonl") as recorder,
    ):
        reply = package(recorder).chat.completions.create(model="m", messages=ask("x")["messages"])
    assert reply.usage is not None
    assert reply.usage.total_tokens == 0
    assert recorder.client.cost()["prompt_tokens"] == 0


def test_a_missing_key_is_raised_where_the_recorder_is_entered(tmp_path: Path) -> None:
    with FakeServer(echo) as server:
        recorder = Recorder(server.endpoint(api_key_env="NOT_SET"), tmp_path / "t.jsonl")
        with pytest.raises(InputError, match="NOT_SET is not set"), recorder:
            pass
    assert not any(thread.name == "recorder" for thread in threading.enumerate())


def test_batches_are_refused_for_a_packages_calls(tmp_path: Path) -> None:
    with FakeServer(echo) as server:
        with pytest.raises(InputError, match="mode: batch does not go with m") as caught:
            Recorder(server.endpoint(mode="batch"), tmp_path / "t.jsonl")
        assert server.requests == []
    assert "mode: live" in caught.value.hint


def test_a_packages_calls_have_a_price(tmp_path: Path) -> None:
    price = {"prompt": 1000.0, "completion": 2000.0, "batch_share": 0.5, "dated": "2026-01-01"}
    with (
        FakeServer(echo) as server,
        Recorder(server.endpoint(), tmp_path / "t.jsonl", {"usd": 5.0}, price=price) as recorder,
    ):
        package(recorder).chat.completions.create(model="m", messages=ask("x")["messages"])
    assert recorder.client.cost()["usd"] == pytest.approx(0.02)
