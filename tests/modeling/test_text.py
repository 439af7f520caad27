"""Rendering a prompt, and where the loss begins."""

import random

import pytest

from harness.modeling.load import bytes_tokenizer
from harness.modeling.text import IGNORED, encode_example, encode_prompt, render
from harness.spec.models import Template
from tests.modeling.calls import template


def rendered(text: str, instruction: str, given: str = "") -> str:
    return render(Template.model_validate(template(text)), instruction, given)


@pytest.mark.parametrize(
    ("text", "instruction", "given", "wanted"),
    [
        ("Q: {instruction}\nA:\n", "Why?", "", "Q: Why?\nA:"),
        ("Q: {instruction}\nA:\r\n", "Why?", "", "Q: Why?\nA:"),
        ("Q: {instruction}\nA:\n\n", "Why?", "", "Q: Why?\nA:\n"),
        ("Q: {instruction}\nA:", "Why?", "rain", "Q: Why?\nrain\nA:"),
        ("{instruction}|{input}|", "Why?", "rain", "Why?|rain|"),
        ("{instruction}|{input}|", "Why?", "", "Why?||"),
        ("{instruction}|{input}", "the {input} of {x} {{y}}", "{instruction}",
         "the {input} of {x} {{y}}|{instruction}"),
        ('{"ask": "{instruction}"} {}', "a\\1b", "", '{"ask": "a\\1b"} {}'),
        ("{instruction} / {instruction}", "twice", "", "twice / twice"),
    ],
)  # fmt: skip
def test_a_template_is_filled_once_and_braces_in_the_data_are_left_alone(
    text: str, instruction: str, given: str, wanted: str
) -> None:
    assert rendered(text, instruction, given) == wanted


def test_the_labels_are_the_answer_and_the_end_token_and_nothing_of_the_prompt() -> None:
    tokenizer = bytes_tokenizer()
    draw = random.Random(0)
    letters = "ab \n:é漢🙂{}"
    for _ in range(200):
        prompt = "".join(draw.choices(letters, k=draw.randint(1, 20)))
        answer = "".join(draw.choices(letters, k=draw.randint(0, 20)))
        ids, labels = encode_example(tokenizer, prompt, answer)
        begin = len(prompt.encode())
        assert bytes_of(tokenizer, ids[:begin]) == prompt
        assert labels[:begin] == [IGNORED] * begin
        assert labels[begin:] == ids[begin:]
        assert bytes_of(tokenizer, ids[begin:-1]) == answer
        assert ids[-1] == tokenizer.eos_token_id


def test_no_token_spans_the_end_of_the_prompt(shared_data) -> None:  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen1.5-0.5b")
    prompt, answer = "Q: What do we drink?\nA: wat", "er is good"
    together = tokenizer(prompt + answer)["input_ids"]
    asked = encode_prompt(tokenizer, prompt)
    assert together[: len(asked)] != asked, "the case must be one where tokens would merge"
    ids, labels = encode_example(tokenizer, prompt, answer)
    assert ids[: len(asked)] == asked
    assert tokenizer.decode([i for i in labels if i != IGNORED]) == answer + tokenizer.eos_token


def bytes_of(tokenizer, ids) -> str:  # type: ignore[no-untyped-def]
    return str(tokenizer.decode(ids))
