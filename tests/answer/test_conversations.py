"""Prompts of several turns: every engine answers the last one after the turns before it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers

from harness.answer.run import run
from harness.artefact.call import StageCall
from harness.errors import InputError
from harness.judge import run as judge
from tests.judge.test_run import make_call
from tests.llm.fake_server import Answer, FakeServer, last_message
from tests.modeling.calls import answer_call, outputs, template, write_jsonl

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "My name is Ada."},
    {"role": "assistant", "content": "Hello, Ada."},
    {"role": "user", "content": "What is my name?"},
]
INSTRUCTION = (
    "System: Be brief.\n\nUser: My name is Ada.\n\nAssistant: Hello, Ada.\n\nUser: What is my name?"
)
SET = [{"messages": [*MESSAGES, {"role": "assistant", "content": "Ada."}]}]


def talk_call(folder: Path, model: Path | None, **answer: Any) -> StageCall:
    source = None if model is None else {"path": str(model)}
    call = answer_call(folder, SET, model=source, decoding={"max_new_tokens": 3}, **answer)
    call.params["model"] = source
    return call


def expected_ids(model: Path) -> list[int]:
    """By the library's own rendering of the whole conversation."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_the_rows_own_model_is_given_the_tokens_of_the_whole_conversation(
    tmp_path: Path, real_model: Path
) -> None:
    call = talk_call(tmp_path, real_model, prompt="tokenizer")
    run(call)
    [row] = outputs(call)
    assert row["prompt_tokens"] == len(expected_ids(real_model))
    assert row["instruction"] == INSTRUCTION
    again = tmp_path / "again"
    again.mkdir()
    run(replace(call, work=str(again), replay=True, inputs={"recorded": call.work}))
    assert (again / "model_outputs.json").read_bytes() == (
        call.folder / "model_outputs.json"
    ).read_bytes()


def script(body: dict[str, Any], seen: int) -> Answer:
    return "Ada."


def test_vllm_is_given_the_tokens_of_the_whole_conversation(
    tmp_path: Path, real_model: Path
) -> None:
    call = talk_call(tmp_path, real_model, prompt="tokenizer")
    call.params["answer"]["engine"] = {"kind": "vllm"}
    with FakeServer(script) as server:
        given = {"base_url": server.base_url, "model": "served"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.answer.engines.vllm.engine._served_by", lambda url: ["served"])
            run(replace(call, server=given))
    assert [body["prompt"] for body in server.requests] == [expected_ids(real_model)]


def test_a_chat_is_sent_every_turn_and_a_completion_the_templates_text_of_them(
    tmp_path: Path, real_model: Path
) -> None:
    with FakeServer(script) as server:
        for api, model in (("chat", None), ("completion", real_model)):
            (tmp_path / api).mkdir()
            call = talk_call(tmp_path / api, model, prompt="tokenizer")
            call.params["answer"]["engine"] = {
                "kind": "endpoint",
                "endpoint": server.endpoint().model_dump(mode="json"),
                "api": api,
            }
            run(call)
            assert outputs(call)[0]["instruction"] == INSTRUCTION
    chat, text = server.requests
    assert chat["messages"] == MESSAGES
    tokenizer = transformers.AutoTokenizer.from_pretrained(real_model)
    assert text["prompt"] == tokenizer.decode(expected_ids(real_model))


def test_given_outputs_are_matched_by_the_whole_conversation(tmp_path: Path) -> None:
    rows = [{"instruction": INSTRUCTION, "output": "Ada."}]
    given = write_jsonl(tmp_path / "given.jsonl", rows)
    call = talk_call(tmp_path, None)
    call.params["answer"]["engine"] = {"kind": "reference", "outputs": str(given)}
    run(call)
    assert outputs(call)[0]["output"] == "Ada."


def test_a_template_without_earlier_turns_refuses_them(tmp_path: Path, real_model: Path) -> None:
    call = talk_call(tmp_path, real_model, prompt=template("### Instruction: {instruction}"))
    write_jsonl(tmp_path / "prompts.jsonl", [{"messages": MESSAGES[1:]}])
    with pytest.raises(InputError, match="has no earlier turns"):
        run(call)


@pytest.mark.parametrize("kind", ["preference", "alpaca_eval"])
def test_a_judge_is_shown_the_whole_conversation(tmp_path: Path, kind: str) -> None:
    own = [{"instruction": INSTRUCTION, "output": "Ada.", "generator": "model"}]
    baseline = [{"instruction": INSTRUCTION, "output": "Bob.", "generator": "base"}]
    with FakeServer(lambda body, seen: "a" if kind == "preference" else "Output (a)") as server:
        call = make_call(tmp_path, server.endpoint(), own, baseline, kind, prompts=SET)
        result = judge.run(call)
    assert result.counts["judged"] == 1
    [body] = server.requests
    assert INSTRUCTION in last_message(body)
