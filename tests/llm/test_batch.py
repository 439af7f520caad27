"""Calls through a Batch API: the same transcript as live, nothing paid twice, every way to fail."""

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.artefact import events
from harness.errors import HarnessError, InputError
from harness.llm import batch, faults
from harness.llm.client import Client
from harness.llm.ledger import Ledger
from harness.spec.base import Endpoint, Simulated
from tests.helpers import read_jsonl, until
from tests.llm.batch_server import BatchServer, Next, once
from tests.llm.fake_server import (
    Answer,
    FakeServer,
    ask,
    call,
    completion,
    echo,
    failure,
    last_message,
)

PRICE = {"prompt": 1000.0, "completion": 2000.0, "batch_share": 0.5, "dated": "2026-01-01"}
"""At this price a call of the scripted server (10 and 5 tokens) costs $0.02, or $0.01 by batch."""


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events, in place of standard output."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit", lambda event, **rest: seen.append({"event": event, **rest}))
    monkeypatch.setattr(faults, "FIRST_BACKOFF_S", 0.01)
    return seen


def bodies(count: int) -> list[dict[str, Any]]:
    return [ask(str(i)) for i in range(count)]


def what_decides(transcript: Path) -> list[dict[str, Any]]:
    """A transcript without how and when its calls were made."""
    how = {"attempts", "started", "seconds", "batch"}
    return [{k: v for k, v in r.items() if k not in how} for r in read_jsonl(transcript)]


def test_batch_and_live_calls_leave_the_same_transcript(tmp_path: Path) -> None:
    faults_of_each = {"429": 0.1, "500": 0.1, "cut": 0.1, "hang": 0.05, "refuse": 0.1}
    simulated = Simulated.model_validate({"seed": 1, "faults": faults_of_each})
    asked = [ask(f"What is the opposite of hot? ({i})") for i in range(40)] + bodies(3) + bodies(3)
    replies = []
    for mode in ("live", "batch"):
        endpoint = Endpoint(
            model="m", simulated=simulated, mode=mode, batch_poll_s=0.02, timeout_s=0.3
        )
        replies.append(call(endpoint, tmp_path / f"{mode}.jsonl", asked)[1])
    assert replies[0] == replies[1]
    assert what_decides(tmp_path / "live.jsonl") == what_decides(tmp_path / "batch.jsonl")


def test_what_one_mode_answered_the_other_does_not_ask(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    with BatchServer(echo) as server:
        call(server.endpoint(), transcript, bodies(3))
        live = server.endpoint().model_copy(update={"mode": "live"})
        _, replies = call(live, transcript, bodies(3))
        assert all(reply.reused for reply in replies)
        assert (len(server.requests), server.created) == (3, 1)
        _, replies = call(server.endpoint(), transcript, [*bodies(3), ask("new")])
        assert [reply.reused for reply in replies] == [True] * 3 + [False]
        assert [last_message(r) for r in server.requests[3:]] == ["new"]


def test_a_record_names_its_batch_and_when_it_was_sent(tmp_path: Path) -> None:
    with BatchServer(echo) as server:
        call(server.endpoint(), tmp_path / "t.jsonl", bodies(1))
        [name] = server.batches._batches
    [record] = read_jsonl(tmp_path / "t.jsonl")
    assert record["batch"] == name
    assert [(a["outcome"], a["batch"]) for a in record["attempts"]] == [("200", name)]
    assert record["started"].endswith("+00:00")
    assert record["seconds"] > 0


def test_calls_of_each_kind_go_into_batches_of_their_own(tmp_path: Path) -> None:
    async def run() -> tuple[str, str]:
        async with Client(server.endpoint(), tmp_path / "t.jsonl") as client:
            [chat] = await client.gather([ask("hi")])
            [text] = await client.gather([{"prompt": "once"}], kind="completion")
            return chat.text, text.text

    def script(body: dict[str, Any], seen: int) -> Answer:
        return echo(body, seen) if "messages" in body else body["prompt"] + " more"

    with BatchServer(script) as server:
        assert asyncio.run(run()) == ("re: hi", "once more")
        endpoints = [b["endpoint"] for b in server.batches._batches.values()]
    assert endpoints == ["/v1/chat/completions", "/v1/completions"]


def test_many_requests_are_split_into_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_REQUESTS", 4)
    with BatchServer(echo) as server:
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(10))
        assert [reply.text for reply in replies] == [f"re: {i}" for i in range(10)]
        totals = [b["request_counts"]["total"] for b in server.batches._batches.values()]
    assert totals == [4, 4, 2]


