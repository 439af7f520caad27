"""Rendering a prompt, where the loss begins, and what ends an answer."""

import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from harness.answer import row_model
from harness.answer import run as answer
from harness.answer.decoding.decode import Decoder
from harness.errors import InputError
from harness.modeling.chat_template import chat_template_of
from harness.modeling.load import bytes_tokenizer, load_model
from harness.modeling.template_pieces import History, pieces
from harness.modeling.text import (
    Encoder,
    Example,
    encode_prompt,
    render,
)
from harness.spec.template import DATE, Template, load_template, template_names
from tests.modeling.calls import (
    IGNORED,
    answer_call,
    encode_example,
    outputs,
    random_model,
    template,
)

QWEN_TODAY = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
LLAMA_2 = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
    "being safe. Your answers should not include any harmful, unethical, racist, sexist, toxic, "
    "dangerous, or illegal content. Please ensure that your responses are socially unbiased and "
    "positive in nature.\n\nIf a question does not make any sense, or is not factually coherent, "
    "explain why instead of answering something not correct. If you don't know the answer to a "
    "question, please don't share false information."
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
LETTERS = "ab \n\t:.é漢🙂{}<|'"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


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


def test_no_token_spans_the_end_of_the_prompt(qwen: Any) -> None:
    tokenizer = qwen
    prompt, answer = "Q: What do we drink?\nA: wat", "er is good"
    together = tokenizer(prompt + answer)["input_ids"]
    asked = encode_prompt(tokenizer, prompt)
    assert together[: len(asked)] != asked, "the case must be one where tokens would merge"
    ids, labels = encode_example(tokenizer, prompt, answer)
    assert ids[: len(asked)] == asked
    assert tokenizer.decode([i for i in labels if i != IGNORED]) == answer + tokenizer.eos_token


def bytes_of(tokenizer, ids) -> str:  # type: ignore[no-untyped-def]
    return str(tokenizer.decode(ids))


def bytes_with(*special: str, bos: bool = True) -> Any:
    """A byte tokenizer that also knows these texts as one token each."""
    tokenizer = bytes_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"} if bos else {})
    tokenizer.add_tokens(list(special), special_tokens=True)
    return tokenizer


def for_template(named: Template) -> Any:
    tokenizer = bytes_with(*(named.special or ["<|im_start|>", "<|im_end|>"]))
    tokenizer.chat_template = CHATML if named.from_tokenizer else None
    return tokenizer


def written(name: str, input: str = "", system: str = "", history: History = ()) -> str:
    """A whole example, the answer's parts in brackets, the tokenizer's own tokens as <s> and </s>."""
    marks = {"bos": "<s>", "eos": "</s>"}
    found = pieces(load_template(name), "Why?", input, "So.", system, history)
    return "".join(
        f"[{text}]" if part.answer >= 0 else text
        for part in found
        for text in [marks.get(part.token, part.text)]
    )


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("default", "Human: Why?</s>\nAssistant:[So.][</s>]"),
        ("default@2024-04", "Human: Why?\nAssistant: [So.][</s>]"),
        ("qwen", f"<|im_start|>system\n{QWEN_TODAY}<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
         "<|im_start|>assistant\n[So.][<|im_end|>]"),
        ("qwen@2024-04", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
         "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n[So.][<|im_end|>]"),
        ("alpaca", "Below is an instruction that describes a task. Write a response that appropriately "
         "completes the request.\n\n### Instruction:\nWhy?\n\n### Response:[So.][</s>]"),
        ("alpaca-lora", "Below is an instruction that describes a task. Write a response that "
         "appropriately completes the request.\n\n### Instruction:\nWhy?\n\n### Response:\n[So.]"
         "[</s>]"),
        ("llama2", "<s>[INST] Why? [/INST][So.][</s>]"),
        ("llama2@2024-04", f"<s>[INST] <<SYS>>\n{LLAMA_2}\n<</SYS>>\n\nWhy? [/INST][So.][</s>]"),
        ("llama3", "<s><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n[So.][<|eot_id|>]"),
        ("vicuna", f"{VICUNA}USER: Why? ASSISTANT:[So.][</s>]"),
        ("mistral", "<s>[INST] Why?[/INST][ So.][</s>]"),
    ],
)  # fmt: skip
def test_an_example_stands_in_each_template_as_its_source_has_it(name: str, wanted: str) -> None:
    assert written(name) == wanted
    if not name.startswith("alpaca"):
        assert written(name, input="Rain.") == wanted.replace("Why?", "Why?\nRain.")


