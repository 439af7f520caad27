"""Servers and transcripts that answer with what no model would."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.errors import HarnessError, InputError
from harness.llm.client import Client
from harness.llm.reply import MOST_NESTED, MOST_TOKENS, BrokenReply, Reply, parse_response
from harness.llm.secrets import redact
from harness.llm.totals import most_tokens
from harness.spec.base import Endpoint
from tests.llm.fake_server import FakeServer, ask, completion

KEY = "sk-SECRETsecretKEY1234567890abcdef"
ESCAPED = f"\\u0073{KEY[1:]}"
TWICE = f"\\\\u0073{KEY[1:]}"
PRICE = {"prompt": 1000.0, "completion": 1000.0, "dated": "2026-01-01"}

pytestmark = pytest.mark.usefixtures("short_waits")


def nested(depth: int) -> str:
    """A chat completion's JSON with `depth` lists and objects within each other."""
    inside = depth - 1
    return json.dumps(completion("hello", x="X")).replace('"X"', "[" * inside + "]" * inside)


def call(endpoint: Endpoint, path: Path, bodies: list[Any], **more: Any) -> list[Reply]:
    async def run() -> list[Reply]:
        async with Client(endpoint, path, **more) as client:
            return await client.gather(bodies)

    return asyncio.run(run())


