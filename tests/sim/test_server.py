import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from harness.errors import InputError
from harness.sim.replies.judge import WEIGHTED
from harness.sim.server import Server, start
from harness.spec.base import Simulated
from tests.helpers import ROOT

PROMPTS = Path(__file__).parents[2] / "specs/smoke/prompts"
QUESTION = "What is the opposite of hot?"
_open = build_opener(ProxyHandler({})).open


def post(
    server: Server, body: Any, path: str = "/chat/completions", key: str = "k", timeout: float = 5
) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with _open(Request(server.base_url + path, data, headers), timeout=timeout) as reply:
        return json.loads(reply.read())


def chat(text: str, model: str = "m", **options: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **options}


def text_of(reply: dict[str, Any]) -> str:
    text = reply["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def judge_request(a: str, b: str, instruction: str = QUESTION) -> dict[str, Any]:
    prompt = (PROMPTS / "judge.txt").read_text()
    for name, value in (("instruction", instruction), ("output_a", a), ("output_b", b)):
        prompt = prompt.replace("{" + name + "}", value)
    return chat(prompt)


def task_request(count: int = 5) -> dict[str, Any]:
    prompt = (PROMPTS / "tasks.txt").read_text()
    example = "### 1. Instruction: Sing.\nInput: <none>\nOutput: La."
    for name, value in (("count", count), ("shown", 1), ("next", 2), ("examples", example)):
        prompt = prompt.replace("{" + name + "}", str(value))
    return chat(prompt)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start(Simulated()) as running:
        yield running


def with_fault(fault: str, share: float = 1.0) -> Server:
    return start(Simulated.model_validate({"faults": {fault: share}}))


def refusal(server: Server, body: Any, **options: Any) -> tuple[int, str]:
    with pytest.raises(HTTPError) as caught:
        post(server, body, **options)
    reply = json.loads(caught.value.read())
    return caught.value.code, reply["error"]["message"]


def test_the_reply_in_the_docs_is_the_servers() -> None:
    page = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
    match = re.search(r"-d '(\{.*\})'\n((?:    .*\n)+)", page)
    assert match
    with start(Simulated()) as server:
        assert post(server, json.loads(match[1])) == json.loads(match[2])


def test_a_sampled_reply_depends_on_the_requests_seed_and_a_greedy_one_does_not(
    server: Server,
) -> None:
    def replies(question: str, **options: Any) -> list[str]:
        return [text_of(post(server, chat(question, seed=n, **options))) for n in range(12)]

    poem = "Write a poem about the sea."
    assert len(set(replies(poem, temperature=0.7))) > 3
    assert replies(poem, temperature=0.7) == replies(poem, temperature=0.7)
    right = replies(QUESTION, temperature=0.7).count("cold")
    assert 6 <= right < 12
    unseeded = text_of(post(server, chat(poem, temperature=0.7)))
    assert unseeded == text_of(post(server, chat(poem)))
    for options in ({}, {"temperature": 0}, {"temperature": None}):
        assert set(replies(poem, **options)) == {unseeded}
        assert set(replies(QUESTION, **options)) == {"cold"}


def test_a_chat_reply_has_openais_form_and_says_that_it_is_simulated(server: Server) -> None:
    reply = post(server, chat(QUESTION, model="gpt-4o"))
    assert text_of(reply) == "cold"
    assert reply["object"] == "chat.completion"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["model"] == "simulated:gpt-4o"
    assert reply["simulated"] is True
    assert reply["system_fingerprint"] == "simulated-0"
    usage = reply["usage"]
    assert usage["prompt_tokens"] == 7
    assert usage["completion_tokens"] == 1
    assert usage["total_tokens"] == 8


def test_plain_completions_answer_each_prompt(server: Server) -> None:
    body = {"model": "m", "prompt": [QUESTION, "Capital of Peru?"]}
    reply = post(server, body, "/completions")
    assert [c["text"] for c in reply["choices"]] == ["cold", "Lima"]
    assert reply["object"] == "text_completion"


def test_the_openai_client_reads_the_replies(server: Server) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=server.base_url, api_key="k") as client:
        assert [m.id for m in client.models.list()] == ["simulated"]
        reply = client.chat.completions.create(**chat(QUESTION))
        assert reply.choices[0].message.content == "cold"
        assert reply.model_extra["simulated"] is True


def test_a_request_for_tasks_is_answered_with_tasks(server: Server) -> None:
    text = text_of(post(server, task_request(7)))
    assert re.findall(r"^### (\d+)\. Instruction: ", text, re.M) == [str(i) for i in range(2, 9)]