def test_a_batchs_file_has_at_most_so_many_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_BYTES", 500)
    with BatchServer(echo) as server:
        call(server.endpoint(), tmp_path / "t.jsonl", [*bodies(5), ask("long " * 200)])
        files = [len(server.batches._contents[b["input_file_id"]])
                 for b in server.batches._batches.values()]  # fmt: skip
    assert [size <= 500 for size in files] == [True] * (len(files) - 1) + [False]
    assert len(files) >= 3


def test_the_person_is_told_that_a_batch_is_awaited_and_how_far_it_is(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    done: list[int] = []

    async def run() -> None:
        async with Client(server.endpoint(), tmp_path / "t.jsonl") as client:
            await client.gather(bodies(3), lambda index, reply: done.append(index))

    with BatchServer(echo, delay_s=0.3) as server:
        asyncio.run(run())
    notes = [e["message"] for e in told if e["event"] == "note"]
    assert len(notes) == 1
    assert "with 3 requests is awaited" in notes[0]
    assert any(e["event"] == "progress" and e["task"] == "batch" for e in told)
    assert done == [0, 1, 2]


def test_a_batch_in_flight_survives_a_kill_and_is_not_sent_again(tmp_path: Path) -> None:
    program = """
        import asyncio, sys
        from pathlib import Path
        from harness.llm.client import Client
        from harness.spec.base import Endpoint

        async def run():
            endpoint = Endpoint(
                model="m", base_url=sys.argv[1], mode="batch", batch_poll_s=0.02
            )
            async with Client(endpoint, Path(sys.argv[2])) as client:
                bodies = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(5)]
                await client.gather(bodies)

        asyncio.run(run())
    """
    transcript = tmp_path / "t.jsonl"
    with BatchServer(echo, delay_s=3) as server:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), server.base_url, str(transcript)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.DEVNULL,
        )
        while server.count("GET", "/v1/batches/") < 3 and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=10)
        assert read_jsonl(transcript) == []
        client, replies = call(server.endpoint(), transcript, bodies(5))
        assert [reply.text for reply in replies] == [f"re: {i}" for i in range(5)]
        assert (server.created, len(server.requests)) == (1, 5)
    assert client.cost()["calls"] == 5


def test_a_stop_between_upload_and_batch_makes_one_batch(tmp_path: Path) -> None:
    with BatchServer(echo) as server:
        server.intercept = once("POST", "/v1/batches", lambda: failure(500))
        with pytest.raises(HarnessError, match="no answer in 1 attempts"):
            call(server.endpoint(max_attempts=1), tmp_path / "t.jsonl", bodies(2))
        assert server.created == 0
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
    assert [reply.text for reply in replies] == ["re: 0", "re: 1"]
    assert (server.created, len(server.requests)) == (1, 2)


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_batch_whose_creation_was_not_answered_is_found_and_not_made_again(
    tmp_path: Path, max_attempts: int
) -> None:
    async def lose(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        if (request.method, request.path) == ("POST", "/v1/batches"):
            await go_on()
            return web.Response(status=502, text="<html>")
        return None

    with BatchServer(echo) as server:
        server.intercept = lose
        endpoint = server.endpoint(max_attempts=max_attempts)
        if max_attempts == 1:
            with pytest.raises(HarnessError, match="502"):
                call(endpoint, tmp_path / "t.jsonl", bodies(2))
        _, replies = call(endpoint, tmp_path / "t.jsonl", bodies(2))
        assert [reply.text for reply in replies] == ["re: 0", "re: 1"]
        assert (server.created, len(server.requests)) == (1, 2)


def test_of_an_expired_batch_the_results_are_used_and_the_rest_is_asked_again(
    tmp_path: Path,
) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        late = int(last_message(body)) % 2 and seen < 1
        return None if late else echo(body, seen)

    with BatchServer(script) as server:
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(6))
        assert [b["status"] for b in server.batches._batches.values()] == ["expired", "completed"]
        assert len(server.requests) == 6 + 3
    assert [reply.text for reply in replies] == [f"re: {i}" for i in range(6)]
    attempts = [[a["outcome"] for a in r["attempts"]] for r in read_jsonl(tmp_path / "t.jsonl")]
    assert attempts == [["200"], ["batch_expired", "200"]] * 3


