"""Stop texts that hold special tokens end an answer, whatever answers."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from harness.answer.answer import Decoding
from harness.answer.decoding.decode import Made
from harness.answer.decoding.stops import Stops
from harness.answer.engines.transformers.engine import finish
from harness.answer.run import run
from harness.modeling.load import load_model, load_tokenizer
from harness.modeling.text import Encoder
from harness.run.chat import Chat, Shown, Streamer, _Stopped
from harness.spec.model_source import ModelSource
from harness.spec.template import Template
from tests.answer.engines.test_endpoint import FakeServer, server
from tests.helpers import copy_of_model
from tests.modeling.calls import answer_call, outputs

__all__ = ["server"]
STOPS = ["<|im_end|>", "<|im_start|>", "<|im_end|>\n", "\n<|im_start|>user", "capital<|im_end|>"]
SAID = "Paris is the\ncapital<|im_end|>\n<|im_start|>user\nAnd of Spain?<|im_end|>\n"
PROMPT = [{"instruction": "What is the capital of France?"}]
CHATML = {
    "prompt": {
        "path": "p.txt",
        "text": "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    },
    "start": "",
}


@pytest.fixture(scope="module")
def runs_on(real_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model, with an end token that it never writes: it goes on after its <|im_end|>."""
    folder = copy_of_model(real_model, tmp_path_factory.mktemp("runs-on") / "model")
    for name, end in (
        ("config.json", {"eos_token_id": 3}),
        ("generation_config.json", {"eos_token_id": 3}),
        ("tokenizer_config.json", {"eos_token": "<repo_name>"}),
    ):
        changed = json.loads((folder / name).read_text()) | end
        (folder / name).write_text(json.dumps(changed))
    return folder


def cut(text: str, stop: str) -> str:
    """What is left of a text with special tokens: up to the stop text, and without them."""
    left = text.partition(stop)[0]
    for token in ("<|im_end|>", "<|im_start|>"):
        left = left.replace(token, "")
    return left


