"""Replays: replies from a transcript alone, and what a missing one tells."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, InputError
from harness.llm import connect
from harness.llm.client import Client
from harness.llm.replay import LONGEST_DIFF, ReplayMiss
from harness.llm.reply import Reply
from harness.llm.transcript import digest_of
from harness.spec.base import Endpoint, Simulated
from tests.llm.fake_server import FakeServer, ask, failure, last_message

ENDPOINT = Endpoint(model="m", base_url="http://127.0.0.1:9/v1", api_key_env="NOT_SET")


def record(
    body: dict[str, Any], text: str = "fine", ok: bool = True, **more: Any
) -> dict[str, Any]:
    request = {"kind": "chat", "model": "m", "body": body, "endpoint": ENDPOINT.base_url}
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return {
        "digest": digest_of(request),
        "occurrence": 0,
        "request": request,
        "response": {"choices": choices, "model": "served-1"} if ok else {},
        "served_model": "served-1",
        "usage": {"prompt_tokens": 10, "completion_tokens": 5} if ok else {},
        "attempts": [{"outcome": "200"}],
        "ok": ok,
    } | more


def write(path: Path, records: list[dict[str, Any]]) -> bytes:
    data = b"".join(json.dumps(r).encode() + b"\n" for r in records)
    path.write_bytes(data)
    return data


def replay(
    transcript: Path, bodies: list[dict[str, Any]], endpoint: Endpoint = ENDPOINT, **more: Any
) -> tuple[Client, list[Reply]]:
    async def run() -> tuple[Client, list[Reply]]:
        async with Client(endpoint, transcript, replay=True, **more) as client:
            return client, await client.gather(bodies)

    return asyncio.run(run())


def missed(
    transcript: Path, bodies: list[dict[str, Any]], endpoint: Endpoint = ENDPOINT
) -> ReplayMiss:
    with pytest.raises(ReplayMiss) as caught:
        replay(transcript, bodies, endpoint)
    return caught.value


def test_a_replay_needs_no_server_no_key_and_no_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a replay connects to nothing")

    monkeypatch.setattr("harness.llm.client.connect", refuse)
    write(tmp_path / "t.jsonl", [record(ask("a"), "A"), record(ask("b"), "B")])
    client, replies = replay(
        tmp_path / "t.jsonl", [ask("a"), ask("b")], budget={"usd": 0.0, "calls": 0}
    )
    assert [(r.text, r.reused, r.request) for r in replies] == [("A", True, 0), ("B", True, 1)]
    assert client.served_models == ["served-1"]
    assert connect.connect is not refuse


def test_a_replay_starts_no_simulated_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint(model="m", simulated=Simulated(seed=3))

    async def live() -> list[Reply]:
        async with Client(endpoint, tmp_path / "t.jsonl") as client:
            return await client.gather([ask("hello")])

    [first] = asyncio.run(live())
    monkeypatch.setattr("harness.sim.server.start", None)
    client, [second] = replay(tmp_path / "t.jsonl", [ask("hello")], endpoint)
    assert second.text == first.text
    assert client.simulated


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_a_replay_cost_nothing_and_counts_its_replies(tmp_path: Path, mode: str) -> None:
    write(tmp_path / "t.jsonl", [record(ask("a")), record(ask("b")), record(ask("c"))])
    price = {"prompt": 1.0, "completion": 1.0, "dated": "2026-01-01"}
    endpoint = ENDPOINT.model_copy(update={"mode": mode})
    client, _ = replay(tmp_path / "t.jsonl", [ask("a"), ask("b")], endpoint, price=price)
    assert client.cost() == {
        "calls": 0,
        "attempts": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "usd": 0,
        "replayed_calls": 2,
    }


def test_a_replay_leaves_a_read_only_transcript_as_it_is(tmp_path: Path) -> None:
    # In another order than asked, with what is not asked for, and cut in its last line.
    records = [record(ask("b"), "B"), record(ask("x"), ok=False), record(ask("a"), "A")]
    path = tmp_path / "t.jsonl"
    whole = write(path, records) + b'{"digest": "cut'
    path.write_bytes(whole)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        _, replies = replay(path, [ask("a"), ask("b")])
    finally:
        tmp_path.chmod(0o755)
    assert [(r.text, r.request) for r in replies] == [("A", 2), ("B", 0)]
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["t.jsonl"]


def test_a_run_and_its_replay_give_the_same_replies(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    bodies = [ask("a"), ask("bad"), ask("a"), ask("b")]

    def script(body: dict[str, Any], seen: int) -> Any:
        if last_message(body) == "bad":
            return failure(400, "filtered", code="content_filter")
        return f"{last_message(body)} {seen}"

    async def live() -> list[Reply]:
        async with Client(server.endpoint(), path) as client:
            return await client.gather(bodies)

    with FakeServer(script) as server:
        first = asyncio.run(live())
        endpoint = server.endpoint()
    whole = path.read_bytes()
    _, second = replay(path, bodies, endpoint)
    told = ("text", "finish_reason", "served_model", "usage", "simulated", "request")
    assert [[getattr(r, t) for t in told] for r in first] == [
        [getattr(r, t) for t in told] for r in second
    ]
    assert path.read_bytes() == whole


def test_a_missing_request_is_numbered_and_shown_against_the_nearest(tmp_path: Path) -> None:
    prompt = "Come up with tasks.\n" * 30 + "1. {}\n" + "Output:\n" * 30
    bodies = [ask(prompt.format(word)) for word in ("Sing.", "Dance well.", "Draw a cat.")]
    write(tmp_path / "t.jsonl", [record(body) for body in bodies])
    asked = [bodies[0], bodies[2], ask(prompt.format("Dance badly."))]
    error = missed(tmp_path / "t.jsonl", asked)
    assert error.exit_code == 1
    assert "lacks the answer to request 2 (line 3 in the order of asking)" in error.message
    assert "--- recorded, line 2 (request 1)\n+++ asked\n" in error.hint
    assert "-1. Dance well.\\n\n+1. Dance badly.\\n\n" in error.hint
    assert len(error.hint.splitlines()) < 12


def test_a_miss_says_what_a_request_is_made_of(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", [record(ask("a", seed=1))])
    hint = missed(tmp_path / "t.jsonl", [ask("a", seed=2)]).hint
    first = hint.partition("\n")[0]
    assert all(part in first for part in ("prompt", "sampling", "seed", "model", "base_url"))
    assert '-    "seed": 1\n+    "seed": 2' in hint


def test_the_nearest_is_looked_for_among_what_is_not_asked_for_first(tmp_path: Path) -> None:
    words = ["tell", "me", "all", "about", "the", "history", "of", "the", "harbour", "of"]
    close, closer = ask(" ".join([*words, "Riga"])), ask(" ".join([*words, "Oslo", "town"]))
    write(tmp_path / "t.jsonl", [record(closer), record(close)])
    # `closer` is like it but has been asked for; `close` is what it may have been before.
    error = missed(tmp_path / "t.jsonl", [closer, ask(" ".join([*words, "Oslo", "town", "hall"]))])
    assert "recorded, line 2" in error.hint
    # Nothing that is free is like it.
    write(tmp_path / "t.jsonl", [record(closer), record({"messages": [], "n": 1})])
    error = missed(tmp_path / "t.jsonl", [closer, ask(" ".join([*words, "Oslo", "town", "hall"]))])
    assert "recorded, line 1" in error.hint


def test_another_model_or_server_shows_in_the_diff(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", [record(ask("a"))])
    other = ENDPOINT.model_copy(update={"model": "n"})
    error = missed(tmp_path / "t.jsonl", [ask("a")], other)
    assert '-  "model": "m"\n+  "model": "n"' in error.hint


def test_a_request_asked_more_often_than_recorded_says_so(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", [record(ask("a")), record(ask("a"), occurrence=1)])
    error = missed(tmp_path / "t.jsonl", [ask("a")] * 3)
    assert "asked 3 times, and was answered 2 times" in error.message


def test_a_call_that_failed_when_it_was_made_says_so(tmp_path: Path) -> None:
    failed = record(ask("a"), ok=False, error="no answer\x1b[2J in 6 attempts")
    write(tmp_path / "t.jsonl", [failed])
    error = missed(tmp_path / "t.jsonl", [ask("a")])
    assert "the call failed when it was made" in error.message
    assert "line 1 (request 0) says: no answer\\u001b[2J in 6 attempts" in error.hint


def test_a_diff_is_short_and_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    long = "word " * 4000
    old = ask(f"{long}here \x1b[31m\u202e is the old end. {long}" + "\n".join("abcdefgh" * 20))
    new = ask(f"{long}here \x1b[31m\u202e is the new end. {long}" + "\n".join("ijklmnop" * 20))
    write(tmp_path / "t.jsonl", [record(old)])
    error = missed(tmp_path / "t.jsonl", [new])
    lines = error.hint.splitlines()
    assert max(map(len, lines)) < 220
    assert len(lines) <= LONGEST_DIFF + 2
    assert "\\u001b[31m\\u202e is the old end" in error.hint
    assert "\\u001b[31m\\u202e is the new end" in error.hint
    assert error.hint.replace("\n", "").isprintable()


def test_an_empty_transcript_or_one_without_requests_has_nothing_near(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", [])
    assert "no request at all" in missed(tmp_path / "t.jsonl", [ask("a")]).hint
    bare = record(ask("a"))
    del bare["request"]
    write(tmp_path / "t.jsonl", [bare])
    assert "no request at all" in missed(tmp_path / "t.jsonl", [ask("b")]).hint
    _, [reply] = replay(tmp_path / "t.jsonl", [ask("a")])
    assert reply.text == "fine"


def test_the_nearest_of_ten_thousand_is_found_in_seconds(tmp_path: Path) -> None:
    def body(number: int) -> dict[str, Any]:
        return ask("Come up with a task. " * 20 + f"Seed {number} of set {number * 7919 % 9973}.")

    write(tmp_path / "t.jsonl", [record(body(i)) for i in range(10_000)])
    began = time.monotonic()
    error = missed(tmp_path / "t.jsonl", [ask(last_message(body(8111)) + " Now.")])
    assert "recorded, line 8112" in error.hint
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "change",
    [
        {"response": {"choices": ["x"]}},
        {"response": {"choices": [{"message": "x"}]}},
        {"attempts": [{}]},
        {"attempts": None},
        {"digest": 3},
        {"request": {"body": "x"}},
        {"usage": []},
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path / "t.jsonl", [record(ask("a")) | change, record(ask("b"))])
    with pytest.raises(InputError, match=r"t\.jsonl:1: this line is not a transcript record") as e:
        replay(tmp_path / "t.jsonl", [ask("a")])
    assert "delete" not in e.value.hint


def test_a_last_line_without_its_line_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    whole = write(path, [record(ask("a"), "A"), record(ask("b"), "B")])
    path.write_bytes(whole[:-1])
    _, replies = replay(path, [ask("a"), ask("b")])
    assert [r.text for r in replies] == ["A", "B"]
    assert path.read_bytes() == whole[:-1]


def test_a_miss_says_that_the_last_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    whole = write(path, [record(ask("a"), "A"), record(ask("b"), "B")])
    path.write_bytes(whole[:-9])
    message = missed(path, [ask("a"), ask("b")]).message
    assert "request 1 (line 2 in the order of asking); its last line, line 2" in message
    assert message.endswith("is cut")
    path.write_bytes(whole)
    assert "cut" not in missed(path, [ask("c")]).message


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"garbage\n",
        bytes(range(256)) * 9,
        b'{"instruction": "a", "output": "b"}\n' * 3,
        b'[{"instruction": "a"}]',
        b'{"digest": "cut',
    ],
)
def test_a_file_without_any_record_is_said_not_to_be_a_transcript(
    tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "t.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=r"t\.jsonl is not a transcript"):
        replay(tmp_path / "t.jsonl", [ask("a")])


def test_a_whole_last_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", [record(ask("a"))])
    (tmp_path / "t.jsonl").write_bytes(data + b"{}\n")
    with pytest.raises(InputError, match=r"t\.jsonl:2: this line is not a transcript record"):
        replay(tmp_path / "t.jsonl", [ask("a")])


def test_a_transcript_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        replay(tmp_path / "t.jsonl", [ask("a")])
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_is_refused_names_what_tried_and_leaves_local_sockets(
    tmp_path: Path,
) -> None:
    (tmp_path / "caller.py").write_text(
        "import socket, asyncio, urllib.request\n"
        "def look(): socket.getaddrinfo('example.org', 443)\n"
        "def connect(): socket.create_connection(('192.0.2.1', 80))\n"
        "def raw(): socket.socket().connect(('192.0.2.1', 80))\n"
        "def raw_ex(): socket.socket().connect_ex(('192.0.2.1', 80))\n"
        "def send(): socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))\n"
        "def web(): urllib.request.urlopen('http://192.0.2.1/')\n"
        "def aio(): asyncio.run(asyncio.open_connection('192.0.2.1', 80))\n"
    )
    program = f"""
        import socket, sys, asyncio
        sys.path.insert(0, {str(tmp_path)!r})
        import caller
        from harness.llm.replay import NetworkRefused, refuse_network
        listening = socket.socket(socket.AF_UNIX)
        listening.bind({str(tmp_path / "s")!r})
        listening.listen()
        refuse_network()
        socket.socket(socket.AF_UNIX).connect({str(tmp_path / "s")!r})
        asyncio.run(asyncio.sleep(0))
        for name in ("look", "connect", "raw", "raw_ex", "send", "web", "aio"):
            try:
                getattr(caller, name)()
            except NetworkRefused as e:
                print(name, e.message)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    told = done.stdout.splitlines()
    assert [line.split()[0] for line in told] == [
        "look", "connect", "raw", "raw_ex", "send", "web", "aio",
    ]  # fmt: skip
    assert told[0] == "look caller, line 2, tried to reach example.org:443 during a replay"
    assert all("caller" in line or line.startswith("aio") for line in told)
    assert all("192.0.2.1:" in line for line in told[1:])


def test_a_refused_network_is_an_error_for_the_person(tmp_path: Path) -> None:
    from harness.llm.replay import NetworkRefused

    assert issubclass(NetworkRefused, HarnessError)
    assert issubclass(ReplayMiss, HarnessError)