def test_requests_that_keep_expiring_are_given_up_after_max_attempts(tmp_path: Path) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        return None if last_message(body) == "0" else echo(body, seen)

    with BatchServer(script) as server:
        with pytest.raises(HarnessError, match="no answer in 2 attempts; the last: batch_expired"):
            call(server.endpoint(max_attempts=2), tmp_path / "t.jsonl", bodies(2))
        assert server.created == 2
        held = read_jsonl(tmp_path / "t.jsonl")
        assert [(r["request"]["body"], r["ok"]) for r in held] == [
            (ask("1"), True),
            (ask("0"), False),
        ]
        # The next try begins anew, with the unanswered one alone.
        with pytest.raises(HarnessError, match="no answer in 2 attempts"):
            call(server.endpoint(max_attempts=2), tmp_path / "t.jsonl", bodies(2))
        assert server.created == 4
        assert [last_message(r) for r in server.requests].count("1") == 1


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (lambda: failure(429), "429"),
        (lambda: failure(500), "500"),
        (lambda: web.Response(text="{cut"), "200, but no choices"),
        (lambda: web.json_response({"choices": []}), "200, but no choices"),
        (
            lambda: web.json_response(completion("", finish_reason="error")),
            "200, but an error: no reason given",
        ),
        (lambda: web.json_response({"error": {"message": "busy"}}), "200, but an error: busy"),
    ],
)
def test_a_requests_passing_fault_sends_it_again(tmp_path: Path, fault: Any, outcome: str) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        return fault() if last_message(body) == "1" and seen == 0 else echo(body, seen)

    with BatchServer(script) as server:
        client, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(3))
        assert len(server.requests) == 4
    assert [reply.text for reply in replies] == ["re: 0", "re: 1", "re: 2"]
    first, second = read_jsonl(tmp_path / "t.jsonl")[1]["attempts"]
    assert first["outcome"].startswith(outcome)
    assert second["outcome"] == "200"
    assert client.cost()["calls"] == 3 + outcome.startswith("200")


def test_a_declined_prompt_is_an_answer_without_text(tmp_path: Path) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        bad = last_message(body) == "1"
        return failure(400, "filtered", code="content_filter") if bad else echo(body, seen)

    with BatchServer(script) as server:
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(3))
        assert server.created == 1
    assert [(r.text, r.finish_reason) for r in replies][1] == ("", "refused")


def test_a_batch_calls_the_limit_what_the_endpoint_calls_it_and_declines_what_is_too_long(
    tmp_path: Path,
) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        if last_message(body) == "1":
            return failure(400, "This model's maximum context length is 4096 tokens.")
        return str(body["max_completion_tokens"])

    with BatchServer(script) as server:
        endpoint = server.endpoint(token_limit="max_completion_tokens")
        _, replies = call(
            endpoint, tmp_path / "t.jsonl", [b | {"max_tokens": 9} for b in bodies(3)]
        )
    assert [(r.text, r.finish_reason) for r in replies] == [
        ("9", "stop"),
        ("", "refused"),
        ("9", "stop"),
    ]


