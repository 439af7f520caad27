"""Answers of served models: what is asked, what is recorded, and what a server may get wrong."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from harness.answer.answer import Answer
from harness.answer.engines.vllm.engine import VLLM_URL
from harness.answer.run import run
from harness.artefact.call import StageCall
from harness.errors import HarnessError, InputError
from harness.modeling.load import bytes_tokenizer, load_model
from harness.modeling.text import Encoder
from harness.spec.model_source import ModelSource
from harness.spec.template import Template
from tests.modeling.calls import answer_call, outputs, random_model, template

PROMPTS = [{"instruction": "Say yes."}, {"instruction": "Add.", "input": "1 2"}]


class FakeServer:
    """Answers with `reply(body)`: (status, JSON); remembers what it was asked."""

    def __init__(self, models: tuple[str, ...] = ("model",)) -> None:
        self.asked: list[dict[str, Any]] = []
        self.reply: Callable[[dict[str, Any]], tuple[int, Any]] = self.said
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": name} for name in models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.asked.append({"path": self.path, **body})
                self._send(*owner.reply(body))

            def _send(self, status: int, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def said(self, body: dict[str, Any], text: str = "Yes.", finish: str = "stop") -> Any:
        part = {"message": {"content": text}} if "messages" in body else {"text": text}
        usage = {"prompt_tokens": 7, "completion_tokens": 2}
        choice = {"index": 0, "finish_reason": finish, **part}
        return 200, {"model": body["model"], "choices": [choice], "usage": usage}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    made = FakeServer()
    yield made
    made.server.shutdown()
    made.server.server_close()


def endpoint_call(folder: Path, url: str, decoding: Any = None, **engine: Any) -> StageCall:
    call = answer_call(folder, PROMPTS, decoding=decoding or {"max_new_tokens": 5})
    endpoint = {"model": "m-1", "base_url": url, "concurrency": 1}
    call.params["answer"]["engine"] = {"kind": "endpoint", "endpoint": endpoint} | engine
    call.params["model"] = None
    return call


def test_a_chat_is_asked_with_the_instruction_and_what_comes_back_is_counted(
    tmp_path: Path, server: FakeServer
) -> None:
    def reply(body: dict[str, Any]) -> Any:
        return server.said(body, *(["1 2 3 4 5", "length"] if "Add" in str(body) else []))

    server.reply = reply
    result = run(endpoint_call(tmp_path, server.url, system="Be brief."))
    assert [one["messages"] for one in server.asked] == [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say yes."}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Add.\n1 2"}],
    ]
    first = server.asked[0]
    assert (first["path"], first["model"]) == ("/v1/chat/completions", "m-1")
    assert (first["max_tokens"], first["temperature"]) == (5, 0.0)
    assert "seed" not in first
    rows = outputs(StageCall("answer", "", {}, {}, str(tmp_path / "work")))
    assert [row["output"] for row in rows] == ["Yes.", "1 2 3 4 5"]
    assert [row["finish_reason"] for row in rows] == ["stop", "length"]
    assert [(row["prompt_tokens"], row["tokens"]) for row in rows] == [(7, 2), (7, 2)]
    assert rows[1]["flags"] == ["cut"]
    assert result.keep == ["model_outputs.json", "transcript.jsonl"]
    assert result.cost["calls"] == 2
    assert result.used["served_models"] == ["m-1"]
    assert result.simulated == []


def test_there_is_a_sign_of_life_before_the_first_answer_and_no_guess(
    tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, Any]] = []
    monkeypatch.setattr("harness.artefact.events.SHORTEST_PAUSE_S", 0.0)
    monkeypatch.setattr("harness.answer.served.SIGN_OF_LIFE_S", 0.01)
    monkeypatch.setattr(
        "harness.artefact.events.progress",
        lambda _, done, *a, **info: told.append((done, info["seconds_left"])),
    )

    def late(body: dict[str, Any]) -> Any:
        time.sleep(0.2)
        return server.said(body)

    server.reply = late
    call = endpoint_call(tmp_path, server.url)
    call.params["answer"]["engine"]["endpoint"]["concurrency"] = 2
    run(call)
    assert told.count((0, None)) > 3
    assert (1, None) in told, "the first of two at a time says nothing of the others"
    assert told[-1] == (2, 0)


def test_a_sampled_answer_has_a_seed_of_its_own_prompt(tmp_path: Path, server: FakeServer) -> None:
    decoding = {"max_new_tokens": 5, "temperature": 0.7, "seed": 3, "stop": ["\n\n"], "min_p": 0.1}
    run(endpoint_call(tmp_path, server.url, decoding=decoding))
    one, two = server.asked
    assert one["min_p"] == 0.1
    assert one["seed"] != two["seed"]
    assert one["stop"] == ["\n\n"]
    assert (one["temperature"], one["top_p"]) == (0.7, 1.0)


@pytest.mark.parametrize("api", ["chat", "completion"])
def test_a_limit_and_a_temperature_of_null_are_not_sent(
    tmp_path: Path, server: FakeServer, api: str
) -> None:
    decoding = {"max_new_tokens": None, "temperature": None, "top_p": 0.5}
    run(endpoint_call(tmp_path, server.url, decoding, api=api))
    for body in server.asked:
        assert not {"max_tokens", "max_completion_tokens", "temperature", "top_p"} & body.keys()
        assert "seed" in body


def test_a_providers_error_is_asked_again_and_no_empty_answer(
    tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.llm.faults.FIRST_BACKOFF_S", 0.01)

    def reply(body: dict[str, Any]) -> Any:
        if len(server.asked) > 2:
            return server.said(body)
        return server.said(body, "", "error")

    server.reply = reply
    call = endpoint_call(tmp_path, server.url)
    result = run(call)
    assert [row["output"] for row in outputs(call)] == ["Yes.", "Yes."]
    assert (result.counts["empty"], result.cost["attempts"]) == (0, 4)


def test_reasoning_in_a_field_of_its_own_is_recorded_and_no_part_of_the_answer(
    tmp_path: Path, server: FakeServer
) -> None:
    def reply(body: dict[str, Any]) -> Any:
        status, raw = server.said(body, "\n\nYes.")
        raw["choices"][0]["message"]["reasoning_content"] = "Hm, let me see."
        return status, raw

    server.reply = reply
    call = endpoint_call(tmp_path, server.url)
    result = run(call)
    assert [(row["output"], row["generated"]) for row in outputs(call)] == [
        ("Yes.", "\n\nYes.")
    ] * 2
    assert "let me see" in (call.folder / "transcript.jsonl").read_text()
    assert any(note.startswith("2 of 2 replies came with reasoning apart") for note in result.notes)


def test_an_answer_that_a_filter_kept_back_is_counted_as_declined(
    tmp_path: Path, server: FakeServer
) -> None:
    def reply(body: dict[str, Any]) -> Any:
        status, raw = server.said(body, finish="content_filter")
        raw["choices"][0]["message"] = None
        return status, raw

    server.reply = reply
    result = run(endpoint_call(tmp_path, server.url))
    assert (result.counts["refused"], result.counts["empty"], len(server.asked)) == (2, 2, 2)
    assert result.counts["no_answer"] == 0
    told = "the server declined 2 of 2 requests for what is in them: content_filter (2)"
    assert told in result.notes


@pytest.mark.parametrize(
    ("fields", "sent", "said"),
    [
        (template(), "Q: Say yes.\nA:", {}),
        (template("{bos}Q: {instruction}") | {"start": ""}, "Q: Say yes.", {}),
        (
            template("Q: {instruction}") | {"start": ""},
            "Q: Say yes.",
            {"add_special_tokens": False},
        ),
    ],
    ids=["the tokenizer's", "the template's", "none"],
)
def test_a_completions_text_begins_as_the_template_says_and_never_twice(
    tmp_path: Path,
    server: FakeServer,
    real_model: Path,
    fields: dict[str, Any],
    sent: str,
    said: dict[str, bool],
) -> None:
    """The server's tokenizer, as the row's, puts <|im_start|> before a text."""
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.save_pretrained(tmp_path / "model")
    call = endpoint_call(tmp_path, server.url, api="completion")
    call.params["answer"]["template"] = fields
    call.params["model"] = {"path": str(tmp_path / "model")}
    run(call)
    one = server.asked[0]
    assert one["prompt"] == sent
    assert {n: v for n, v in one.items() if n == "add_special_tokens"} == said
    wanted = Encoder(tokenizer, Template.model_validate(fields)).prompt(**PROMPTS[0])
    assert tokenizer(one["prompt"], **said)["input_ids"] == wanted


def test_a_completion_is_asked_with_the_templates_text_and_its_stop_texts(
    tmp_path: Path, server: FakeServer
) -> None:
    call = endpoint_call(tmp_path, server.url, api="completion")
    call.params["answer"]["template"] = template(stop=["\nQ:"]) | {"end": "###"}
    server.reply = lambda body: server.said(body, "Yes.\nQ: and")
    run(call)
    assert [one["prompt"] for one in server.asked] == ["Q: Say yes.\nA:", "Q: Add.\n1 2\nA:"]
    assert server.asked[0]["stop"] == ["\nQ:", "###"]
    assert outputs(call)[0]["output"] == "Yes.", "a stop text that a server leaves in is cut off"
    for needs in ({"name": "tokenizer"}, {"name": "default"}):
        call.params["answer"]["template"] = needs
        with pytest.raises(InputError, match="the row has no model"):
            run(call)


def test_a_declined_prompt_is_an_empty_answer_and_counted(
    tmp_path: Path, server: FakeServer
) -> None:
    refusal = {"error": {"code": "content_filter", "message": "no", "type": "x", "param": "prompt"}}
    server.reply = lambda body: (400, refusal) if "yes" in str(body) else server.said(body)
    call = endpoint_call(tmp_path, server.url)
    result = run(call)
    assert [row["finish_reason"] for row in outputs(call)] == ["refused", "stop"]
    assert result.counts["refused"] == result.counts["empty"] == result.counts["flag_empty"] == 1


def test_a_reply_without_text_is_an_empty_answer_and_counted(
    tmp_path: Path, server: FakeServer
) -> None:
    call_of_a_tool = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = {
        "null": {"content": None},
        "tool": {"content": "", "tool_calls": call_of_a_tool},
        "empty": {"content": ""},
        "both": {"content": "Yes.", "tool_calls": call_of_a_tool},
    }

    def reply(body: dict[str, Any]) -> Any:
        status, raw = server.said(body)
        raw["choices"][0]["message"] = messages[body["messages"][0]["content"]]
        return status, raw

    server.reply = reply
    call = endpoint_call(tmp_path, server.url)
    # A prompt that stands twice is asked once, and its answer counts twice.
    rows = [{"id": str(i), "instruction": text} for i, text in enumerate([*messages, "null"])]
    file = Path(call.params["answer"]["prompts"]["file"])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(call)
    assert [row["output"] for row in outputs(call)] == ["", "", "", "Yes.", ""]
    assert (result.counts["no_answer"], result.counts["empty"]) == (3, 4)
    [finding] = [found for found in result.findings if found.kind == "no_answer"]
    assert finding.severity == "warning"
    assert finding.evidence == {"replies": 4, "no_answer": 2}
    again = tmp_path / "again"
    again.mkdir()
    (again / "transcript.jsonl").write_bytes((call.folder / "transcript.jsonl").read_bytes())
    repeated = run(replace(call, work=str(again), replay=True, inputs={"recorded": call.work}))
    assert repeated.counts == result.counts


def test_a_run_goes_on_from_its_transcript_and_a_replay_needs_nothing_else(
    tmp_path: Path, server: FakeServer
) -> None:
    call = endpoint_call(tmp_path, server.url)
    server.reply = lambda body: (401, {}) if "Add" in str(body) else server.said(body)
    with pytest.raises(HarnessError):
        run(call)
    server.reply = server.said
    asked = len(server.asked)
    run(call)
    assert len(server.asked) == asked + 1
    made = (call.folder / "model_outputs.json").read_bytes()
    again = tmp_path / "again"
    again.mkdir()
    (again / "transcript.jsonl").write_bytes((call.folder / "transcript.jsonl").read_bytes())
    repeated = run(replace(call, work=str(again), replay=True, inputs={"recorded": call.work}))
    assert (again / "model_outputs.json").read_bytes() == made
    assert repeated.cost["replayed_calls"] == 2
    assert len(server.asked) == asked + 1
    other = tmp_path / "other"
    other.mkdir()
    given = str(call.folder / "transcript.jsonl")
    call.params["answer"]["engine"]["transcript"] = given
    run(replace(call, work=str(other)))
    assert (other / "model_outputs.json").read_bytes() == made
    assert len(server.asked) == asked + 1


def test_a_budget_and_a_change_of_model_are_told(tmp_path: Path, server: FakeServer) -> None:
    call = replace(endpoint_call(tmp_path, server.url), budget={"calls": 1})
    with pytest.raises(HarnessError, match="budget of 1 calls is used up"):
        run(call)
    server.reply = lambda body: server.said(body | {"model": "m-2"})
    (found,) = run(replace(call, budget={})).findings
    assert found.kind == "model_changed"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = bytes_tokenizer()
    source = ModelSource.model_validate(random_model())
    load_model(source, {}, tokenizer, "float32", "cpu").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def vllm_call(folder: Path, model: Path, **settings: Any) -> StageCall:
    call = answer_call(folder, PROMPTS, model={"path": str(model)}, **settings)
    call.params["answer"]["engine"] = {"kind": "vllm"}
    return call


def test_vllm_is_given_the_templates_tokens_and_nothing_is_left_to_its_defaults(
    tmp_path: Path, server: FakeServer, model: Path
) -> None:
    decoding = {"max_new_tokens": 500, "temperature": 0.5, "top_p": 0.9, "min_p": 0.1}
    call = vllm_call(tmp_path, model, decoding=decoding, prompt=template(stop=["Q:"]))
    result = run(replace(call, server={"base_url": server.url, "model": "model"}))
    tokenizer = bytes_tokenizer()
    ids = tokenizer("Q: Say yes.\nA:")["input_ids"]
    first = next(one for one in server.asked if one["prompt"] == ids)
    assert first["path"] == "/v1/completions"
    assert first["model"] == "model"
    assert first["max_tokens"] == 128 - len(ids)
    assert (first["temperature"], first["top_p"], first["top_k"]) == (0.5, 0.9, 0)
    assert (first["min_p"], first["repetition_penalty"]) == (0.1, 1.0)
    assert first["stop"] == ["Q:"]
    assert first["stop_token_ids"] == [tokenizer.eos_token_id]
    assert first["skip_special_tokens"] is True
    assert len({one["seed"] for one in server.asked}) == 2
    assert result.counts["answered"] == 2


def test_without_a_limit_vllm_may_use_all_the_room_that_the_model_has(
    tmp_path: Path, model: Path, server: FakeServer
) -> None:
    call = vllm_call(tmp_path, model, decoding={"max_new_tokens": None})
    call.params["answer"]["engine"]["max_model_length"] = 40
    run(replace(call, server={"base_url": server.url, "model": "model"}))
    assert [len(body["prompt"]) + body["max_tokens"] for body in server.asked] == [40, 40]


def test_vllms_calls_are_found_again_at_another_address_and_without_a_server(
    tmp_path: Path, server: FakeServer, model: Path
) -> None:
    call = vllm_call(tmp_path, model)
    run(replace(call, server={"base_url": server.url, "model": "model"}))
    made = (call.folder / "model_outputs.json").read_bytes()
    (call.folder / "model_outputs.json").unlink()
    other = FakeServer(models=("another-name",))
    run(replace(call, server={"base_url": other.url, "model": "another-name"}))
    assert other.asked == []
    other.server.shutdown()
    run(replace(call, replay=True, inputs={"recorded": call.work}))
    assert (call.folder / "model_outputs.json").read_bytes() == made


def test_a_vllm_server_that_is_not_there_or_serves_another_model_is_said(
    tmp_path: Path, server: FakeServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VLLM_URL, raising=False)
    call = vllm_call(tmp_path, model)
    with pytest.raises(InputError, match="no vLLM server is named") as fault:
        run(call)
    assert VLLM_URL in fault.value.hint
    with pytest.raises(InputError, match="does not serve mine, but model"):
        run(replace(call, server={"base_url": server.url, "model": "mine"}))
    with pytest.raises(InputError, match="cannot be reached"):
        run(replace(call, server={"base_url": "http://127.0.0.1:9/v1", "model": "m"}))
    monkeypatch.setenv(VLLM_URL, server.url)
    run(call)
    assert server.asked[0]["model"] == "model"
    (tmp_path / "random").mkdir()
    untrained = vllm_call(tmp_path / "random", model)
    untrained.params["model"] = random_model()
    with pytest.raises(InputError, match="random weights"):
        run(untrained)


@pytest.mark.parametrize("url", [None, "https://api.openai.com/v1"])
def test_openais_own_api_takes_no_min_p_and_a_greedy_answer_neither(url: str | None) -> None:
    engine = {"kind": "endpoint", "endpoint": {"model": "m-1", "base_url": url}}
    prompts, decoding = {"file": __file__}, {"temperature": 1.0, "min_p": 0.1}
    with pytest.raises(ValueError, match=r"OpenAI's own API takes no decoding\.min_p"):
        Answer(prompts=prompts, engine=engine, decoding=decoding)
    with pytest.raises(ValueError, match="no effect without a temperature above 0"):
        Answer(prompts=prompts, decoding={"min_p": 0.1})