def test_alpaca_has_a_prompt_of_its_own_for_an_input() -> None:
    assert written("alpaca", input="Rain.") == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
        "Why?\n\n### Input:\nRain.\n\n### Response:[So.][</s>]"
    )
    newline = written("alpaca", input="Rain.").replace("### Response:", "### Response:\n")
    assert written("alpaca-lora", input="Rain.") == newline


CHATML_TURNS = (
    "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Yes][<|im_end|>]"
    "\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n[So.][<|im_end|>]"
)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("default", "System: S</s>\nHuman: Hi</s>\nAssistant:[Yes][</s>]\nHuman: Why?</s>\n"
         "Assistant:[So.][</s>]"),
        ("default@2024-04", "S\nHuman: Hi\nAssistant: [Yes][</s>]\nHuman: Why?\n"
         "Assistant: [So.][</s>]"),
        ("qwen", CHATML_TURNS),
        ("qwen@2024-04", CHATML_TURNS),
        ("llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nHi [/INST][Yes][</s>]<s>[INST] Why? [/INST]"
         "[So.][</s>]"),
        ("llama2@2024-04", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nHi [/INST][Yes][</s>]<s>[INST] Why? "
         "[/INST][So.][</s>]"),
        ("llama3", "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n[Yes][<|eot_id|>]"
         "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n[So.][<|eot_id|>]"),
        ("vicuna", "SUSER: Hi ASSISTANT:[Yes][</s>]USER: Why? ASSISTANT:[So.][</s>]"),
        ("mistral", "<s>[INST] S\n\nHi[/INST][ Yes][</s>][INST] Why?[/INST][ So.][</s>]"),
    ],
)  # fmt: skip
def test_a_system_text_and_earlier_turns_stand_as_the_source_has_them(
    name: str, wanted: str
) -> None:
    assert written(name, system="S", history=[("Hi", "Yes")]) == wanted


@pytest.mark.parametrize("template", ["alpaca", None])
def test_what_a_template_has_no_place_for_is_refused_and_not_dropped(template: str | None) -> None:
    named = load_template(template) if template else plain_template("{instruction}")
    with pytest.raises(InputError, match="no place for an example's system text"):
        pieces(named, "Why?", system="S")
    with pytest.raises(InputError, match="has no earlier turns"):
        pieces(named, "Why?", history=[("Hi", "Yes")])


def plain_template(text: str, **fields: Any) -> Template:
    return Template.model_validate(template(text) | fields)


def test_marks_and_places_in_the_data_stay_text() -> None:
    found = pieces(
        load_template("llama2"), "{eos} {system}", output="{bos}{output}", system="{bos}"
    )
    assert [part.token for part in found] == ["bos", "", "", "eos"]
    assert found[1].text == "[INST] <<SYS>>\n{bos}\n<</SYS>>\n\n{eos} {system} [/INST]"
    assert found[2].text == "{bos}{output}"