def test_a_request_that_is_not_accepted_is_bad_input_and_the_others_are_kept(
    tmp_path: Path,
) -> None:
    def script(body: dict[str, Any], seen: int) -> Answer:
        bad = last_message(body) == "1"
        return failure(400, "Unsupported parameter: 'top_k'") if bad else echo(body, seen)

    with BatchServer(script) as server:
        with pytest.raises(InputError, match="Unsupported parameter: 'top_k'"):
            call(server.endpoint(), tmp_path / "t.jsonl", bodies(3))
        assert server.created == 1
    assert sum(r["ok"] for r in read_jsonl(tmp_path / "t.jsonl")) == 2


def fail_with(code: str, message: str, line: int | None = None) -> Any:
    def alter(state: dict[str, Any]) -> dict[str, Any]:
        error = {"code": code, "message": message, "line": line, "param": None}
        return state | {"status": "failed", "errors": {"object": "list", "data": [error]}}

    return alter


def test_a_failed_batch_says_why(tmp_path: Path) -> None:
    with BatchServer(echo) as server:
        server.alter = fail_with("model_not_found", "The provided model is not supported.", 3)
        with pytest.raises(InputError, match=r"The provided model is not supported\., line 3"):
            call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        server.alter = fail_with("billing_hard_limit_reached", "Billing hard limit")
        with pytest.raises(HarnessError, match="cannot take batch") as caught:
            call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        assert caught.value.exit_code == 1
        server.alter = lambda state: state
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        assert [reply.text for reply in replies] == ["re: 0", "re: 1"]
        assert server.created == 3


def test_a_batch_too_large_for_the_account_is_halved_until_it_is_taken(tmp_path: Path) -> None:
    def alter(state: dict[str, Any]) -> dict[str, Any]:
        content = server.batches._contents[state["input_file_id"]]
        too_much = len(content.splitlines()) > 3
        fail = fail_with("token_limit_exceeded", "Enqueued token limit reached")
        failed: dict[str, Any] = fail(state)
        return failed if too_much else state

    with BatchServer(echo) as server:
        server.alter = alter
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(10))
    assert [reply.text for reply in replies] == [f"re: {i}" for i in range(10)]


def test_a_batch_that_does_not_fit_beside_another_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_REQUESTS", 3)

    def alter(state: dict[str, Any]) -> dict[str, Any]:
        first = next(iter(server.batches._batches.values()))
        if state["id"] == first["id"] or told_ended:
            told_ended.extend([1] if state["status"] == "completed" else [])
            return state
        failed: dict[str, Any] = fail_with("token_limit_exceeded", "Enqueued")(state)
        return failed

    told_ended: list[int] = []
    with BatchServer(echo, delay_s=0.1) as server:
        server.alter = alter
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(6))
        totals = [
            len(server.batches._contents[b["input_file_id"]].splitlines())
            for b in server.batches._batches.values()
        ]
    assert [reply.text for reply in replies] == [f"re: {i}" for i in range(6)]
    assert totals == [3, 3, 3]


def test_a_cancelled_batch_ends_the_stage_and_the_next_try_asks_for_the_rest(
    tmp_path: Path,
) -> None:
    cancelled = False

    def script(body: dict[str, Any], seen: int) -> Answer:
        nonlocal cancelled
        if last_message(body) == "2" and not cancelled:
            cancelled = True
            for made in server.batches._batches.values():
                made["status"] = "cancelling"
        return echo(body, seen)

    with BatchServer(script) as server:
        with pytest.raises(HarnessError, match=r"was cancelled at .*, with 2 of its requests"):
            call(server.endpoint(), tmp_path / "t.jsonl", bodies(5))
        assert len(read_jsonl(tmp_path / "t.jsonl")) == 3
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(5))
        assert [reply.text for reply in replies] == [f"re: {i}" for i in range(5)]
        assert len(server.requests) == 3 + 2


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
def test_a_server_without_a_batch_api_is_told_to_be_called_live(tmp_path: Path, path: str) -> None:
    with BatchServer(echo) as server:
        server.intercept = once("POST", path, lambda: failure(404))
        with pytest.raises(InputError, match="has no Batch API") as caught:
            call(server.endpoint(), tmp_path / "t.jsonl", bodies(1))
    assert "mode: live" in caught.value.hint


