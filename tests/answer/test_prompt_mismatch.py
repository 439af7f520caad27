"""A model asked in another way than it was trained: what differs is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.answer.prompt_mismatch import compare, read_template
from harness.answer.run import run
from harness.modeling.load import bytes_tokenizer
from harness.spec.template import Template, load_template
from harness.train import run as train
from tests.modeling.calls import answer_call, template, train_call

SYSTEM = "You are a helpful assistant."
CHATML = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{{instruction}}<|im_end|>\n"
PROMPT = CHATML
"""Study 000's prompt.txt: ChatML without the assistant's header."""
PROMPT1 = "You are a helpful Assistant.\nHuman: {instruction}\nAssistant: "
PROMPT2 = CHATML + "<|im_start|>assistant\n"
PLAIN = "Human: {instruction}\nAssistant: "

NO_HEADER, ROLES = "missing assistant header", "other role markers"
NEW_SYSTEM = "a system text that training had not"
SPECIAL = "other special tokens"


def file(text: str, **fields: Any) -> Template:
    return Template.model_validate({"prompt": {"path": "p.txt", "text": text + "\n"}} | fields)


@pytest.mark.parametrize(
    ("trained", "asked", "differs", "severity"),
    [
        ("qwen@2024-04", PROMPT, [NO_HEADER], "error"),
        ("default@2024-04", PROMPT, [NO_HEADER, NEW_SYSTEM, ROLES, SPECIAL], "error"),
        ("qwen@2024-04", PROMPT1, ["another system text", ROLES, SPECIAL], "error"),
        ("default@2024-04", PROMPT1, [NEW_SYSTEM], "warning"),
        ("default@2024-04", PROMPT2, [NEW_SYSTEM, ROLES, SPECIAL], "error"),
        ("qwen", PROMPT2, ["another system text"], "warning"),
        ("qwen@2024-04", PROMPT2.replace(SYSTEM, ""),
         ["missing system text"], "warning"),
        ("default@2024-04", PLAIN.rstrip(), ["other white space"], "warning"),
        ("qwen@2024-04", PROMPT2 + "\n", ["other white space"], "warning"),
        ("default@2024-04", "<|endoftext|>" + PLAIN, [SPECIAL], "warning"),
    ],
)  # fmt: skip
def test_what_differs_between_training_and_evaluation_is_named(
    qwen: Any, trained: str, asked: str, differs: list[str], severity: str
) -> None:
    (found,) = compare(load_template(trained), file(asked), qwen)
    assert found.kind == "prompt_mismatch"
    assert found.evidence["differs"] == differs
    assert found.severity == severity
    assert all(name in found.message for name in differs)
    assert found.evidence["training_prompt"] != found.evidence["evaluation_prompt"]


def test_the_same_tokens_by_another_template_are_no_mismatch(qwen: Any) -> None:
    assert compare(load_template("qwen@2024-04"), file(PROMPT2), qwen) == []
    assert compare(load_template("default@2024-04"), file(PLAIN), qwen) == []


def test_the_first_difference_is_shown_in_tokens(qwen: Any) -> None:
    (found,) = compare(load_template("qwen@2024-04"), file(PROMPT), qwen)
    first = found.evidence["first_difference"]
    assert first["training"] == ["<|im_start|>", "assistant", "\n"]
    assert first["evaluation"] == []
    assert found.evidence["evaluation_prompt"] == PROMPT.replace(
        "{instruction}", "Name three colours."
    )


def test_an_input_in_another_place_and_another_end_are_named() -> None:
    tokenizer = bytes_tokenizer()
    one, two = file("Q: {instruction}\nA:"), file("Q: {instruction} ({input})\nA:")
    two = two.model_copy(update={"prompt": one.prompt, "prompt_with_input": two.prompt})
    (found,) = compare(one, two, tokenizer)
    assert found.evidence["differs"] == ["an input stands in another way"]
    (found,) = compare(file("Q: {instruction}\nA:", end="END"), one, tokenizer)
    assert found.evidence["differs"] == ["another end of the answers"]
    assert found.evidence["training_end"] == ["END"]
    assert found.evidence["first_difference"] is None


def test_a_row_whose_answers_are_asked_for_in_another_way_says_so(tmp_path: Path) -> None:
    call = train_call(tmp_path, epochs=1)
    train.run(call)
    same = answer_call(tmp_path, [{"instruction": "a"}], trained=call.folder)
    learnt = read_template(call.folder / "template.json")
    assert learnt.prompt is not None
    assert learnt.prompt.text.rstrip("\n") == "Q: {instruction}\nA:"
    assert [f for f in run(same).findings if f.kind == "prompt_mismatch"] == []
    (tmp_path / "other").mkdir()
    other = answer_call(
        tmp_path / "other", [{"instruction": "a"}], trained=call.folder,
        prompt=template("Q: {instruction}\n"),
    )  # fmt: skip
    (found,) = (f for f in run(other).findings if f.kind == "prompt_mismatch")
    assert found.evidence["differs"] == [NO_HEADER]
    assert json.dumps(found.to_json()), "it goes into the manifest"