def test_a_prompt_file_is_encoded_as_before_there_were_other_fields() -> None:
    tokenizer = bytes_tokenizer()
    for text in ("Q: {instruction}\nA:\n", "{bos}{system}{instruction}{eos}|{input}|"):
        file = plain_template(text)
        encoder = Encoder(tokenizer, file)
        for given in ("", "rain"):
            prompt = render(file, "Why?", given)
            asked = encoder.prompt("Why?", given)
            assert asked == encode_prompt(tokenizer, prompt)
            ids, labels = encode_example(tokenizer, prompt, "So.")
            made = encoder.example("Why?", given, "So.")
            assert made.ids == ids
            assert made.answers == [(len(asked), len(ids))]
            assert labels[: len(asked)] == [IGNORED] * len(asked)


def test_what_the_tokenizer_puts_at_a_start_is_there_once_and_its_end_is_not() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = bytes_with()
    both = TemplateProcessing(
        single="<s> $A <eos>",
        special_tokens=[("<s>", tokenizer.bos_token_id), ("<eos>", tokenizer.eos_token_id)],
    )
    tokenizer.backend_tokenizer.post_processor = both
    made = Encoder(tokenizer, load_template("alpaca")).example("Why?", "", "So.")
    assert made.ids.count(tokenizer.bos_token_id) == 1 == made.ids.count(tokenizer.eos_token_id)
    assert made.ids[0] == tokenizer.bos_token_id
    named = Encoder(tokenizer, load_template("default@2024-04")).example("Why?", "", "So.")
    assert bytes_of(tokenizer, named.ids) == "Human: Why?\nAssistant: So.<eos>"


def some_examples(count: int, turns: bool) -> Iterator[Example]:
    draw = random.Random(7)

    def text(least: int) -> str:
        return "".join(draw.choices(LETTERS, k=draw.randint(least, 15)))

    for _ in range(count):
        earlier = [(text(1), text(0)) for _ in range(draw.randint(0, 2))] if turns else []
        system = draw.choice(["", text(1)]) if turns else ""
        yield Example(text(0), draw.choice(["", text(1)]), text(0), system, earlier)