def test_a_judges_request_is_answered_with_a_verdict(server: Server) -> None:
    assert text_of(post(server, judge_request("cold", "warm"))) == "a"
    assert text_of(post(server, judge_request("warm", "cold"))) == "b"


def test_the_same_request_gets_the_same_bytes_whatever_model_asks(server: Server) -> None:
    first = post(server, task_request())
    assert post(server, task_request()) == first
    other = post(server, {**task_request(), "model": "another"})
    assert other["choices"] == first["choices"]


def test_another_seed_or_request_brings_other_tasks(server: Server) -> None:
    first = text_of(post(server, task_request()))
    assert text_of(post(server, {**task_request(), "seed": 7})) != first
    with start(Simulated(seed=1)) as other:
        assert text_of(post(other, task_request())) != first


def test_a_verdict_of_one_token_has_the_log_probs_that_are_asked_for(server: Server) -> None:
    form = WEIGHTED
    parts = (form.head, form.before_instruction, QUESTION, form.before_a, "cold", form.before_b)
    request = chat("".join([*parts, "bread", form.after, "Which is best?"]))
    for options, count in (({}, None), ({"logprobs": True, "top_logprobs": 2}, 2)):
        choice = post(server, {**request, **options})["choices"][0]
        assert choice["message"]["content"] == "m"
        weights = choice["logprobs"] and choice["logprobs"]["content"][0]["top_logprobs"]
        assert (weights and len(weights)) == count


def test_max_tokens_and_stop_cut_the_reply(server: Server) -> None:
    whole = text_of(post(server, task_request()))
    cut = post(server, {**task_request(), "max_tokens": 20})
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 20
    assert 0 < len(text_of(cut)) < len(whole)
    assert whole.startswith(text_of(cut))
    stopped = post(server, {**task_request(), "stop": ["\n\n### 4"]})
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert text_of(stopped) == whole.partition("\n\n### 4")[0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        ([], "JSON object"),
        ({"messages": []}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": [{"role": "user"}]}, "text as its content"),
        ({"model": "m", "messages": [{"role": "system", "content": "x"}]}, "role user"),
        (chat("x", n=2), "leave n at 1"),
        (chat("x", stream=True), "stream"),
        (chat("x", max_tokens=0), "max_tokens"),
        (chat("x", stop=[""]), "stop"),
    ],
)
def test_a_request_that_cannot_be_served_is_told_why(
    server: Server, body: Any, message: str
) -> None:
    status, said = refusal(server, body)
    assert status == 400
    assert message in said


def test_a_wrong_key_is_refused() -> None:
    with start(Simulated(), require_key="right") as guarded:
        assert text_of(post(guarded, chat(QUESTION), key="right")) == "cold"
        assert refusal(guarded, chat(QUESTION), key="wrong")[0] == 401
        with pytest.raises(HTTPError, match="401"):
            _open(guarded.base_url + "/models")


def test_429_says_when_to_come_back() -> None:
    with with_fault("429") as faulty, pytest.raises(HTTPError) as caught:
        post(faulty, chat(QUESTION))
    assert caught.value.code == 429
    assert 0 < float(caught.value.headers["Retry-After"]) < 1


def test_500_is_a_server_error() -> None:
    with with_fault("500") as faulty:
        assert refusal(faulty, chat(QUESTION))[0] == 500


def test_a_slow_reply_comes_late_and_whole() -> None:
    with with_fault("slow") as faulty:
        began = time.monotonic()
        assert text_of(post(faulty, chat(QUESTION))) == "cold"
        assert time.monotonic() - began > 0.9


def test_a_hanging_request_is_never_answered_and_closing_does_not_wait_for_it() -> None:
    def wait() -> None:
        with pytest.raises(OSError):  # noqa: PT011
            post(faulty, chat("x"))

    with with_fault("hang") as faulty:
        with pytest.raises(TimeoutError):
            post(faulty, chat(QUESTION), timeout=0.2)
        waiting = threading.Thread(target=wait)
        waiting.start()
        while faulty.requests < 2:
            time.sleep(0.01)
        began = time.monotonic()
        faulty.close()
        assert time.monotonic() - began < 1
        waiting.join(2)
        assert not waiting.is_alive()


def test_a_cut_reply_is_half_a_json_text_with_status_200() -> None:
    with with_fault("cut") as faulty, pytest.raises(json.JSONDecodeError) as caught:
        post(faulty, chat(QUESTION))
    assert caught.value.doc.startswith('{"id"')


