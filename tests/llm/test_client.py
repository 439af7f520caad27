"""The client against a scripted server: what is retried, what is not, what is paid for."""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
import tracemalloc
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.common.numbers import dollars
from harness.errors import HarnessError, InputError
from harness.llm import faults
from harness.llm.client import Client
from harness.llm.reply import Reply
from harness.llm.transcript import CALL_ROOM, Transcript, digest_of
from harness.sim.replies import teacher
from harness.sim.server import start
from harness.spec.base import Endpoint, Simulated
from tests.helpers import read_jsonl
from tests.llm.fake_server import (
    Answer,
    FakeServer,
    ask,
    call,
    completion,
    echo,
    failure,
    hang,
    last_message,
)

pytestmark = pytest.mark.usefixtures("short_waits")


def cut_json() -> web.Response:
    whole = json.dumps(completion("whole"))
    return web.Response(text=whole[: len(whole) // 2], content_type="application/json")


def choice_error(error: Any, finish_reason: str = "error") -> web.Response:
    """As OpenRouter tells what went wrong behind it once the reply had begun."""
    body = completion("The capital", finish_reason=finish_reason)
    body["choices"][0] |= {"error": error, "native_finish_reason": "error"}
    return web.json_response(body)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (lambda: failure(408), "408"),
        (lambda: failure(409), "409"),
        (lambda: failure(425), "425"),
        (lambda: failure(429), "429"),
        (lambda: failure(500), "500"),
        (lambda: failure(503), "503"),
        (lambda: failure(529), "529"),
        (lambda: None, "no connection (ServerDisconnectedError)"),
        (cut_json, "200, but not JSON"),
        (lambda: web.Response(text="<html>", content_type="text/html"), "200, but not JSON"),
        (lambda: web.Response(text=""), "200, but not JSON: an empty body"),
        (lambda: web.json_response("text"), "200, but no choices"),
        (lambda: web.json_response({"error": {"message": "busy"}}), "200, but an error: busy"),
        (lambda: web.json_response({"error": {"code": 502}}), "200, but an error: no reason given"),
        (lambda: web.json_response({"error": "down", "choices": []}), "200, but an error: down"),
        (
            lambda: web.json_response(completion("", finish_reason="error")),
            "200, but an error: no reason given",
        ),
        (lambda: choice_error({"code": 502, "message": "cut"}), "200, but an error: cut"),
        (lambda: choice_error({"code": 400, "message": "Provider"}), "200, but an error: Provider"),
        (lambda: choice_error("lost", finish_reason="stop"), "200, but an error: lost"),
        (
            lambda: web.json_response({"choices": [{"message": None, "finish_reason": "stop"}]}),
            "200, but no message",
        ),
        (lambda: web.json_response({"choices": []}), "200, but no choices"),
        (lambda: web.json_response({"choices": [{"text": "x"}]}), "200, but no message"),
        (
            lambda: web.json_response(
                {"choices": [{"message": {"content": "", "error": {"message": "upstream"}}}]}
            ),
            "200, but an error: upstream",
        ),
        (
            lambda: web.json_response(
                {"choices": [{"message": {"content": ""}, "native_finish_reason": "error"}]}
            ),
            "200, but an error: no reason given",
        ),
        (
            lambda: web.json_response({"choices": [{"message": {"content": {"text": "x"}}}]}),
            "200, but no text in its message",
        ),
        (hang, "timeout"),
    ],
)
def test_a_passing_fault_is_retried_and_noted(tmp_path: Path, fault: Any, outcome: str) -> None:
    with FakeServer(lambda body, seen: fault() if seen == 0 else "fine") as server:
        _, [reply] = call(server.endpoint(timeout_s=0.3), tmp_path / "t.jsonl", [ask("x")])
    assert reply.text == "fine"
    [record] = read_jsonl(tmp_path / "t.jsonl")
    first, second = record["attempts"]
    assert first["outcome"].startswith(outcome)
    assert 0 < first["waited"] < 0.1
    assert second["outcome"] == "200"
    assert "waited" not in second
    assert record["ok"]


@pytest.mark.parametrize(
    "asked",
    ["0.4", formatdate(time.time() + 3600, usegmt=True), "600"],
    ids=["seconds", "date", "longer than the cap"],  # a date's own text differs between processes
)
def test_retry_after_is_honoured_up_to_a_cap(
    tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "LONGEST_RETRY_AFTER_S", 0.5)
    refuse_once = failure(429, Retry_After=asked)
    with FakeServer(lambda body, seen: refuse_once if seen == 0 else "fine") as server:
        started = time.monotonic()
        call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
    waited = read_jsonl(tmp_path / "t.jsonl")[0]["attempts"][0]["waited"]
    assert waited == (0.4 if asked == "0.4" else 0.5)
    assert time.monotonic() - started >= waited


def test_without_a_usable_retry_after_the_waits_grow(tmp_path: Path) -> None:
    with FakeServer(
        lambda body, seen: failure(503, Retry_After="soon") if seen < 4 else "fine"
    ) as server:
        call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
    waits = [a["waited"] for a in read_jsonl(tmp_path / "t.jsonl")[0]["attempts"][:4]]
    for number, waited in enumerate(waits):
        assert 0.005 * 2**number <= waited <= 0.01 * 2**number + 0.001