@pytest.mark.parametrize("name", template_names())
@pytest.mark.parametrize("kind", ["bytes", "qwen"])
def test_prompt_and_answer_tokens_are_together_the_whole(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    named = load_template(name)
    tokenizer = for_template(named) if kind == "bytes" else request.getfixturevalue("qwen")
    if kind == "qwen" and name.startswith(("llama", "mistral")):
        pytest.skip("Qwen's tokenizer has no beginning token")
    encoder = Encoder(tokenizer, named)
    examples = list(some_examples(60, turns=not name.startswith("alpaca")))
    for example, tokens in zip(examples, encoder.examples(examples), strict=True):
        assert tokens == encoder.example(*example)
        begin, end = tokens.answers[-1]
        asked = encoder.prompt(example.instruction, example.input, example.system, example.history)
        assert tokens.ids[:begin] == asked
        assert end == len(tokens.ids)
        assert [tokens.ids[e - 1] for _, e in tokens.answers] == encoder.end_ids * len(
            tokens.answers
        )
        said = [turn[1] for turn in example.history] + [example.output]
        spans = [tokenizer.decode(tokens.ids[b : e - 1]) for b, e in tokens.answers]
        assert spans == [(" " if name == "mistral" else "") + text for text in said]
        shown = "".join(
            p.text or getattr(tokenizer, f"{p.token}_token", "") for p in encoder.pieces(*example)
        )
        assert tokenizer.decode(tokens.ids) == shown


def test_a_qwen_answer_ends_with_the_id_of_im_end_and_nothing_after(qwen: Any) -> None:
    encoder = Encoder(qwen, load_template("qwen"))
    tokens = encoder.example("Why?", "", "So.")
    assert tokens.ids[-1] == 151645
    assert encoder.end_ids == [151645]
    assert encoder.stop == []


def test_a_tokenizer_without_a_templates_tokens_is_refused_and_what_fits_is_named() -> None:
    with pytest.raises(InputError, match=r"qwen needs .*: <\|im_start\|>, <\|im_end\|>") as caught:
        Encoder(bytes_tokenizer(), load_template("qwen"))
    assert caught.value.hint.endswith("alpaca, alpaca-lora, default, default@2024-04, vicuna.")
    with pytest.raises(InputError, match="beginning-of-sequence"):
        Encoder(bytes_tokenizer(), load_template("mistral"))
    with pytest.raises(InputError, match="brings no chat template"):
        Encoder(bytes_tokenizer(), load_template("tokenizer"))


def test_an_end_that_is_no_token_is_a_stop_text() -> None:
    tokenizer = bytes_with("<|im_end|>")
    as_text = Encoder(tokenizer, plain_template("{instruction}", end="\n###", stop=["Q:"]))
    assert (as_text.end_ids, as_text.stop) == ([], ["Q:", "\n###"])
    tokens = as_text.example("Why?", "", "So.")
    assert bytes_of(tokenizer, tokens.ids[slice(*tokens.answers[0])]) == "So.\n###"
    token = Encoder(tokenizer, plain_template("{instruction}", end="<|im_end|>\n"))
    assert token.end_ids == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert token.stop == []


def test_a_special_token_in_a_text_is_told(qwen: Any) -> None:
    encoder = Encoder(qwen, load_template("qwen"))
    assert encoder.injected("end it <|im_end|> now")
    assert encoder.injected("<|endoftext|>")
    assert not encoder.injected("<|im_start and im_end|>")
    assert not Encoder(bytes_tokenizer(), load_template("alpaca")).injected("<|im_end|>")


def test_the_tokenizers_own_prompt_is_what_its_chat_template_makes(qwen: Any) -> None:
    encoder = Encoder(qwen, load_template("tokenizer"))
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Why?\nRain."},
    ]
    wanted = qwen.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert encoder.prompt("Why?", "Rain.", "S", [("Hi", "Yes")]) == wanted
    by_name = Encoder(qwen, load_template("qwen@2024-04"))
    example = Example("Why?", "Rain.", "So.", "", [("Hi", "Yes")])
    assert encoder.example(*example) == by_name.example(*example)


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "no special token after an answer"),
        ("{% for m in messages %}{% if not loop.last %}old {% endif %}{{ m['content'] }}<|im_end|>"
         "{% endfor %}", "in another way once more follows"),
        ("{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
         "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}",
         "cannot be filled: no system"),
        ("{{ messages[0]", "cannot be filled: unexpected end"),
    ],
)  # fmt: skip
def test_a_chat_template_that_cannot_be_trained_on_is_refused_in_words(
    chat: str, said: str
) -> None:
    tokenizer = bytes_with("<|im_end|>")
    tokenizer.chat_template = chat
    with pytest.raises(InputError, match=said):
        Encoder(tokenizer, load_template("tokenizer")).example("Why?", "", "So.", "S", [("a", "b")])


def test_generation_stops_at_the_templates_end_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = bytes_with("<|im_start|>", "<|im_end|>", bos=False)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    end, letter = tokenizer.convert_tokens_to_ids(["<|im_end|>", "y"])
    assert end != tokenizer.eos_token_id
    steps: list[int] = []

    def says_yyy_and_ends(*given: Any) -> Any:
        model = load_model(*given)

        def three_and_the_end(module: Any, args: Any, logits: Any) -> Any:
            steps.append(len(steps))
            logits[..., end if len(steps) == 4 else letter] += 1e4
            return logits

        model.lm_head.register_forward_hook(three_and_the_end)
        return model

    monkeypatch.setattr(row_model, "load_model", says_yyy_and_ends)
    monkeypatch.setattr(Decoder, "_probe", lambda self: "")  # whose passes would be counted too
    source = random_model(tokenizer=str(tmp_path / "tokenizer"), max_position_embeddings=512)
    call = answer_call(
        tmp_path,
        [{"instruction": "Why?"}],
        model=source,
        prompt=load_template("qwen").model_dump(),
    )
    answer.run(call)
    [made] = outputs(call)
    assert (made["output"], made["finish_reason"], made["tokens"]) == ("yyy", "stop", 3)
    assert len(steps) == 4, "it went on after the end"