def test_an_html_page_comes_with_status_200() -> None:
    with with_fault("html") as faulty, pytest.raises(json.JSONDecodeError) as caught:
        post(faulty, chat(QUESTION))
    assert caught.value.doc.startswith("<!doctype html>")


def test_a_refusal_is_a_normal_reply_without_tasks_or_verdict() -> None:
    with with_fault("refuse") as faulty:
        for body in (task_request(), judge_request("cold", "warm"), chat(QUESTION)):
            assert "cannot help" in text_of(post(faulty, body))


def test_the_wrong_format_is_a_normal_reply_that_no_parser_takes() -> None:
    with with_fault("format") as faulty:
        assert "### " not in text_of(post(faulty, task_request()))
        verdict = text_of(post(faulty, judge_request("cold", "warm")))
        assert not re.match(r"(?i)\s*(a|b|tie)\b", verdict)
        assert text_of(post(faulty, chat(QUESTION))) != "cold"


def statuses(server: Server, count: int, tries: int) -> list[list[int]]:
    def once(i: int) -> int:
        try:
            post(server, chat(f"Say {i}."))
        except HTTPError as e:
            return e.code
        return 200

    return [[once(i) for _ in range(tries)] for i in range(count)]


def test_a_share_of_the_requests_fails_and_most_retries_succeed() -> None:
    settings = Simulated(seed=4, faults={"429": 0.2, "500": 0.1})
    with start(settings) as faulty:
        seen = statuses(faulty, 200, 3)
    with start(settings) as faulty:
        assert statuses(faulty, 20, 3) == seen[:20]
    firsts = [tries[0] for tries in seen]
    assert 25 <= firsts.count(429) <= 55
    assert 10 <= firsts.count(500) <= 32
    assert sum(200 in tries for tries in seen) >= 190


def test_faults_without_a_way_out_stay() -> None:
    with start(Simulated(faults={"500": 1.0})) as faulty:
        assert statuses(faulty, 3, 5) == [[500] * 5] * 3


def test_the_error_rate_turns_that_share_of_verdicts_round() -> None:
    def wrong(rate: float) -> int:
        with start(Simulated(seed=2, error_rate=rate)) as server:
            bodies = [judge_request("cold", f"warm {i}") for i in range(200)]
            return sum(text_of(post(server, body)) == "b" for body in bodies)

    assert wrong(0.0) == 0
    assert 30 <= wrong(0.25) <= 70
    assert wrong(1.0) == 200


def test_every_call_is_counted_faulty_ones_too() -> None:
    with with_fault("500", 1.0) as faulty:
        statuses(faulty, 2, 2)
        assert faulty.requests == 4


def test_many_requests_are_served_at_once() -> None:
    aiohttp = pytest.importorskip("aiohttp")

    async def ask(url: str) -> float:
        began = time.monotonic()
        async with aiohttp.ClientSession() as session:
            calls = [session.post(f"{url}/chat/completions", json=chat(f"{i}")) for i in range(20)]
            for reply in await asyncio.gather(*calls):
                assert reply.status == 200
        return time.monotonic() - began

    with with_fault("slow") as server:
        assert asyncio.run(ask(server.base_url)) < 3


def test_it_starts_and_stops_quickly() -> None:
    began = time.monotonic()
    with start(Simulated()) as server:
        assert time.monotonic() - began < 0.3
        post(server, chat(QUESTION))
    assert time.monotonic() - began < 1
    with pytest.raises(OSError, match="refused"):
        post(server, chat(QUESTION))


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError) as caught:
            start(Simulated(), port=port)
    assert str(port) in caught.value.message
    assert "--port" in caught.value.hint


def test_an_address_of_another_machine_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="cannot listen"):
        start(Simulated(), host="192.0.2.1", allow_remote=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])
def test_only_loopback_is_served_unless_asked(host: str) -> None:
    with pytest.raises(InputError, match="not a loopback"):
        start(Simulated(), host=host)


def test_all_addresses_are_served_when_asked() -> None:
    with start(Simulated(), host="0.0.0.0", allow_remote=True) as server:
        assert server.base_url.startswith("http://0.0.0.0:")
        assert text_of(post(server, chat(QUESTION))) == "cold"


def test_the_foreground_server_answers_until_it_is_told_to_end() -> None:
    code = (
        "from harness.sim.server import serve; from harness.spec.base import Simulated;"
        "serve(Simulated(), announce=lambda url: print(url, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        body = json.dumps(chat(QUESTION)).encode()
        with _open(Request(url + "/chat/completions", body), timeout=5) as reply:
            assert text_of(json.loads(reply.read())) == "cold"
        process.terminate()
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.communicate()