def test_a_call_that_fails_for_good_is_recorded_and_asked_again_next_time(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(lambda body, seen: failure(500) if seen < 3 else "fine") as server:
        endpoint = server.endpoint(max_attempts=3)
        with pytest.raises(HarnessError, match=r"no answer in 3 attempts; the last: 500") as caught:
            call(endpoint, transcript, [ask("x")])
        assert caught.value.exit_code == 1
        [record] = read_jsonl(transcript)
        assert not record["ok"]
        assert len(record["attempts"]) == 3
        client, [reply] = call(endpoint, transcript, [ask("x")])
    assert (reply.text, reply.reused) == ("fine", False)
    assert [r["ok"] for r in read_jsonl(transcript)] == [True, False]
    assert client.cost() == {
        "calls": 1,
        "attempts": 4,
        "prompt_tokens": 10,
        "completion_tokens": 5,
    }


def test_a_server_that_is_not_there_is_a_clear_failure(tmp_path: Path) -> None:
    endpoint = Endpoint(model="m", base_url="http://127.0.0.1:9/v1", max_attempts=2)
    with pytest.raises(HarnessError, match="no connection"):
        call(endpoint, tmp_path / "t.jsonl", [ask("x")])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (failure(401, "bad key"), r"does not accept the key in MY_KEY \(401: bad key\)"),
        (failure(403), "does not accept the key in MY_KEY"),
        (failure(404, "no such model"), r"does not know the model 'm' \(404: no such model\)"),
        (failure(400, "Unsupported parameter: 'top_k'"), "Unsupported parameter: 'top_k'"),
        (web.Response(status=405, text="<p>no</p>"), r"\(405: <p>no</p>\)"),
    ],
)
def test_a_fault_in_the_set_up_ends_at_once(
    tmp_path: Path, answer: Answer, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-value")
    with FakeServer(lambda body, seen: answer) as server:
        endpoint = server.endpoint(api_key_env="MY_KEY", concurrency=1)
        with pytest.raises(InputError, match=said) as caught:
            call(endpoint, tmp_path / "t.jsonl", [ask("x"), ask("y")])
        assert len(server.requests) == 1
    assert server.base_url in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_an_account_without_credit_is_not_asked_again(tmp_path: Path) -> None:
    broke = failure(429, "quota", code="insufficient_quota")
    with FakeServer(lambda body, seen: broke) as server:
        with pytest.raises(HarnessError, match="no credit"):
            call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
        assert len(server.requests) == 1


def test_a_declined_prompt_is_an_answer_without_text_and_not_asked_again(tmp_path: Path) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        bad = last_message(body) == "bad"
        return failure(400, "filtered", code="content_filter") if bad else "fine"

    with FakeServer(script) as server:
        for reused in (False, True):
            _, replies = call(server.endpoint(), tmp_path / "t.jsonl", [ask("bad"), ask("good")])
            assert [(r.text, r.finish_reason, r.reused) for r in replies] == [
                ("", "refused", reused),
                ("fine", "stop", reused),
            ]
        assert len(server.requests) == 2


TOO_LONG = json.loads(Path(__file__).with_name("too_long.json").read_text(encoding="utf-8"))
"""What servers answer to a prompt that is too long for them."""


@pytest.mark.parametrize("server_name", TOO_LONG)
def test_a_prompt_that_is_too_long_is_declined_whatever_the_server_says_and_the_rest_is_asked(
    tmp_path: Path, server_name: str
) -> None:
    status, body = TOO_LONG[server_name]["status"], TOO_LONG[server_name]["body"]

    def script(asked: dict[str, Any], seen: int) -> Answer:
        if last_message(asked) != "long":
            return "fine"
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status, content_type="application/json")

    with FakeServer(script) as server:
        bodies = [ask("long", max_tokens=50), ask("short", max_tokens=50)]
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies)
        assert [(r.text, r.finish_reason) for r in replies] == [("", "refused"), ("fine", "stop")]
        assert len(server.requests) == 2
    [why] = [
        r["response"]["error"] for r in read_jsonl(tmp_path / "t.jsonl") if "error" in r["response"]
    ]
    assert why["reason"] == "too_long"
    assert why["message"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            429,
            "Rate limit reached on tokens per min (TPM): Limit 30000, Used 29000. Try again in 6s.",
        ),
        (
            429,
            "This request would exceed the rate limit. Please reduce the prompt length or try later.",
        ),
        (503, "The model is loading"),
    ],
)
def test_a_servers_rush_is_not_taken_for_a_prompt_that_is_too_long(
    tmp_path: Path, status: int, message: str
) -> None:
    with FakeServer(lambda body, seen: failure(status, message) if seen == 0 else "fine") as server:
        _, [reply] = call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
    assert reply.text == "fine"


def test_a_limit_that_leaves_no_prompt_any_room_is_a_fault_of_the_spec_and_of_no_prompt(
    tmp_path: Path,
) -> None:
    message = (
        "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context "
        "length is 4096 tokens and your request has 20 input tokens (5000 > 4096 - 20)."
    )
    with (
        FakeServer(lambda body, seen: failure(400, message)) as server,
        pytest.raises(InputError, match="5000 > 4096"),
    ):
        call(server.endpoint(), tmp_path / "t.jsonl", [ask("x", max_tokens=5000)])


def test_a_choice_that_a_filter_kept_back_is_declined_and_not_asked_again(tmp_path: Path) -> None:
    kept_back = {
        "model": "served-1",
        "choices": [{"index": 0, "finish_reason": "content_filter", "message": None}],
    }
    with FakeServer(lambda body, seen: web.json_response(kept_back)) as server:
        _, [reply] = call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
        assert len(server.requests) == 1
    assert (reply.text, reply.is_declined, reply.why) == ("", True, "content_filter")


def test_a_provider_without_credit_or_with_a_wrong_key_ends_at_once_inside_a_200_too(
    tmp_path: Path,
) -> None:
    for code, said in ((402, "no credit"), (401, "wants a key")):
        answer = web.json_response({"error": {"code": code, "message": "no"}})
        with FakeServer(lambda body, seen, answer=answer: answer) as server:  # type: ignore[misc]
            with pytest.raises(HarnessError, match=said):
                call(server.endpoint(), tmp_path / f"{code}.jsonl", [ask("x")])
            assert len(server.requests) == 1


def test_a_providers_error_that_a_transcript_holds_as_an_answer_is_asked_again(
    tmp_path: Path,
) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(echo) as server:
        call(server.endpoint(), transcript, [ask("x")])
        [record] = read_jsonl(transcript)
        failed = completion("", finish_reason="error")
        transcript.write_text(json.dumps(record | {"response": failed}) + "\n")
        with pytest.raises(HarnessError, match="failed when it was made"):
            call(server.endpoint(), transcript, [ask("x")], replay=True)
        _, [reply] = call(server.endpoint(), transcript, [ask("x")])
    assert (reply.text, reply.reused) == ("re: x", False)