def test_an_end_of_more_than_a_token_ends_an_answer_with_its_mark_and_not_its_newline() -> None:
    layout = {"prompt": {"path": "p.txt", "text": "{instruction}"}, "start": "", "end": "\n{eos}"}
    encoder = Encoder(bytes_tokenizer(), Template.model_validate(layout))
    assert encoder.end_ids == [bytes_tokenizer().eos_token_id]


DROPS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] in ('user', 'assistant') %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('no place for a system text') }}{% endif %}"
)


@pytest.mark.parametrize(
    "jinja", [DROPS_SYSTEM, REFUSES_SYSTEM + DROPS_SYSTEM], ids=["drops", "refuses"]
)
def test_a_system_text_that_the_tokenizers_template_would_leave_out_is_refused(
    real_model: Path, jinja: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    given = {"system": "Be brief."}
    assert "Be brief." in tokenizer.decode(
        Encoder(tokenizer, load_template("tokenizer")).prompt("a", **given)
    )
    tokenizer.chat_template = jinja
    encoder = Encoder(tokenizer, load_template("tokenizer"))
    assert (
        tokenizer.decode(encoder.prompt("a"))
        == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(InputError, match="no place for a system text"):
        encoder.prompt("a", **given)
    with_own = Template.model_validate({"name": "tokenizer", **given})
    with pytest.raises(InputError, match="no place for a system text"):
        Encoder(tokenizer, with_own).example("a", "", "b")


def begins(real_model: Path) -> Any:
    """The real tokenizer, as one that puts its <|im_start|> before every text."""
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    return tokenizer


def test_a_text_never_begins_with_two_beginning_tokens(real_model: Path) -> None:
    tokenizer = begins(real_model)
    text = "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(InputError, match=r"begins with <\|im_start\|>, and the tokenizer puts one"):
        Encoder(tokenizer, Template.model_validate(template(text)))
    alone = Template.model_validate(template(text) | {"start": ""})
    assert (
        Encoder(tokenizer, alone).prompt("a")[:2]
        == tokenizer("<|im_start|>user", add_special_tokens=False)["input_ids"]
    )
    assert Encoder(tokenizer, load_template("tokenizer")).prompt("a").count(1) == 3
    plain = Encoder(tokenizer, Template.model_validate(template("Q: {instruction}\nA:")))
    assert plain.prompt("a")[0] == 1


ASKS = "{% macro on(how) %}{{ strftime_now(how) }}{% endmacro %}{{ on('%Y-%m-%d') }} "
TOLD = "{% if not date_string is defined %}{% set date_string = 'never' %}{% endif %}{{ date_string }} "


@pytest.mark.parametrize(
    ("jinja", "default", "other"),
    [(ASKS, "2024-07-26", "2025-01-02"), (TOLD, "26 Jul 2024", "02 Jan 2025")],
)
def test_a_template_that_asks_for_todays_date_is_given_the_rows(
    real_model: Path, jinja: str, default: str, other: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    assert not Encoder(tokenizer, load_template("tokenizer")).notes
    tokenizer.chat_template = jinja + tokenizer.chat_template
    for date, wanted in ((None, default), ("2025-01-02", other)):
        named = Template.model_validate({"name": "tokenizer", "date": date})
        encoder = Encoder(tokenizer, named)
        shown = tokenizer.decode(encoder.example("a", "", "b").ids)
        assert shown.startswith(wanted)
        (note,) = encoder.notes
        assert str(named.date) in note
        exported = chat_template_of(tokenizer, named)
        messages = [{"role": "user", "content": "a"}]
        made = tokenizer.apply_chat_template(
            messages, chat_template=exported, add_generation_prompt=True, return_dict=False
        )
        assert made == encoder.prompt("a")


def test_a_day_is_part_of_what_decides_a_template_and_of_no_other() -> None:
    dated = Template.model_validate({"name": "tokenizer", "date": "2025-01-02"})
    assert dated.model_dump()["date"] == "2025-01-02"
    assert load_template("tokenizer").date == DATE
    assert Template.model_validate({"from_tokenizer": True}).date == DATE
    assert Template.model_validate(yaml.safe_load("{name: tokenizer, date: 2025-01-02}")) == dated
    assert load_template("qwen").date is None
    for wrong in ({"name": "qwen", "date": "2025-01-02"}, {"name": "tokenizer", "date": "today"}):
        with pytest.raises(ValueError, match="day"):
            Template.model_validate(wrong)


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (" ###{eos}", [" ###"]),
        ("</answer><|im_end|>", ["</answer>"]),
        ("\n<|im_end|>", []),
        ("<|im_end|>\n", []),
    ],
)
def test_the_text_before_an_ends_token_is_no_part_of_the_answer(
    real_model: Path, end: str, text: list[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    fields = template("Q: {instruction}\nA:") | {"start": "", "end": end}
    assert Encoder(tokenizer, Template.model_validate(fields)).stops() == ([2], text)


def test_the_text_before_the_token_that_ends_a_tokenizers_own_template_is_a_stop_text(
    real_model: Path,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "</turn><|im_end|>")
    assert Encoder(tokenizer, load_template("tokenizer")).stops() == ([2], ["</turn>"])


@pytest.mark.parametrize(
    "more",
    [
        {"system_layout": "<|im_start|>{system}\n"},
        {"prompt_with_input": {"path": "q.txt", "text": "<|im_start|>{instruction} {input}"}},
    ],
)
def test_no_layout_begins_with_two_beginning_tokens(real_model: Path, more: Any) -> None:
    fields = template("Q: {instruction}\nA:") | more
    with pytest.raises(InputError, match=r"begins with <\|im_start\|>"):
        Encoder(begins(real_model), Template.model_validate(fields))


HOW = "%w %u %V %U %G %P %k %l %C %n %-I %-H %-y %d %%d %% %10d %Y"


def test_every_directive_of_a_date_is_written_as_python_writes_it(real_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    tokenizer.chat_template = "{{ strftime_now('" + HOW + " %s') }}" + tokenizer.chat_template
    named = load_template("tokenizer")
    wanted = datetime(2024, 7, 26).strftime(HOW) + " 1721952000<|im_start|>"
    messages = [{"role": "user", "content": "a"}]
    exported = chat_template_of(tokenizer, named)
    written = tokenizer.apply_chat_template(messages, chat_template=exported, tokenize=False)
    assert written.startswith(wanted)
    assert tokenizer.decode(Encoder(tokenizer, named).prompt("a")).startswith(wanted)
    tokenizer.chat_template = tokenizer.chat_template.replace("%w", "%!")
    with pytest.raises(InputError, match="no day can be written as %!"):
        Encoder(tokenizer, named)


@pytest.mark.parametrize(
    "asks", ["add_generation_prompt", "messages|length > 3", "messages[0]['content'] == 'now'"]
)
def test_a_template_that_seldom_asks_for_the_date_is_exported_with_it(
    real_model: Path, asks: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    tokenizer.chat_template += "{% if " + asks + " %}{{ strftime_now('%Y') }}{% endif %}"
    named = Template.model_validate({"name": "tokenizer", "date": "2001-02-03"})
    assert "2001-02-03" in Encoder(tokenizer, named).notes[0]
    messages = [{"role": "user", "content": "now"}] * 4
    exported = chat_template_of(tokenizer, named)
    assert tokenizer.apply_chat_template(
        messages, chat_template=exported, tokenize=False, add_generation_prompt=True
    ).endswith("2001")