def answers(text: str, status: int = 200, **headers: str) -> FakeServer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    def script(body: dict[str, Any], seen: int) -> web.Response:
        return web.Response(
            text=text, status=status, content_type="application/json", headers=names
        )

    return FakeServer(script)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f'{{"said": "{ESCAPED}", "x": {"[" * 600}{"]" * 600}}}', id="deep"),
        pytest.param(f'{{"said": "{ESCAPED}", "x": {"[" * 9999}', id="too deep to read"),
        pytest.param(f'{{"detail": "{KEY}", "detail": "x"}}', id="repeated name"),
        pytest.param(f'{{"error": "{ESCAPED}", "error": "x"}}', id="repeated name, escaped"),
        pytest.param(f'{{"detail": "bad {ESCAPED}",', id="cut, escaped"),
        pytest.param(f'{{"detail": "bad {KEY}",', id="cut"),
        pytest.param(json.dumps({"arguments": f'{{"key": "{ESCAPED}"}}'}), id="JSON in JSON"),
        pytest.param(f'{{"detail": "bad {TWICE}",', id="JSON in JSON, cut"),
        pytest.param(f'{{"{ESCAPED}": 1, "n": NaN}}', id="name"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_a_key_that_a_server_hides_is_neither_told_nor_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, status: int
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with answers(text, status) as server:
        endpoint = server.endpoint(api_key_env="MY_KEY", max_attempts=2)
        with pytest.raises(HarnessError) as caught:
            call(endpoint, tmp_path / "t.jsonl", [ask("x")])
    everything = (tmp_path / "t.jsonl").read_text() + str(caught.value)
    assert KEY[1:] not in everything


def test_a_key_in_a_deeply_nested_answer_is_not_written_as_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    text = nested(600).replace('"hello"', f'"my key is {ESCAPED}"')
    with answers(text) as server:
        endpoint = server.endpoint(api_key_env="MY_KEY", max_attempts=1)
        with pytest.raises(HarnessError, match="gave no answer in 1 attempts"):
            call(endpoint, tmp_path / "t.jsonl", [ask("x")])
    assert KEY[1:] not in (tmp_path / "t.jsonl").read_text()


def test_a_usable_answer_that_holds_the_key_is_kept_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    text = json.dumps(completion("here: X")).replace("X", ESCAPED)
    with answers(text.replace('"id"', f'"id": "{KEY}", "id"', 1)) as server:
        endpoint = server.endpoint(api_key_env="MY_KEY")
        [reply] = call(endpoint, tmp_path / "t.jsonl", [ask("x")])
    assert reply.text == "here: [key]"
    assert KEY[1:] not in (tmp_path / "t.jsonl").read_text()


def test_what_does_not_hold_the_key_stays_as_it_is() -> None:
    for text in ('{"a": 1.0, "a": "caf\\u00e9 \\\\u0073k"}', "plain \\u0073k-", "[" * 9999, ""):
        assert redact(text, KEY) == text


def test_a_key_of_digits_does_not_pass_as_a_number() -> None:
    assert "123456789012345" not in redact('{"created": 123456789012345}', "123456789012345")


def test_what_is_withheld_is_still_an_object_of_json() -> None:
    assert json.loads(redact(f'{{"detail": "{ESCAPED}"', KEY)) == {
        "withheld": f"{len(ESCAPED) + 13} characters that hold the key"
    }


def test_an_answer_at_the_limit_of_nesting_can_be_read_again_and_one_beyond_is_refused(
    tmp_path: Path,
) -> None:
    with answers(nested(MOST_NESTED)) as server:
        endpoint = server.endpoint(max_attempts=1)
        [first] = call(endpoint, tmp_path / "t.jsonl", [ask("x")])
        [again] = call(endpoint, tmp_path / "t.jsonl", [ask("x")])
        [replayed] = call(endpoint, tmp_path / "t.jsonl", [ask("x")], replay=True)
    assert (first.text, first.reused) == ("hello", False)
    assert (again.text, again.reused) == (replayed.text, replayed.reused) == ("hello", True)
    for depth in (MOST_NESTED + 1, 978, 5000):
        with pytest.raises(BrokenReply, match="nested too deeply"):
            parse_response(nested(depth), "chat")


def test_a_transcript_with_a_record_beyond_the_limit_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with FakeServer(lambda body, seen: "fine") as server:
        call(server.endpoint(), path, [ask("x"), ask("y")])
        lines = path.read_text().splitlines(keepends=True)
        for depth in (MOST_NESTED, 900):
            deep = lines[0].replace('"id":"x"', '"id":' + "[" * depth + "]" * depth)
            path.write_text(deep + lines[1])
            with pytest.raises(InputError, match=r"t\.jsonl:1: this line is not a transcript"):
                call(server.endpoint(), path, [ask("x")])


@pytest.mark.parametrize("digits", [11, 400])
def test_a_token_count_that_cannot_be_one_counts_as_nothing_and_loses_nothing(
    tmp_path: Path, digits: int
) -> None:
    text = json.dumps(completion("fine")).replace(": 10,", f": {'9' * digits},")
    bodies = [ask("x", max_tokens=5), ask("y", max_tokens=5)]
    limits = {"budget": {"usd": 10.0, "tokens": 1000}, "price": PRICE}
    with answers(text) as server:
        for reused in (False, True):
            replies = call(server.endpoint(concurrency=1), tmp_path / "t.jsonl", bodies, **limits)
            assert [reply.reused for reply in replies] == [reused, reused]


def test_a_number_too_long_to_be_read_is_a_broken_reply(tmp_path: Path) -> None:
    text = json.dumps(completion("fine")).replace(": 10,", f": {'9' * 5000},")
    with answers(text) as server, pytest.raises(HarnessError, match="not JSON"):
        call(server.endpoint(max_attempts=1), tmp_path / "t.jsonl", [ask("x")])


def test_a_requests_own_numbers_cannot_pass_what_a_float_holds() -> None:
    asked = {"messages": [], "max_tokens": 10**400, "n": 10**400}
    assert float(sum(most_tokens(asked))) == pytest.approx(float(MOST_TOKENS) ** 2)


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"error": ' + "[" * 100_000,
    ],
)
def test_a_deeply_nested_error_is_told_by_its_status(tmp_path: Path, body: str) -> None:
    with answers(body, 400) as server, pytest.raises(InputError, match=r"does not accept.*\(400"):
        call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 01 Jan 9999 99:99:99 GMT",
        "Mon, 01 Jan 0001 00:00:00 -0000",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Mon, 01 Jan 2026 00:00:00 +99999999999999",
        "-1e999",
        "nan",
    ],
)
def test_a_retry_after_that_is_no_time_is_passed_over(tmp_path: Path, date: str) -> None:
    with answers("busy", 503, Retry_After=date) as server, pytest.raises(HarnessError) as caught:
        call(server.endpoint(max_attempts=2), tmp_path / "t.jsonl", [ask("x")])
    assert "gave no answer in 2 attempts; the last: 503: busy" in caught.value.message


@pytest.mark.parametrize("odd", [["length"], {"a": "b"}, 5, None])
def test_a_finish_reason_that_is_no_text_is_none(tmp_path: Path, odd: Any) -> None:
    with answers(json.dumps(completion("fine", finish_reason=odd))) as server:
        [reply] = call(server.endpoint(), tmp_path / "t.jsonl", [ask("x")])
    assert (reply.text, reply.finish_reason) == ("fine", None)


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("end", ['"}', ""])
def test_a_key_escaped_in_part_is_found_in_whole_and_in_cut_json(shift: int, end: str) -> None:
    forms = ("{1}", "\\u{0:04x}", "\\u{0:04X}")
    escaped = "".join(forms[(i + shift) % 3].format(ord(c), c) for i, c in enumerate(KEY))
    safe = redact(f'{{"a": "{escaped}{end}', KEY)
    assert escaped not in safe
    assert KEY not in str(json.loads(safe))