UNSUPPORTED = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
    "instead."
)


def test_a_model_that_knows_another_limit_is_sent_it_under_that_name(tmp_path: Path) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        if "max_tokens" in body:
            return failure(400, UNSUPPORTED, code="unsupported_parameter")
        return str(body["max_completion_tokens"])

    transcript = tmp_path / "t.jsonl"
    with FakeServer(script) as server:
        with pytest.raises(InputError) as caught:
            call(server.endpoint(), transcript, [ask("x", max_tokens=7)])
        assert "token_limit: max_completion_tokens" in caught.value.hint
        assert "max_new_tokens: null" in caught.value.hint
        endpoint = server.endpoint(token_limit="max_completion_tokens")
        _, [reply] = call(endpoint, transcript, [ask("x", max_tokens=7)])
        assert reply.text == "7"
        assert "max_tokens" not in server.requests[-1]
    # What it is called there does not make it another call.
    _, [reply] = call(server.endpoint(), transcript, [ask("x", max_tokens=7)], replay=True)
    assert reply.text == "7"


def test_a_parameter_that_a_model_does_not_take_is_named_with_the_way_to_leave_it_out(
    tmp_path: Path,
) -> None:
    message = (
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1)"
    )
    with (
        FakeServer(lambda body, seen: failure(400, message, code="unsupported_value")) as server,
        pytest.raises(InputError) as caught,
    ):
        call(server.endpoint(), tmp_path / "t.jsonl", [ask("x", temperature=0)])
    assert "temperature: null" in caught.value.hint