def test_a_wrong_key_is_bad_input_and_the_key_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, Any]]
) -> None:
    key = "sk-secret-value-of-mine"
    monkeypatch.setenv("MY_KEY", key)
    with BatchServer(lambda body, seen: f"your key is {key}") as server:
        endpoint = server.endpoint(api_key_env="MY_KEY")
        server.intercept = once("POST", "/v1/files", lambda: failure(401, f"Incorrect: {key}"))
        with pytest.raises(InputError, match="does not accept the key in MY_KEY") as caught:
            call(endpoint, tmp_path / "t.jsonl", bodies(1))
        server.alter = fail_with("x", f"key {key} may not")
        with pytest.raises(InputError, match="may not") as failed:
            call(endpoint, tmp_path / "t.jsonl", bodies(1))
        server.alter = lambda state: state
        _, [reply] = call(endpoint, tmp_path / "t.jsonl", bodies(1))
        assert set(server.keys) == {f"Bearer {key}"}
    assert reply.text == "your key is [key]"
    written = "".join(p.read_text() for p in tmp_path.iterdir())
    assert key not in written + str(caught.value) + str(failed.value) + json.dumps(told)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/files"), ("POST", "/v1/batches"), ("GET", "status")]
)
@pytest.mark.parametrize(
    "answer", [lambda: failure(500), lambda: web.Response(text="<html>"), lambda: None]
)
def test_a_passing_fault_of_the_api_itself_is_tried_again(
    tmp_path: Path, method: str, path: str, answer: Any
) -> None:
    done = False

    async def intercept(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        nonlocal done
        is_status = path == "status" and request.path.startswith("/v1/batches/")
        if done or request.method != method or not (is_status or request.path == path):
            return None
        done = True
        other: web.StreamResponse | None = answer()
        if other is None:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return other

    with BatchServer(echo) as server:
        server.intercept = intercept
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        assert done
        assert [reply.text for reply in replies] == ["re: 0", "re: 1"]
        assert server.created == 1


@pytest.mark.parametrize(
    "instead",
    [
        lambda: web.json_response({}, status=404),
        lambda: web.Response(text="<html>oops</html>"),
        lambda: web.Response(text=""),
    ],
)
def test_results_that_cannot_be_read_are_not_paid_for_again_and_read_by_the_next_try(
    tmp_path: Path, instead: Any
) -> None:
    async def gone(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        other: web.StreamResponse | None = None
        if request.path.endswith("/content"):
            other = instead()
        return other

    with BatchServer(echo) as server:
        server.intercept = gone
        for _ in range(2):
            with pytest.raises(HarnessError, match=r"results of batch .* cannot be") as caught:
                call(server.endpoint(max_attempts=2), tmp_path / "t.jsonl", bodies(2))
            assert "which tries to read them again" in caught.value.hint
        server.intercept = None
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        assert (server.created, len(server.requests)) == (1, 2)
    assert [reply.text for reply in replies] == ["re: 0", "re: 1"]


def test_a_result_file_that_is_there_a_little_later_is_read(tmp_path: Path) -> None:
    late = 0

    async def intercept(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        nonlocal late
        late += request.path.endswith("/content")
        return failure(404) if late == 1 and request.path.endswith("/content") else None

    with BatchServer(echo) as server:
        server.intercept = intercept
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        assert server.created == 1
    assert [reply.text for reply in replies] == ["re: 0", "re: 1"]


def test_results_missing_from_a_completed_batch_count_as_served_before_they_are_asked_again(
    tmp_path: Path,
) -> None:
    async def lose(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        if not request.path.endswith("/content"):
            return None
        whole = await go_on()
        assert isinstance(whole, web.Response)
        assert isinstance(whole.body, bytes)
        return web.Response(body=b"".join(whole.body.splitlines(keepends=True)[::2]))

    transcript = tmp_path / "t.jsonl"
    with BatchServer(echo) as server:
        server.intercept = lose
        for _ in range(2):
            with pytest.raises(HarnessError, match="budget of 12 calls is used up"):
                call(server.endpoint(), transcript, bodies(10), {"calls": 12})
            assert len(server.requests) <= 12
        served = len(server.requests)
        client, replies = call(server.endpoint(), transcript, bodies(10))
        assert client.cost()["calls"] == len(server.requests) > served
    assert [reply.text for reply in replies] == [f"re: {i}" for i in range(10)]


def test_a_try_stopped_before_lost_results_are_asked_again_counts_them(tmp_path: Path) -> None:
    async def lose_and_fail(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        if request.path.endswith("/content"):
            whole = await go_on()
            assert isinstance(whole, web.Response)
            assert isinstance(whole.body, bytes)
            return web.Response(body=whole.body.splitlines(keepends=True)[0])
        again = server.created and (request.method, request.path) == ("POST", "/v1/files")
        return failure(401) if again else None

    with BatchServer(echo) as server:
        server.intercept = lose_and_fail
        with pytest.raises(InputError, match="401"):
            call(server.endpoint(), tmp_path / "t.jsonl", bodies(3), {"calls": 9})
        server.intercept = None
        client, _ = call(server.endpoint(), tmp_path / "t.jsonl", bodies(3), {"calls": 9})
        assert client.cost()["calls"] == 5 == len(server.requests)


@pytest.mark.parametrize("killed", [True, False])
def test_a_batch_that_may_be_under_way_is_not_sent_again_unasked(
    tmp_path: Path, killed: bool
) -> None:
    async def no_list(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        if (request.method, request.path) == ("GET", "/v1/batches"):
            return failure(404)
        if not killed and request.method == "POST" and request.path == "/v1/batches":
            await go_on()
            return failure(502)
        return None

    transcript = tmp_path / "t.jsonl"
    with BatchServer(echo) as server:
        server.intercept = no_list
        if killed:
            call(server.endpoint(), transcript, bodies(2))
            transcript.unlink()
            ledger = Ledger(transcript).path
            # As it was before the batch's line was written.
            ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
        for _ in range(2):
            with pytest.raises(HarnessError, match="may be under way") as caught:
                call(server.endpoint(), transcript, bodies(2))
            until(lambda: len(server.requests) == 2)  # the server works on a batch by itself
            assert server.created == 1
        ledger = Ledger(transcript).path
        [line] = ledger.read_text().splitlines()
        assert json.loads(line)["file"] in caught.value.message
        assert f"delete the line that names {json.loads(line)['file']} from {ledger}" in str(
            caught.value.hint
        )
        ledger.write_text("")
        killed = True
        _, replies = call(server.endpoint(), transcript, bodies(2))
        assert [reply.text for reply in replies] == ["re: 0", "re: 1"]
        assert server.created == 2


def test_a_refused_batch_is_not_taken_for_one_that_may_be_under_way(tmp_path: Path) -> None:
    async def refuse(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        if request.path != "/v1/batches":
            return None
        return failure(400 if request.method == "POST" and first else 404) if first else None

    first = True
    with BatchServer(echo) as server:
        server.intercept = refuse
        with pytest.raises(InputError, match="400"):
            call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        first = False
        call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        assert server.created == 1


def test_requests_without_max_tokens_send_one_ahead_where_the_budget_is_in_tokens(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    def totals() -> list[int]:
        return [b["request_counts"]["total"] for b in server.batches._batches.values()]

    with BatchServer(echo) as server:
        call(server.endpoint(), tmp_path / "t.jsonl", bodies(10), {"tokens": 100_000})
        assert totals() == [1, 9]
    assert any("one of 10 requests goes first" in e.get("message", "") for e in told)
    limited = [ask(str(i), max_tokens=8) for i in range(10)]
    with BatchServer(echo) as server:
        call(server.endpoint(), tmp_path / "u.jsonl", limited, {"tokens": 100_000})
        assert totals() == [10]


def test_a_batch_that_a_simulated_server_forgot_is_sent_again_and_told(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    endpoint = Endpoint(model="m", simulated=Simulated(), mode="batch", batch_poll_s=3600)
    _, first = call(endpoint, tmp_path / "t.jsonl", bodies(2))
    (tmp_path / "t.jsonl").unlink()
    told.clear()
    started = time.monotonic()
    _, second = call(endpoint, tmp_path / "t.jsonl", bodies(2))
    assert time.monotonic() - started < 5
    assert second == first
    notes = [e["message"] for e in told if e["event"] == "note"]
    assert "is lost: its simulated server ended with that try" in notes[0]
    assert not any("which an earlier try sent, is awaited" in note for note in notes)


def test_a_batch_of_another_account_is_not_paid_for_twice_in_silence(tmp_path: Path) -> None:
    with BatchServer(echo) as server:
        ledger = Ledger(tmp_path / "t.jsonl")
        call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        (tmp_path / "t.jsonl").unlink()
        server.batches._batches.clear()
        with pytest.raises(InputError, match="does not know the batch") as caught:
            call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        assert str(ledger.path) in caught.value.hint
        ledger.path.unlink()
        call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))


def test_the_list_of_batches_survives_a_line_that_was_cut(tmp_path: Path) -> None:
    with BatchServer(echo) as server:
        call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        (tmp_path / "t.jsonl").unlink()
        ledger = Ledger(tmp_path / "t.jsonl")
        whole = ledger.path.read_bytes()
        ledger.path.write_bytes(whole + b'{"batch": "x')
        # The results are still at the server.
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        assert [reply.text for reply in replies] == ["re: 0", "re: 1"]
        assert server.created == 1
        assert ledger.path.read_bytes() == whole
        ledger.path.write_bytes(b"{}\n" + whole)
        with pytest.raises(InputError, match=r"batches\.jsonl:1: this line is not one about"):
            call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))


def test_going_live_while_a_batch_is_in_flight_is_told(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    with BatchServer(echo) as server:
        call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
    (tmp_path / "t.jsonl").unlink()
    with FakeServer(echo) as live:
        call(live.endpoint(), tmp_path / "t.jsonl", bodies(2))
    assert any("paid for, again" in e.get("message", "") for e in told)


def test_a_batch_that_the_budget_does_not_cover_is_sent_in_part_and_a_higher_one_goes_on(
    tmp_path: Path,
) -> None:
    transcript = tmp_path / "t.jsonl"
    with BatchServer(echo) as server:
        with pytest.raises(HarnessError, match="budget of 4 calls is used up") as caught:
            call(server.endpoint(), transcript, bodies(10), {"calls": 4})
        assert (len(server.requests), server.created) == (4, 1)
        assert "budget.calls" in caught.value.hint
        assert [last_message(r["request"]["body"]) for r in read_jsonl(transcript)] == list("0123")
        call(server.endpoint(), transcript, bodies(10), {"calls": 10})
        assert len(server.requests) == 10


def most_by_batch(body: dict[str, Any]) -> float:
    """Dollars that are set aside for a request at PRICE."""
    size = len(json.dumps(body).encode())
    return (-(-size // 2) * 1000.0 + body["max_tokens"] * 2000.0) / 1e6 / 2


def test_a_budget_in_dollars_counts_a_whole_batch_at_its_most_before_it_is_sent(
    tmp_path: Path,
) -> None:
    asked = [ask(f"{i:02}", max_tokens=8) for i in range(40)]
    most = most_by_batch(asked[0])
    limit = 10.5 * most
    with BatchServer(echo) as server:
        with pytest.raises(HarnessError, match="budget"):
            call(server.endpoint(), tmp_path / "t.jsonl", asked, {"usd": limit}, PRICE)
        first = next(iter(server.batches._batches.values()))
        assert first["request_counts"]["total"] == 10
        spent = 0.01 * len(server.requests)
    assert spent <= limit
    client, _ = call(
        Endpoint(model="m", base_url=server.base_url, mode="live"),
        tmp_path / "t.jsonl",
        asked[:10],
        {"usd": limit},
        PRICE,
    )
    assert client.cost()["usd"] == pytest.approx(spent)


def test_what_is_left_of_a_budget_takes_more_batches_as_long_as_they_are_worth_it(
    tmp_path: Path,
) -> None:
    # A call is set aside at some 2.5 times what it takes.
    asked = [ask(f"{i:02}", max_tokens=8) for i in range(20)]
    with BatchServer(echo) as server:
        call(
            server.endpoint(),
            tmp_path / "t.jsonl",
            asked,
            {"usd": 10 * most_by_batch(asked[0])},
            PRICE,
        )
        assert len(server.requests) == 20
        assert 1 < server.created < 5


def test_a_rest_that_covers_few_of_the_calls_left_is_not_worth_another_batch(
    tmp_path: Path,
) -> None:
    asked = [ask(f"{i:03}", max_tokens=8) for i in range(100)]
    limit = 5.5 * most_by_batch(asked[0])
    with BatchServer(echo) as server:
        with pytest.raises(
            HarnessError, match=r"is enough for [1-5] of the 95 calls that are left"
        ):
            call(server.endpoint(), tmp_path / "t.jsonl", asked, {"usd": limit}, PRICE)
        assert (len(server.requests), server.created) == (5, 1)
    assert len(read_jsonl(tmp_path / "t.jsonl")) == 5


def test_a_cost_of_batch_and_live_calls_is_the_sum_of_both(tmp_path: Path) -> None:
    transcript = tmp_path / "t.jsonl"
    with BatchServer(echo) as server:
        client, _ = call(server.endpoint(), transcript, bodies(3), price=PRICE)
        assert client.cost()["usd"] == pytest.approx(0.03)
        assert call(server.endpoint(), transcript, bodies(3))[0].cost().get("usd") is None
    with FakeServer(echo) as live:
        endpoint = live.endpoint()
        client, _ = call(endpoint, transcript, bodies(2), price=PRICE)
        assert client.cost()["usd"] == pytest.approx(0.03 + 2 * 0.02)
        again, _ = call(endpoint, transcript, bodies(2), price=PRICE)
        assert again.cost() == client.cost()


def test_an_interrupt_leaves_the_batch_in_flight(tmp_path: Path) -> None:
    async def run() -> None:
        async with Client(server.endpoint(), tmp_path / "t.jsonl") as client:
            await asyncio.wait_for(client.gather(bodies(2)), timeout=0.3)

    with BatchServer(echo, delay_s=0.6) as server:
        with pytest.raises(TimeoutError):
            asyncio.run(run())
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
        assert [reply.text for reply in replies] == ["re: 0", "re: 1"]
        assert server.created == 1
        assert server.count("POST", "cancel") == 0


def test_hostile_results_are_passed_over(tmp_path: Path) -> None:
    async def hostile(request: web.Request, go_on: Next) -> web.StreamResponse | None:
        if server.created > 1 or not request.path.endswith("/content"):
            return None
        good = {"custom_id": None, "response": {"status_code": 200, "body": completion("x")}}
        other = {**good, "custom_id": "of another batch"}
        lines = ["[]", "null", "{", "{}", '{"custom_id": []}', "[" * 5000]
        lines += [json.dumps(good), json.dumps(other)]
        return web.Response(text="\n".join(lines) + "\n")

    with BatchServer(echo) as server:
        server.intercept = hostile
        _, replies = call(server.endpoint(), tmp_path / "t.jsonl", bodies(2))
    assert [reply.text for reply in replies] == ["re: 0", "re: 1"]
    first = read_jsonl(tmp_path / "t.jsonl")[0]["attempts"][0]
    assert first["outcome"] == "completed, but there is no result"