@pytest.mark.parametrize("stop", STOPS)
def test_an_answers_text_ends_before_the_stop_text(real_model: Path, stop: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    ids = tokenizer(SAID, add_special_tokens=False)["input_ids"]
    stops = Stops(tokenizer, [stop, "no such text"])
    ended = next(n for n in range(1, len(ids) + 1) if stops.complete(ids[:n]))
    assert stop in tokenizer.decode(ids[:ended])
    assert stop not in tokenizer.decode(ids[: ended - 1])
    assert finish(Made(0, ids[:ended], "stop"), stops, 1).output == cut(SAID, stop)

    shown = Shown([stop], io.StringIO())
    streamer = Streamer(stops, shown, set(), has_prompt=True)
    for token in ids[: ended - 1]:
        streamer.put(torch.tensor([token]))
    with pytest.raises(_Stopped):
        streamer.put(torch.tensor(ids[ended - 1 : ended]))
    shown.update(streamer.read(), last=True)
    assert shown.text == cut(SAID, stop)
    assert shown.out.getvalue() == cut(SAID, stop), "nothing of a stop text is on the screen"  # type: ignore[attr-defined]


def test_the_real_model_stops_at_a_text_with_a_special_token(tmp_path: Path, runs_on: Path) -> None:
    made: dict[str, Any] = {}
    for stop in ("no such text", "<|im_end|>", "<|im_end|>\n"):
        call = answer_call(
            tmp_path,
            PROMPT,
            {"path": {"path": str(runs_on)}},
            prompt=CHATML | {"stop": [stop]},
            decoding={"max_new_tokens": 24},
            precision="bfloat16",
        )
        run(call)
        (made[stop],) = outputs(call)
        (call.folder / "outputs.jsonl").unlink()
    whole, one, two = made.values()
    assert whole["finish_reason"] == "length"
    assert one["output"] == two["output"]
    assert whole["output"].startswith(one["output"])
    assert one["finish_reason"] == two["finish_reason"] == "stop"
    # The end token does not count as one of the answer's, a stop text's tokens do.
    assert two["tokens"] == one["tokens"] + 2 < whole["tokens"]


def as_vllm_answers(tokenizer: Any, body: dict[str, Any]) -> tuple[str, str]:
    """(text, finish reason) of an answer of SAID: vLLM looks for stop texts in the text that it sends,
    which has special tokens where the request says so, and never shows a token that ended it."""
    ids = tokenizer(SAID, add_special_tokens=False)["input_ids"]
    hides = body.get("skip_special_tokens", True)
    for count in range(1, len(ids) + 1):
        if ids[count - 1] in body.get("stop_token_ids", []):
            return tokenizer.decode(ids[: count - 1], skip_special_tokens=hides), "stop"
        text = tokenizer.decode(ids[:count], skip_special_tokens=hides)
        for stop in body.get("stop") or []:
            if stop in text:
                return text.partition(stop)[0], "stop"
    return text, "length"


@pytest.mark.parametrize("kind", ["vllm", "completion", "chat"])
@pytest.mark.parametrize("stop", STOPS)
def test_a_server_that_answers_without_special_tokens_stops_there_too(
    tmp_path: Path, runs_on: Path, server: FakeServer, kind: str, stop: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(runs_on)

    def reply(body: dict[str, Any]) -> Any:
        return server.said(body, *as_vllm_answers(tokenizer, body))

    server.reply = reply
    decoding = {"max_new_tokens": 99, "stop": [stop]}
    model = {"path": {"path": str(runs_on)}}
    call = answer_call(tmp_path, PROMPT, model, prompt=CHATML, decoding=decoding)
    if kind == "vllm":
        call.params["answer"]["engine"] = {"kind": "vllm"}
        call = replace(call, server={"base_url": server.url, "model": "model"})
    else:
        endpoint = {"model": "model", "base_url": server.url}
        call.params["answer"]["engine"] = {"kind": "endpoint", "api": kind, "endpoint": endpoint}
    run(call)
    (row,) = outputs(call)
    generated = row.get("generated", row["output"])
    assert (generated, row["finish_reason"]) == (cut(SAID, stop), "stop")


def test_the_ends_that_a_models_folder_names_end_an_answer_of_vllm_too(
    tmp_path: Path, runs_on: Path, server: FakeServer
) -> None:
    call = answer_call(tmp_path, PROMPT, {"path": {"path": str(runs_on)}}, prompt=CHATML)
    settings = runs_on / "generation_config.json"
    before = settings.read_text()
    settings.write_text(json.dumps({"eos_token_id": [2, 3]}))
    call.params["answer"]["engine"] = {"kind": "vllm"}
    try:
        run(replace(call, server={"base_url": server.url, "model": "model"}))
    finally:
        settings.write_text(before)
    assert server.asked[0]["stop_token_ids"] == [2, 3]


def test_a_chat_stops_at_the_rows_own_stop_texts(runs_on: Path) -> None:
    source = ModelSource.model_validate({"path": {"path": str(runs_on)}})
    tokenizer = load_tokenizer(source, {})
    model = load_model(source, {}, tokenizer, "bfloat16", "cpu")
    decoding = Decoding(max_new_tokens=24, stop=["<|im_end|>\n"])
    encoder = Encoder(tokenizer, Template.model_validate(CHATML))
    out = io.StringIO()
    Chat(model, tokenizer, encoder, decoding, "", False).answer(PROMPT[0]["instruction"], out)
    assert "Paris" in out.getvalue()
    assert "user" not in out.getvalue()
    assert "assistant" not in out.getvalue()


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_an_endpoints_answer_keeps_what_only_looks_like_a_special_token(
    tmp_path: Path, server: FakeServer, kind: str
) -> None:
    text = "Use <s>old</s> or f <|x|> g, and cat <|file|>."
    server.reply = lambda body: server.said(body, f"{text}<|im_end|>\nuser", "stop")
    prompt = {"prompt": {"path": "p", "text": "Q: {instruction}\nA:"}, "end": "<|im_end|>"}
    decoding = {"max_new_tokens": 99, "stop": ["<|im_end|>"]}
    call = answer_call(tmp_path, PROMPT, None, prompt=prompt, decoding=decoding)
    del call.params["model"]
    endpoint = {"model": "model", "base_url": server.url}
    call.params["answer"]["engine"] = {"kind": "endpoint", "api": kind, "endpoint": endpoint}
    run(call)
    assert outputs(call)[0]["output"] == text