def test_an_answered_call_is_not_paid_for_twice(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(echo) as server:
        call(server.endpoint(), transcript, [ask("a"), ask("b")])
        client, replies = call(server.endpoint(), transcript, [ask("c"), ask("b"), ask("a")])
        assert [last_message(r) for r in server.requests[2:]] == ["c"]
    assert [(r.text, r.reused) for r in replies] == [
        ("re: c", False),
        ("re: b", True),
        ("re: a", True),
    ]
    assert client.cost()["calls"] == 3
    assert [last_message(r["request"]["body"]) for r in read_jsonl(transcript)] == ["c", "b", "a"]


def test_another_model_server_or_sampling_is_another_call(tmp_path: Path) -> None:
    with FakeServer(echo) as server, FakeServer(echo) as other:
        for endpoint, body in [
            (server.endpoint(), ask("a")),
            (server.endpoint(model="n"), ask("a")),
            (other.endpoint(), ask("a")),
            (server.endpoint(), ask("a", temperature=1.0)),
        ]:
            _, [reply] = call(endpoint, tmp_path / "t.jsonl", [body])
            assert not reply.reused


def test_how_a_call_is_made_does_not_make_it_another_call(tmp_path: Path) -> None:
    with FakeServer(echo) as server:
        call(server.endpoint(), tmp_path / "t.jsonl", [{"top_p": 1.0, **ask("a")}])
        changed = server.endpoint(concurrency=3, timeout_s=5, max_attempts=2)
        _, [reply] = call(changed, tmp_path / "t.jsonl", [ask("a", top_p=1.0)])
    assert reply.reused


def test_repeated_requests_keep_their_own_replies(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(lambda body, seen: f"answer {seen}") as server:
        _, first = call(server.endpoint(concurrency=1), transcript, [ask("a"), ask("a")])
        _, second = call(server.endpoint(), transcript, [ask("a"), ask("a"), ask("a")])
    assert [r.text for r in first] == ["answer 0", "answer 1"]
    assert [r.text for r in second] == ["answer 0", "answer 1", "answer 2"]
    assert [r["occurrence"] for r in read_jsonl(transcript)] == [0, 1, 2]


def test_replies_and_transcript_follow_the_order_of_asking(tmp_path: Path) -> None:
    def slow_first(body: dict[str, Any], seen: int) -> Answer:
        # The earlier asked, the more attempts it takes.
        return failure(500) if seen < 3 - int(last_message(body)) // 4 else last_message(body)

    bodies = [ask(str(i)) for i in range(12)]
    with FakeServer(slow_first) as server:
        arrived: list[int] = []

        async def run() -> list[Reply]:
            async with Client(server.endpoint(), tmp_path / "t.jsonl") as client:
                return await client.gather(bodies, lambda index, reply: arrived.append(index))

        replies = asyncio.run(run())
    assert arrived != sorted(arrived)
    assert sorted(arrived) == list(range(12))
    assert [r.text for r in replies] == [str(i) for i in range(12)]
    in_file = [last_message(r["request"]["body"]) for r in read_jsonl(tmp_path / "t.jsonl")]
    assert in_file == [str(i) for i in range(12)]


def test_no_more_calls_than_the_limit_are_in_flight(tmp_path: Path) -> None:
    with FakeServer(echo, delay_s=0.02) as server:
        call(server.endpoint(concurrency=4), tmp_path / "t.jsonl", [ask(str(i)) for i in range(20)])
        assert server.most_in_flight == 4


def test_a_failure_lets_the_calls_in_flight_be_recorded_and_begins_no_more(tmp_path: Path) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        return failure(401) if last_message(body) == "0" else "fine"

    with FakeServer(script, delay_s=0.05) as server:
        with pytest.raises(InputError):
            call(
                server.endpoint(concurrency=3),
                tmp_path / "t.jsonl",
                [ask(str(i)) for i in range(50)],
            )
        asked = len(server.requests)
    assert asked <= 5
    assert len(read_jsonl(tmp_path / "t.jsonl")) == asked
    assert sum(r["ok"] for r in read_jsonl(tmp_path / "t.jsonl")) == asked - 1


def test_a_record_holds_the_request_the_response_and_what_it_took(tmp_path: Path) -> None:
    with FakeServer(lambda body, seen: web.json_response(completion("hi", extra=[1]))) as server:
        client, _ = call(server.endpoint(), tmp_path / "t.jsonl", [ask("ü", seed=1)])
    [record] = read_jsonl(tmp_path / "t.jsonl")
    assert record["request"] == {
        "kind": "chat",
        "model": "m",
        "body": ask("ü", seed=1),
        "endpoint": server.base_url,
    }
    assert record["digest"] == digest_of(record["request"])
    assert record["response"] == completion("hi", extra=[1])
    assert record["served_model"] == "served-1"
    assert record["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert record["started"].endswith("+00:00")
    assert record["seconds"] >= record["attempts"][0]["seconds"] > 0
    assert client.served_models == ["served-1"]
    assert server.requests == [{"model": "m", **ask("ü", seed=1)}]


def test_a_text_completion_is_a_call_of_its_own_kind(tmp_path: Path) -> None:
    async def run() -> Reply:
        async with Client(server.endpoint(), tmp_path / "t.jsonl") as client:
            [reply] = await client.gather([{"prompt": "once"}], kind="completion")
            return reply

    with FakeServer(lambda body, seen: body["prompt"] + " more") as server:
        assert asyncio.run(run()).text == "once more"
    assert read_jsonl(tmp_path / "t.jsonl")[0]["request"]["kind"] == "completion"


def test_the_key_comes_from_the_variable_or_the_file_and_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-from-file\n")
    monkeypatch.setenv("MY_KEY_FILE", str(secret))

    def leaky(body: dict[str, Any], seen: int) -> Answer:
        if last_message(body) == "fail":
            return failure(401, f"Incorrect API key provided: {key}")
        return f"your key is {key}"

    transcript = tmp_path / "t.jsonl"
    with FakeServer(leaky) as server:
        endpoint = server.endpoint(api_key_env="MY_KEY")
        key = "sk-from-file"
        call(endpoint, transcript, [ask("file")])
        monkeypatch.setenv("MY_KEY", "sk-from-the-env")
        key = "sk-from-the-env"
        call(endpoint, transcript, [ask("env")])
        with pytest.raises(InputError) as caught:
            call(endpoint, transcript, [ask("fail")])
        assert server.keys == [
            "Bearer sk-from-file",
            "Bearer sk-from-the-env",
            "Bearer sk-from-the-env",
        ]
    assert "sk-from" not in transcript.read_text()
    assert "sk-from" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "file", "said"),
    [
        (None, None, "MY_KEY is not set"),
        ("  ", None, "MY_KEY is not set"),
        (None, "missing", "MY_KEY_FILE names.*cannot be read"),
        (None, "empty", "is empty"),
        ("two words", None, "MY_KEY holds cannot be a key"),
        ("schlüssel", None, "MY_KEY holds cannot be a key"),
    ],
)
def test_an_unusable_key_is_found_before_any_call(
    tmp_path: Path,
    value: str | None,
    file: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").write_text("\n")
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    if file is not None:
        monkeypatch.setenv("MY_KEY_FILE", str(tmp_path / file))
    with FakeServer(echo) as server:
        with pytest.raises(InputError, match=said):
            call(server.endpoint(api_key_env="MY_KEY"), tmp_path / "t.jsonl", [ask("x")])
        assert server.requests == []


def test_openai_and_proxy_variables_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer other")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with FakeServer(echo) as server:
        call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
        assert server.keys == ["Bearer none"]
    assert os.environ["OPENAI_API_KEY"] == "sk-of-somebody"


def test_without_a_base_url_it_is_openai_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    async def run() -> str:
        async with Client(Endpoint(model="m"), tmp_path / "t.jsonl") as client:
            return str(client._line.sdk.base_url)

    assert asyncio.run(run()) == "https://api.openai.com/v1/"


def unchecked(url: str) -> Endpoint:
    """An endpoint that the spec's own check has not seen."""
    return Endpoint(model="m").model_copy(update={"base_url": url})


def test_a_base_url_that_is_none_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'localhost:8000' is not a URL"):
        call(unchecked("localhost:8000"), tmp_path / "t.jsonl", [ask("x")])


def test_a_password_in_the_base_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    endpoint = unchecked("https://me:hunter2@example.org/v1")
    with pytest.raises(InputError, match="user name or a password") as caught:
        call(endpoint, tmp_path / "t.jsonl", [ask("x")])
    assert "hunter2" not in str(caught.value)


def test_the_budget_stops_before_the_call_that_would_pass_it_and_a_higher_one_goes_on(
    tmp_path: Path,
) -> None:
    transcript, bodies = tmp_path / "t.jsonl", [ask(str(i)) for i in range(10)]
    with FakeServer(echo, delay_s=0.01) as server:
        for limit in (4, 6):
            with pytest.raises(HarnessError, match=f"budget of {limit} calls is used up") as caught:
                call(server.endpoint(concurrency=3), transcript, bodies, {"calls": limit})
            assert len(server.requests) == limit == sum(r["ok"] for r in read_jsonl(transcript))
        assert f"{limit} calls and {15 * limit} tokens" in caught.value.message
        assert "budget.calls" in caught.value.hint
        call(server.endpoint(), transcript, bodies, {"calls": 10, "tokens": None})
        assert len(server.requests) == 10
        call(server.endpoint(), transcript, bodies, {"calls": 0})
        assert len(server.requests) == 10


def test_the_token_budget_is_never_passed_and_not_stopped_short_by_calls_in_flight(
    tmp_path: Path,
) -> None:
    # A call takes 15 tokens, and is let through while 8 for the reply and half its bytes are left.
    bodies = [ask(f"{i:02}", max_tokens=8) for i in range(40)]
    size = len(json.dumps(bodies[0]).encode())
    limit = 300
    with FakeServer(echo, delay_s=0.005) as server:
        with pytest.raises(HarnessError, match="would pass the budget of 300 tokens"):
            call(server.endpoint(), tmp_path / "t.jsonl", bodies, {"tokens": limit})
        used = 15 * len(server.requests)
    assert used <= limit
    assert used + 8 + size / 2 > limit


def test_a_line_that_its_writer_did_not_finish_is_dropped(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(echo) as server:
        call(server.endpoint(), transcript, [ask("a"), ask("b")])
        whole = transcript.read_bytes()
        for cut in (1, 40, len(whole.splitlines()[1])):
            transcript.write_bytes(whole[:-cut])
            before = len(server.requests)
            _, replies = call(server.endpoint(), transcript, [ask("a"), ask("b")])
            assert [r.reused for r in replies] == [True, False]
            assert len(server.requests) == before + 1
            assert len(read_jsonl(transcript)) == 2


def test_a_damaged_line_in_the_middle_is_reported_with_its_place(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(echo) as server:
        call(server.endpoint(), transcript, [ask("a"), ask("b")])
        lines = transcript.read_text().splitlines()
        transcript.write_text("\n".join([lines[0][:50], lines[1], ""]))
        with pytest.raises(InputError, match=r"t\.jsonl:1: this line is not a transcript record"):
            call(server.endpoint(), transcript, [ask("a"), ask("b")])


def test_a_full_disk_is_one_clear_message_and_leaves_whole_records(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FakeServer(echo) as server:
        call(server.endpoint(), transcript, [ask("a")])
        room = transcript.stat().st_size + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited[1]))
        try:
            with pytest.raises(HarnessError, match=r"t\.jsonl cannot be written: File too large"):
                call(server.endpoint(), transcript, [ask("a"), ask("b")])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert len(read_jsonl(transcript)) == 1
        _, replies = call(server.endpoint(), transcript, [ask("a"), ask("b")])
    assert [r.reused for r in replies] == [True, False]


def test_what_is_in_flight_when_the_disk_is_full_is_kept_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript, write = tmp_path / "t.jsonl", Transcript._write
    spare, asked = tmp_path / "t.jsonl.spare", [ask(str(n)) for n in range(12)]

    def full(self: Transcript, line: bytes) -> None:
        if spare.exists():
            assert spare.stat().st_size == 4 * CALL_ROOM
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, line)

    monkeypatch.setattr(Transcript, "_write", full)
    with FakeServer(echo) as server:
        with pytest.raises(HarnessError, match=r"t\.jsonl cannot be written: No space left"):
            call(server.endpoint(concurrency=4), transcript, asked)
        assert not spare.exists()
        assert len(server.requests) == len(read_jsonl(transcript)) in range(1, 12)
        monkeypatch.undo()
        call(server.endpoint(concurrency=4), transcript, asked)
        assert len(server.requests) == 12
    assert list(tmp_path.iterdir()) == [transcript]


@pytest.mark.parametrize("simulated", [True, False])
def test_a_reply_that_says_it_is_simulated_marks_the_client(
    tmp_path: Path, simulated: bool
) -> None:
    extra = {"simulated": True} if simulated else {}
    with FakeServer(lambda body, seen: web.json_response(completion("x", **extra))) as server:
        for _ in range(2):
            client, [reply] = call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
            assert client.simulated is reply.simulated is simulated


def test_a_simulated_endpoint_is_started_closed_and_known_again(tmp_path: Path) -> None:
    endpoint = Endpoint(model="m", simulated=Simulated(seed=3), api_key_env="NOT_SET")
    client, [first] = call(endpoint, tmp_path / "t.jsonl", [ask("hello")])
    _, [second] = call(endpoint, tmp_path / "t.jsonl", [ask("hello")])
    assert client.simulated
    assert (first.simulated, first.reused, second.reused) == (True, False, True)
    assert first.text == second.text != ""


INTERRUPTED_PROGRAM = """
    import asyncio, signal, sys
    from pathlib import Path
    from harness import stage
    from harness.llm import interrupts
    from harness.llm.client import Client
    from harness.spec.base import Endpoint

    async def run():
        endpoint = Endpoint(model="m", base_url=sys.argv[1], concurrency=8)
        async with Client(endpoint, Path(sys.argv[2])) as client:
            bodies = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(40)]
            await client.gather(bodies)

    if sys.argv[3] == "as a stage":
        signal.signal(signal.SIGINT, stage._interrupt)
    interrupts.GRACE_S = float(sys.argv[4])
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        sys.exit(130)
"""


def interrupted(
    server: FakeServer, transcript: Path, how: str, grace_s: float, signals: int = 1
) -> str:
    """What a program said that made eight calls at once and was interrupted."""
    arguments = [server.base_url, str(transcript), how, str(grace_s)]
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED_PROGRAM), *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    before = len(server.requests)
    while len(server.requests) < before + 8 and child.poll() is None:
        time.sleep(0.01)
    for _ in range(signals):
        child.send_signal(signal.SIGINT)
        time.sleep(0.1)
    said = child.communicate(timeout=10)[0]
    assert child.returncode == 130
    return said


HOW = pytest.mark.parametrize("how", ["as a stage", "by itself"])


@HOW
def test_calls_in_flight_at_an_interrupt_are_answered_and_not_paid_for_again(
    tmp_path: Path, how: str
) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(echo, delay_s=0.5) as server:
        for _ in range(2):
            said = interrupted(server, transcript, how, grace_s=9)
        assert "the 8 calls in flight are awaited for up to 9 s" in said
        assert len(server.requests) == 16 == sum(r["ok"] for r in read_jsonl(transcript))
        call(server.endpoint(concurrency=40), transcript, [ask(str(i)) for i in range(40)])
        assert len(server.requests) == 40


@HOW
@pytest.mark.parametrize(("grace_s", "signals"), [(0.2, 1), (9, 2)])
def test_calls_dropped_by_the_end_of_the_grace_or_a_second_interrupt_count_as_calls(
    tmp_path: Path, how: str, grace_s: float, signals: int
) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(lambda body, seen: hang(), delay_s=0) as server:
        started = time.monotonic()
        interrupted(server, transcript, how, grace_s, signals)
        assert time.monotonic() - started < 8
    dropped = read_jsonl(transcript)
    assert [[a["outcome"] for a in r["attempts"]] for r in dropped] == [["interrupted"]] * 8
    assert not any(r["ok"] for r in dropped)
    asked = [ask(str(i)) for i in range(40)]
    endpoint = Endpoint(model="m", base_url=server.base_url)
    with pytest.raises(HarnessError, match="budget of 8 calls is used up: 8 calls and"):
        call(endpoint, transcript, asked, {"calls": 8})


def test_an_interrupt_begins_no_further_attempt(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(lambda body, seen: failure(500), delay_s=0.5) as server:
        interrupted(server, transcript, "as a stage", grace_s=2)
        assert len(server.requests) == 8
    assert [a["outcome"] for r in read_jsonl(transcript) for a in r["attempts"]] == ["500"] * 8


def test_usage_that_is_no_count_counts_as_nothing(tmp_path: Path) -> None:
    figures = ["NaN", "Infinity", "-3", '"7"', "true", "null", "[]", "1e400", "6"]

    def odd(body: dict[str, Any], seen: int) -> Answer:
        usage = {"prompt_tokens": "X", "completion_tokens": 2}
        text = json.dumps(completion("fine", usage=usage))
        return web.Response(
            text=text.replace('"X"', last_message(body)), content_type="application/json"
        )

    with FakeServer(odd) as server:
        endpoint = server.endpoint()
        client, _ = call(endpoint, tmp_path / "t.jsonl", [ask(f) for f in figures])
        again, _ = call(endpoint, tmp_path / "t.jsonl", [ask(f) for f in figures])
    assert again.cost() == client.cost()
    assert (client.cost()["prompt_tokens"], client.cost()["completion_tokens"]) == (6, 18)


def test_a_short_placeholder_key_leaves_the_replies_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(lambda body, seen: "o 1 thing") as server:
        for key in ("thing", "o", "1"):
            monkeypatch.setenv("MY_KEY", key)
            path = tmp_path / f"{key}.jsonl"
            _, [reply] = call(server.endpoint(api_key_env="MY_KEY"), path, [ask("x")])
            assert (reply.text, reply.usage["prompt_tokens"]) == ("o 1 thing", 10)


def test_a_key_that_json_escapes_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = 'sk-"quoted"\\and/slashed'
    monkeypatch.setenv("MY_KEY", key)

    def leaky(body: dict[str, Any], seen: int) -> Answer:
        if last_message(body) == "fail":
            return failure(401, f"Incorrect API key provided: {key}")
        if seen == 0:
            return web.Response(text=json.dumps({"said": key}) + "{")
        escaped = "".join(f"\\u{ord(c):04x}" for c in key)
        text = json.dumps(completion("your key is X", echo={key: [key]})).replace("X", escaped)
        return web.Response(text=text, content_type="application/json")

    transcript = tmp_path / "t.jsonl"
    with FakeServer(leaky) as server:
        endpoint = server.endpoint(api_key_env="MY_KEY")
        _, [reply] = call(endpoint, transcript, [ask("x")])
        with pytest.raises(InputError) as caught:
            call(endpoint, transcript, [ask("fail")])
    assert reply.text == "your key is [key]"
    assert read_jsonl(transcript)[0]["response"]["echo"] == {"[key]": ["[key]"]}
    written = transcript.read_text() + str(caught.value)
    assert "quoted" not in written
    assert "slashed" not in written
    assert "provided: [key]" in str(caught.value)


def test_a_served_name_with_half_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    answer = completion("fine", model="served-\ud800")
    with FakeServer(lambda body, seen: web.json_response(answer)) as server:
        client, _ = call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
    assert client.served_models == ["served-?"]


def test_served_replies_that_could_not_be_used_count_against_the_budget(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    with FakeServer(lambda body, seen: cut_json() if seen < 4 else "fine") as server:
        with pytest.raises(HarnessError, match="budget of 2 calls is used up: 2 calls and 0"):
            call(server.endpoint(max_attempts=8), transcript, [ask("x")], {"calls": 2})
        assert len(server.requests) == 2
        endpoint = server.endpoint(max_attempts=2)
        with pytest.raises(HarnessError, match="budget of 2 calls is used up"):
            call(endpoint, transcript, [ask("x")], {"calls": 2})
        assert len(server.requests) == 2
        with pytest.raises(HarnessError, match="no answer in 2 attempts"):
            call(endpoint, transcript, [ask("x")])
        client, _ = call(endpoint, transcript, [ask("x")], {"calls": 5})
    assert (client.cost()["calls"], client.cost()["attempts"]) == (5, 5)


PRICE = {"prompt": 1000.0, "completion": 2000.0, "batch_share": 0.5, "dated": "2026-01-01"}
"""Dollars for a million tokens: a call of the scripted server (10 and 5 tokens) costs $0.02."""


def priced(
    endpoint: Endpoint, transcript: Path, bodies: list[dict[str, Any]], usd: float | None
) -> Client:
    async def run() -> Client:
        async with Client(endpoint, transcript, {"usd": usd}, PRICE) as client:
            await client.gather(bodies)
            return client

    return asyncio.run(run())


def test_a_budget_in_dollars_stops_before_it_would_be_passed_and_a_higher_one_goes_on(
    tmp_path: Path,
) -> None:
    # A call costs $0.02, and is let through while the most it may cost is left: half its bytes as
    # prompt tokens and 8 tokens of reply.
    transcript = tmp_path / "t.jsonl"
    bodies = [ask(f"{i:02}", max_tokens=8) for i in range(40)]
    most = (len(json.dumps(bodies[0]).encode()) / 2 * 1000 + 8 * 2000) / 1e6
    with FakeServer(echo, delay_s=0.005) as server:
        with pytest.raises(HarnessError, match=r"pass the budget of \$0\.3: ") as caught:
            priced(server.endpoint(), transcript, bodies, 0.3)
        spent = 0.02 * len(server.requests)
        assert spent <= 0.3 < spent + most
        assert f"{len(server.requests)} calls and {dollars(spent)} so far" in caught.value.message
        assert "budget.usd" in caught.value.hint
        client = priced(server.endpoint(), transcript, bodies, 40 * 0.02 + most)
        assert len(server.requests) == 40
    assert client.cost() == {
        "calls": 40,
        "attempts": 40,
        "prompt_tokens": 400,
        "completion_tokens": 200,
        "usd": pytest.approx(0.8),
    }


def test_calls_in_flight_count_against_a_budget_in_dollars(tmp_path: Path) -> None:
    bodies = [ask(f"{i:02}", max_tokens=8) for i in range(20)]
    most = (len(json.dumps(bodies[0]).encode()) / 2 * 1000 + 8 * 2000) / 1e6
    with FakeServer(echo, delay_s=0.05) as server:
        priced(
            server.endpoint(concurrency=20), tmp_path / "t.jsonl", bodies, 17 * 0.02 + 3.5 * most
        )
        assert len(server.requests) == 20
        # At the beginning no more than these fit, at the most each may cost.
        assert server.most_in_flight <= (17 * 0.02 + 3.5 * most) / most


def test_a_budget_in_dollars_without_a_price_is_refused_before_any_call(tmp_path: Path) -> None:
    with FakeServer(echo) as server:
        with pytest.raises(InputError, match="the price of m is not known") as caught:
            call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")], {"usd": 5.0})
        assert server.requests == []
        client, _ = call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")], {"usd": None})
    assert "specs/prices.yaml" in caught.value.hint
    assert "HARNESS_PRICES" in caught.value.hint
    assert "usd" not in client.cost()


def test_replies_that_could_not_be_used_count_at_their_most_against_a_budget_in_dollars(
    tmp_path: Path,
) -> None:
    body = ask("x", max_tokens=8)
    most = (len(json.dumps(body).encode()) / 2 * 1000 + 8 * 2000) / 1e6
    with FakeServer(lambda body, seen: cut_json()) as server:
        for tries in (2, 2):
            with pytest.raises(HarnessError, match=r"which would pass the budget of \$"):
                priced(server.endpoint(max_attempts=9), tmp_path / "t.jsonl", [body], 2.5 * most)
            # The earlier try's count, too.
            assert len(server.requests) == tries


def test_a_reply_without_a_limit_sets_aside_four_times_the_longest_one_seen(
    tmp_path: Path,
) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 4000}
    answer = completion("long", usage=usage)
    with FakeServer(lambda body, seen: web.json_response(answer)) as server:
        endpoint = server.endpoint(concurrency=1)
        with pytest.raises(HarnessError, match="the next call may take 160") as caught:
            call(endpoint, tmp_path / "t.jsonl", [ask("a"), ask("b")], {"tokens": 8000})
        assert len(server.requests) == 1
    assert "max_tokens" in caught.value.hint


def of_length(tokens: int) -> web.Response:
    usage = {"prompt_tokens": 10, "completion_tokens": tokens}
    return web.json_response(completion("long", usage=usage))


@pytest.mark.parametrize("budget", [{"tokens": 20_000}, {"usd": 30.0}])
def test_calls_without_max_tokens_stop_at_the_first_reply_that_passes_the_budget(
    tmp_path: Path, budget: dict[str, float]
) -> None:
    async def run() -> None:
        endpoint = server.endpoint(concurrency=64)
        async with Client(endpoint, tmp_path / "t.jsonl", budget, PRICE) as client:
            await client.gather([ask(str(i)) for i in range(64)])

    with FakeServer(lambda body, seen: of_length(20_000), delay_s=0.05) as server:
        with pytest.raises(HarnessError, match=r"is used up: 1 calls and .* so far"):
            asyncio.run(run())
        assert len(server.requests) == 1


def test_calls_without_max_tokens_are_as_many_at_once_as_replies_were_seen(tmp_path: Path) -> None:
    in_flight: list[int] = []

    def script(body: dict[str, Any], seen: int) -> Answer:
        in_flight.append(server.in_flight)
        return "fine"

    asked = [ask(str(i)) for i in range(60)]
    with FakeServer(script, delay_s=0.02) as server:
        endpoint = server.endpoint(concurrency=16)
        call(endpoint, tmp_path / "t.jsonl", asked, {"tokens": 100_000})
        assert in_flight[:2] == [1, 1]
        assert all(count <= max(1, before) for before, count in enumerate(in_flight))
        assert server.most_in_flight == 16


def test_replies_that_do_not_report_their_tokens_count_at_their_most(tmp_path: Path) -> None:
    answers = {
        "none": {"usage": None},
        "words": {"usage": {"prompt_tokens": "50", "completion_tokens": 20.0}},
        "zero": {"usage": {"prompt_tokens": 0, "completion_tokens": 0}},
        "half": {"usage": {"prompt_tokens": 10}},
    }

    def script(body: dict[str, Any], seen: int) -> Answer:
        return web.json_response(completion("fine", **answers[last_message(body)]))

    for name in answers:
        body = ask(name, max_tokens=8)
        most = -(-len(json.dumps(body).encode()) // 2) + 8
        asked, path = [body] * 9, tmp_path / f"{name}.jsonl"
        with FakeServer(script) as server:
            for limit, made in ((4 * most, 4), (4 * most, 4), (6 * most, 6)):
                with pytest.raises(HarnessError, match=f"{made} calls and up to {made * most} "):
                    call(server.endpoint(concurrency=1), path, asked, {"tokens": limit})
                assert len(server.requests) == made


def test_a_reply_of_unknown_length_without_max_tokens_counts_by_its_bytes(tmp_path: Path) -> None:
    answer = web.json_response(completion("x" * 5000, usage=None))
    # Its text is there twice.
    with (
        FakeServer(lambda body, seen: answer) as server,
        pytest.raises(HarnessError, match=r"1 calls and up to 5\d\d\d tokens so far"),
    ):
        call(server.endpoint(), tmp_path / "t.jsonl", [ask("a"), ask("b")], {"tokens": 4000})


def test_a_cost_in_dollars_is_not_stated_when_a_reply_does_not_report_its_tokens(
    tmp_path: Path,
) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        return web.json_response(completion("x", usage=None)) if last_message(body) == "0" else "y"

    with FakeServer(script) as server:
        for _ in range(2):
            client = priced(
                server.endpoint(), tmp_path / "t.jsonl", [ask("0"), ask("1"), ask("0")], None
            )
            assert client.cost() == {
                "calls": 3,
                "attempts": 3,
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "calls_without_usage": 2,
            }


def test_attempts_that_timed_out_count_against_the_budget(tmp_path: Path) -> None:
    asked = [ask(str(i), max_tokens=8) for i in range(10)]
    with FakeServer(lambda body, seen: hang()) as server:
        endpoint = server.endpoint(timeout_s=0.2, max_attempts=3)
        for said in ("1 calls and 0 tokens so far, and 9 calls in flight", "10 calls and up to"):
            with pytest.raises(HarnessError, match=f"budget of 10 calls is used up: {said}"):
                call(endpoint, tmp_path / "t.jsonl", asked, {"calls": 10})
            assert len(server.requests) == 10
        with pytest.raises(HarnessError, match="would pass the budget of 250 tokens"):
            call(endpoint, tmp_path / "u.jsonl", asked, {"tokens": 250})
        assert 10 < len(server.requests) <= 10 + 250 // (8 + 20)


def test_a_server_that_cannot_be_reached_is_no_call_that_was_served(tmp_path: Path) -> None:
    with socket.socket() as deaf, contextlib.ExitStack() as others:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        endpoint = Endpoint(model="m", base_url=url, timeout_s=0.3, max_attempts=2)
        with pytest.raises(HarnessError, match=r"in 2 attempts; the last: no connection \(timeout"):
            call(endpoint, tmp_path / "t.jsonl", [ask("x")], {"calls": 1})


def test_several_choices_are_set_aside_each(tmp_path: Path) -> None:
    with FakeServer(echo) as server:
        with pytest.raises(HarnessError, match="would pass the budget of 500 tokens"):
            call(server.endpoint(), tmp_path / "t.jsonl", [ask("a", n=6, max_tokens=80)],
                 {"tokens": 500})  # fmt: skip
        assert server.requests == []


def test_a_teacher_that_never_ends_is_cut_by_the_limit_or_by_the_timeout(tmp_path: Path) -> None:
    simulated = Simulated()
    endpoint = Endpoint(model="m", simulated=simulated)
    _, [reply] = call(endpoint, tmp_path / "t.jsonl", [ask("Write a poem.", max_tokens=3)])
    assert reply.finish_reason == "length"
    assert reply.usage["completion_tokens"] == 3
    hanging = Endpoint(
        model="m", simulated=Simulated(faults={"hang": 1.0}), timeout_s=0.1, max_attempts=2
    )
    with pytest.raises(HarnessError, match="no answer in 2 attempts; the last: timeout"):
        call(hanging, tmp_path / "u.jsonl", [ask("Write a poem.")])
    assert [a["outcome"] for a in read_jsonl(tmp_path / "u.jsonl")[0]["attempts"]] == [
        "timeout"
    ] * 2


@pytest.mark.parametrize("content", ["", None])
def test_an_empty_reply_is_an_answer_and_not_asked_again(
    tmp_path: Path, content: str | None
) -> None:
    empty = completion("x")
    empty["choices"][0] = {"index": 0, "finish_reason": "stop", "message": {"content": content}}
    with FakeServer(lambda body, seen: web.json_response(empty)) as server:
        for _ in range(2):
            client, [reply] = call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
            assert (reply.text, reply.finish_reason) == ("", "stop")
        assert len(server.requests) == 1
    assert client.cost()["calls"] == 1


def test_a_refusal_in_words_is_an_answer_like_any_other(tmp_path: Path) -> None:
    endpoint = Endpoint(model="m", simulated=Simulated(faults={"refuse": 1.0}))
    _, [reply] = call(endpoint, tmp_path / "t.jsonl", [ask("Write a poem.")])
    assert "cannot help" in reply.text
    assert reply.finish_reason == "stop"


def test_under_every_fault_at_once_each_answer_is_there_once(tmp_path: Path) -> None:
    shares = {"429": 0.05, "500": 0.05, "cut": 0.05, "hang": 0.05}
    settings = Simulated.model_validate({"faults": shares})
    bodies = [ask(f"What is the meaning of the number {i}?") for i in range(400)]
    with start(settings) as server:
        endpoint = Endpoint(
            model="m", base_url=server.base_url, concurrency=64, timeout_s=1, max_attempts=12
        )
        client, replies = call(endpoint, tmp_path / "t.jsonl", bodies)
        # On a busy machine an attempt can time out before it has reached the server.
        assert 430 < server.requests <= client.cost()["attempts"]
    assert [r.text for r in replies] == [teacher.answer(last_message(b), 0) for b in bodies]
    held = read_jsonl(tmp_path / "t.jsonl")
    assert [r["request"]["body"] for r in held] == bodies
    assert all(r["ok"] for r in held)
    outcomes = {a["outcome"].partition(",")[0] for r in held for a in r["attempts"]}
    assert outcomes == {"200", "429", "500", "timeout"}


def test_a_digest_made_by_an_earlier_version_is_still_found(tmp_path: Path) -> None:
    endpoint = Endpoint(model="m", base_url="http://127.0.0.1:9/v1")
    written = (
        '{"body":{"messages":[{"content":"a","role":"user"}]},'
        '"endpoint":"http://127.0.0.1:9/v1","kind":"chat","model":"m"}'
    )
    record = {
        "digest": hashlib.sha256(written.encode()).hexdigest(),
        "occurrence": 0,
        "response": completion("kept"),
        "served_model": "served-1",
        "usage": {},
        "attempts": [{"outcome": "200"}],
        "ok": True,
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(record) + "\n")
    _, [reply] = call(endpoint, tmp_path / "t.jsonl", [ask("a")])
    assert (reply.text, reply.reused) == ("kept", True)


def test_the_replies_of_many_calls_take_no_more_memory_than_their_texts(tmp_path: Path) -> None:
    with FakeServer(
        lambda body, seen: web.json_response(completion("fine", extra="x" * 50_000))
    ) as server:
        tracemalloc.start()
        try:
            _, replies = call(
                server.endpoint(), tmp_path / "t.jsonl", [ask(str(i)) for i in range(100)]
            )
            server.requests.clear()
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert len(replies) == 100
    assert held < 100 * 50_000 / 2
