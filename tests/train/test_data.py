"""What becomes of each record: rendered, marked, cut, held out, dropped and counted; and the cache."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import InputError
from harness.modeling.load import bytes_tokenizer
from harness.spec.template import Template, load_template
from harness.spec.train import Train
from harness.train import data as data_module
from harness.train.data import ANSWER, COUNTED, Data, encode, load_data
from harness.train.examples import read_examples
from tests.modeling.calls import EXAMPLES, train_call, write_jsonl

PLAIN = Template.model_validate({"prompt": {"path": "p.txt", "text": "{instruction}"}})
TURNS = Template.model_validate("default@2024-04")
GOOD = {"instruction": "q", "input": "", "output": "a", "system": "", "history": []}
PAIR = {"instruction": "q", "chosen": "yes", "rejected": "never"}


def read(
    tmp_path: Path, *records: dict[str, Any], template: Template = PLAIN, **train: Any
) -> Data:
    path = write_jsonl(tmp_path / "data.jsonl", list(records))
    return encode(path, Train.model_validate(train), template, bytes_tokenizer())


def text(ids: Any) -> str:
    return str(bytes_tokenizer().decode(ids))


def marked(data: Data, mark: int, sequence: int = 0) -> str:
    """The text whose tokens have this mark."""
    a, b = data.train.bounds[sequence : sequence + 2]
    return text(data.train.ids[a:b][(data.train.marks[a:b] & mark) > 0])


def test_the_answer_with_its_end_is_what_counts(tmp_path: Path) -> None:
    data = read(tmp_path, GOOD)
    assert text(data.train.ids) == "qa<eos>"
    assert marked(data, ANSWER) == marked(data, COUNTED) == "a<eos>"
    assert data.train.counted().tolist() == [2]


def test_the_prompt_counts_when_asked_but_never_the_first_token(tmp_path: Path) -> None:
    data = read(tmp_path, {**GOOD, "instruction": "why"}, train_on_prompt=True)
    assert marked(data, COUNTED) == "whya<eos>"
    assert marked(data, ANSWER) == "a<eos>"
    assert data.train.counted().tolist() == [4]


def test_earlier_turns_are_read_and_count_when_asked(tmp_path: Path) -> None:
    record = {**GOOD, "history": [["q0", "a0"]], "system": "Be brief."}
    masked = read(tmp_path, record, template=TURNS)
    whole = text(masked.train.ids)
    assert whole.index("Be brief.") < whole.index("q0") < whole.index("a0") < whole.index("q\n")
    assert marked(masked, COUNTED) == "a<eos>"
    counted = read(tmp_path, record, template=TURNS, train_on_history=True)
    assert marked(counted, COUNTED) == "a0<eos>a<eos>"
    assert marked(counted, ANSWER) == "a<eos>"


def test_a_pair_is_two_sequences_with_the_same_prompt(tmp_path: Path) -> None:
    data = read(tmp_path, PAIR, {**PAIR, "chosen": "c"}, objective="orpo")
    assert len(data.train) == 2
    assert [text(ids) for ids, _ in data.train.sequences(1)] == ["qc<eos>", "qnever<eos>"]
    assert data.train.sizes().tolist() == [5 + 7, 3 + 7]
    assert data.train.counted().tolist() == [4, 2], "only the chosen answer is in the likelihood"


@pytest.mark.parametrize(
    ("record", "train", "said"),
    [
        (PAIR, {}, "holds chosen and rejected answers"),
        (GOOD, {"objective": "orpo"}, "no chosen and rejected answers"),
        ({**GOOD, "history": "before"}, {}, "`history` must be a list"),
        ({**GOOD, "history": [["only one"]]}, {}, "`history` must be a list"),
        ({**GOOD, "system": ["x"]}, {}, "`system` must be a text"),
        ({**GOOD, "history": [["q0", "a0"]]}, {}, "history|earlier turns"),
        ({**GOOD, "system": "Be brief."}, {}, "system"),
    ],
)
def test_a_record_that_cannot_be_trained_on_as_it_is_is_named_with_its_line(
    tmp_path: Path, record: dict[str, Any], train: dict[str, Any], said: str
) -> None:
    first = PAIR if train else GOOD
    with pytest.raises(InputError, match=said) as caught:
        read(tmp_path, first, record, **train)
    assert "data.jsonl:2: " in caught.value.message
    assert caught.value.hint or "history" in said or "system" in said


def test_empty_system_and_history_stop_nothing(tmp_path: Path) -> None:
    absent = {"instruction": "q", "output": "a"}
    null = {**absent, "system": None, "history": None}
    data = read(tmp_path, GOOD, absent, null)
    assert data.counts.records == len(data.train) == 3


@pytest.mark.parametrize(("side", "left"), [("right", "qlong ans"), ("left", "g answer<eos>")])
def test_a_long_example_is_cut_on_the_side_that_is_said(
    tmp_path: Path, side: str, left: str
) -> None:
    record = {**GOOD, "output": "long answer"}
    data = read(tmp_path, record, cutoff_length=9, truncation_side=side)
    assert text(data.train.ids) == left
    assert data.counts.truncated == 1


def test_a_pair_of_which_the_cut_leaves_one_side_no_answer_goes_as_a_whole(tmp_path: Path) -> None:
    long = {**PAIR, "instruction": "x" * 8}
    data = read(tmp_path, PAIR, long, objective="orpo", cutoff_length=8)
    assert (data.counts.examples, data.counts.dropped_cut) == (1, 1)


def test_records_with_special_tokens_in_their_text_are_counted(tmp_path: Path) -> None:
    data = read(tmp_path, GOOD, {**GOOD, "instruction": "stop<eos>now"})
    assert data.counts.special_tokens == 1


@pytest.mark.parametrize("name", ["qwen@2024-04", "tokenizer"])
def test_an_answer_that_holds_a_real_templates_own_token_is_told(
    tmp_path: Path, real_model: Path, name: str
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_model)
    rows = [GOOD, {**GOOD, "output": "a<|im_end|>\nmore"}, {**GOOD, "instruction": "<|im_end|>"}]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    data = encode(path, Train.model_validate({}), Template.model_validate(name), tokenizer)
    assert (data.counts.special_tokens, data.counts.special_in_answers) == (2, 1)
    assert data.counts.notes(2048) == [
        "1 of 3 examples have one of the tokenizer's special tokens in the text of an answer, where "
        "it is learnt as that token"
    ]


def test_whatever_is_left_out_is_said_with_its_rule_and_of_how_many(tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [GOOD, {**GOOD, "output": ""}])
    rows = [GOOD, {**GOOD, "output": " "}, {**GOOD, "train": False}, {**GOOD, "label": "toxic"}]
    rows += [{**GOOD, "instruction": "x" * 9}, {**GOOD, "output": "long answer"}]
    data = read(tmp_path, *rows, cutoff_length=9, validation={"file": str(other)})
    assert data.counts.notes(9) == [
        "1 of 6 records were left out: they have an empty answer",
        "1 of 6 records were left out: they are marked as not to be trained on",
        "1 of 6 records were left out: they have no answer left within 9 tokens",
        "1 of 3 examples were cut to 9 tokens",
        "1 of 2 records of the validation file were left out: their answer is empty, or marked as not "
        "to be trained on",
    ]
    assert not read(tmp_path, GOOD).counts.notes(9)


def test_an_earlier_answer_that_is_marked_is_never_trained_on(tmp_path: Path) -> None:
    record = {**GOOD, "history": [["q0", "a0"], ["q1", "a1"]], "untrained_turns": [0]}
    data = read(tmp_path, record, template=TURNS, train_on_history=True, train_on_prompt=True)
    counted = marked(data, COUNTED)
    assert "a0" not in counted
    assert "a1<eos>" in counted
    assert "q0" in counted
    with pytest.raises(InputError, match=r"data.jsonl:1: `untrained_turns` must be"):
        read(tmp_path, {**record, "untrained_turns": [2]}, template=TURNS)


def test_a_number_is_trained_on_as_its_digits_and_nothing_as_absent(tmp_path: Path) -> None:
    data = read(tmp_path, {"instruction": "q", "input": float("nan"), "system": None, "output": 42})
    assert text(data.train.ids) == "q42<eos>"


def test_a_share_is_held_out_and_never_cut_or_trained_on(tmp_path: Path) -> None:
    records = [
        {**GOOD, "instruction": f"question {i}", "output": f"answer {i}" * 9} for i in range(20)
    ]
    data = read(tmp_path, *records, validation={"share": 0.25}, cutoff_length=20)
    assert data.held_out is not None
    assert (data.counts.examples, data.counts.held_out, len(data.held_out)) == (15, 5, 5)
    held = {text(ids)[:11] for n in range(5) for ids, _ in data.held_out.sequences(n)}
    trained = {text(ids)[:11] for n in range(15) for ids, _ in data.train.sequences(n)}
    assert not held & trained
    assert data.held_out.sizes().min() > 20
    assert data.held_out.answer_bytes.tolist() == [
        len(text(ids[(marks & ANSWER) > 0]).removesuffix("<eos>").encode())
        for n in range(5)
        for ids, marks in data.held_out.sequences(n)
    ]


def test_another_seed_holds_out_others_and_the_same_seed_the_same(tmp_path: Path) -> None:
    records = [{**GOOD, "instruction": f"{i}"} for i in range(30)]
    drawn = []
    for seed in (1, 1, 2):
        data = read(tmp_path, *records, validation={"share": 0.2, "seed": seed})
        assert data.held_out is not None
        drawn.append(text(data.held_out.ids))
    assert drawn[0] == drawn[1] != drawn[2]


def test_held_out_examples_may_be_a_file_of_their_own(tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [GOOD, {**GOOD, "output": "bb"}, GOOD])
    data = read(tmp_path, GOOD, validation={"file": str(other), "first": 2})
    assert data.held_out is not None
    assert text(data.held_out.ids) == "qa<eos>qbb<eos>"
    assert (data.counts.examples, data.counts.held_out) == (1, 0)


def test_tokens_are_taken_from_the_cache_when_nothing_that_decides_them_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    real = data_module.encode

    def counting(path: Path, *rest: Any) -> Data:
        calls.append(path)
        return real(path, *rest)

    monkeypatch.setattr(data_module, "encode", counting)
    call = train_call(tmp_path)

    def load(template: Template = PLAIN, **train: Any) -> Data:
        return load_data(call, Train.model_validate(train), template, bytes_tokenizer())

    first, again = load(), load()
    assert len(calls) == 1
    assert np.array_equal(first.train.ids, again.train.ids)
    assert np.array_equal(first.train.marks, again.train.marks)
    assert (first.counts, first.simulated) == (again.counts, again.simulated)
    load(learning_rate=1.0, seed=7, batch_size=1)
    assert len(calls) == 1, "what decides no token makes no difference"
    for changed in (
        {"cutoff_length": 24},
        {"train_on_prompt": True},
        {"validation": {"share": 0.5}},
    ):
        load(**changed)
    load(TURNS)
    assert len(calls) == 5
    write_jsonl(tmp_path / "data" / "data.jsonl", EXAMPLES[:3])
    assert len(load().train) == 3


def test_a_broken_cache_is_made_anew(tmp_path: Path) -> None:
    call = train_call(tmp_path)
    first = load_data(call, Train(), PLAIN, bytes_tokenizer())
    (cached,) = (call.folder / "tokens").glob("*.npz")
    for broken in (b"", b"PK\x03\x04 half", json.dumps({}).encode()):
        cached.write_bytes(broken)
        again = load_data(call, Train(), PLAIN, bytes_tokenizer())
        assert np.array_equal(first.train.ids, again.train.ids)


def real_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


BARE = Template.model_validate(
    {"prompt": {"path": "p", "text": "{instruction}:\n\n\n"}, "start": "", "separator": "\n"}
)


@pytest.mark.parametrize(
    ("tokenize", "prompt", "answer"),
    [("apart", "Say it:\n\n", "Yes.<|im_end|>"), ("together", "Say it:\n", "\nYes.<|im_end|>")],
)
def test_a_real_tokenizer_draws_another_border_where_prompt_and_answer_are_one_text(
    tmp_path: Path, real_model: Path, tokenize: str, prompt: str, answer: str
) -> None:
    tokenizer = real_tokenizer(real_model)
    path = write_jsonl(tmp_path / "data.jsonl", [{"instruction": "Say it", "output": "Yes."}])
    data = encode(path, Train.model_validate({"tokenize": tokenize}), BARE, tokenizer)
    is_answer = (data.train.marks & ANSWER) > 0
    assert tokenizer.decode(data.train.ids[~is_answer]) == prompt
    assert tokenizer.decode(data.train.ids[is_answer]) == answer
    alone, whole = (
        tokenizer("Say it:\n\n")["input_ids"],
        tokenizer("Say it:\n\nYes.")["input_ids"],
    )
    if (
        tokenize == "together"
    ):  # Stanford Alpaca's: labels of the first len(alone) tokens are masked
        assert data.train.ids.tolist() == [*whole, tokenizer.eos_token_id]
        assert is_answer.tolist().index(True) == len(alone)


def test_what_is_tokenized_together_has_the_tokens_of_the_whole_text_in_every_turn(
    tmp_path: Path, real_model: Path
) -> None:
    tokenizer = real_tokenizer(real_model)
    chat = load_template("tokenizer")
    record = {"instruction": "And\n", "output": "\nno.", "history": [["Hi", " \nyes"]]}
    path = write_jsonl(tmp_path / "data.jsonl", [record])
    made = {
        how: encode(path, Train.model_validate({"tokenize": how}), chat, tokenizer).train.ids
        for how in ("apart", "together")
    }
    messages = [
        {"role": role, "content": text}
        for role, text in (("user", "Hi"), ("assistant", " \nyes"), ("user", "And\n"),
                           ("assistant", "\nno."))
    ]  # fmt: skip
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    whole = tokenizer(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]
    assert made["together"].tolist() == whole
    assert made["apart"].tolist() != whole
    assert tokenizer.decode(made["apart"]) == tokenizer.decode(whole)


def test_an_answer_without_its_end_is_trained_on_without_one_and_earlier_turns_keep_theirs(
    tmp_path: Path,
) -> None:
    data = read(tmp_path, GOOD, append_end=False)
    assert text(data.train.ids) == "qa"
    assert marked(data, COUNTED) == "a"
    turns = {**GOOD, "history": [["h", "t"]]}
    data = read(tmp_path, turns, template=load_template("default@2024-04"), append_end=False)
    assert text(data.train.ids).endswith("Human: h\nAssistant: t<eos>\nHuman: q\nAssistant: a")


@pytest.mark.parametrize(
    ("truncation", "prompt", "answer", "left"),
    [
        # (prompt, answer) of what LLaMA-Factory 0.7.1's infer_max_len leaves of them at 20 tokens
        ("shared@2024-04", 30, 10, (15, 5)),
        ("shared@2024-04", 10, 30, (5, 15)),
        ("shared@2024-04", 90, 2, (19, 1)),
        ("shared@2024-04", 2, 90, (1, 19)),
        ("shared@2024-04", 12, 8, (12, 8)),
        # ... and 0.9.3's infer_seqlen
        ("shared", 30, 10, (15, 5)),
        ("shared", 90, 2, (18, 2)),
        ("shared", 2, 90, (2, 18)),
        ("shared", 30, 9, (11, 9)),
        ("shared", 9, 30, (9, 11)),
        ("shared", 12, 8, (12, 8)),
        ("whole", 30, 10, None),
        ("whole", 9, 30, (9, 11)),
    ],
)
def test_a_cut_that_is_shared_leaves_of_prompt_and_answer_what_llama_factory_does(
    tmp_path: Path, truncation: str, prompt: int, answer: int, left: tuple[int, int] | None
) -> None:
    # The answer's last token is its end.
    long = {"instruction": "p" * prompt, "output": "a" * (answer - 1)}
    data = read(tmp_path, GOOD, long, cutoff_length=20, truncation=truncation)
    if left is None:
        assert (data.counts.dropped_cut, data.counts.truncated, len(data.train)) == (1, 0, 1)
        return
    begin, end = data.train.bounds[1:3]
    said = text(data.train.ids[begin:end])
    assert (said.count("p"), len(data.train.ids[begin:end]) - said.count("p")) == left
    assert marked(data, ANSWER, 1).removesuffix("<eos>") == "a" * min(left[1], answer - 1)
    assert data.counts.truncated == (sum(left) < prompt + answer)


def test_turns_share_in_llama_factorys_order_the_last_first_only_today_and_with_history_masked(
    tmp_path: Path,
) -> None:
    turns = {**GOOD, "instruction": "Q" * 12, "output": "A" * 11, "history": [["q" * 12, "a" * 11]]}
    template = Template.model_validate(
        {"prompt": {"path": "p", "text": "{instruction}"}, "start": "", "separator": ""}
    )

    def kept(**train: Any) -> str:
        data = read(tmp_path, turns, template=template, cutoff_length=32, **train)
        return text(data.train.ids)

    first = "q" * 12 + "a" * 11 + "<eos>" + "Q" * 4 + "A" * 4
    assert kept(truncation="shared@2024-04") == first
    assert kept(truncation="shared", train_on_history=True) == first
    last = "q" * 4 + "a" * 4 + "Q" * 12 + "A" * 11 + "<eos>"
    assert kept(truncation="shared") == last


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"truncation_side": "left"}, "truncation_side has no effect"),
        ({"objective": "orpo"}, "sft"),
    ],
)
def test_what_a_shared_cut_does_not_go_with_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Train.model_validate({"truncation": "shared", **more})


def test_a_file_for_gpt3s_fine_tuning_is_read_without_its_endings(tmp_path: Path) -> None:
    lines = [
        {"prompt": f"Name one.{ending}", "completion": f"{space}Ada\n<|endoftext|>"}
        for ending in (" Output:", "\nOutput:", "\n\nOutput:", "\n", "\n\n")
        for space in ("", " ")
    ]
    lines.append({"prompt": "Task: Add.\nInput: 1 2\nOutput:", "completion": " 3<|endoftext|>"})
    path = write_jsonl(tmp_path / "gpt3.jsonl", lines)
    tasks = read_examples(path, pairs=False).tasks
    read_as = [(task.instruction, task.input, *task.answers) for task in tasks]
    assert read_as == 10 * [("Name one.", "", "Ada")] + [("Task: Add.\nInput: 1 2", "", "3")]


def test_other_prompts_with_completions_are_left_to_the_import(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "q", "completion": "a"}])
    with pytest.raises(InputError, match="no `instruction`"):
        read_examples(path, pairs=False)


def test_a_held_out_text_counts_from_its_beginning_where_that_is_asked(tmp_path: Path) -> None:
    record = {**GOOD, "history": [["q0", "a0"]], "system": "Be brief."}
    for over, counted, size in (("answers", "a<eos>", 1), ("text", None, len("Be brief.q0a0qa"))):
        validation = {"file": str(write_jsonl(tmp_path / "held.jsonl", [record])), "over": over}
        data = read(tmp_path, record, template=TURNS, validation=validation)
        held = data.held_out
        assert held is not None
        answer = text(held.ids[(held.marks & ANSWER) > 0])
        assert answer == (counted or text(held.ids))
        assert held.answer_bytes.tolist() == [size]
        assert marked(data, ANSWER) == "a<eos>", "the training itself counts what it counted"


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "expected"),
    [
        # Room for both: nothing is cut, however long the prompt is beside max_prompt_length.
        ("abcdef", "x", "yz", ("abcdefx<eos>", "abcdefyz<eos>")),
        # The longer answer is over: both lose the prompt's beginning.
        ("abcdef", "x", "stuvw", ("defx<eos>", "defstuvw<eos>")),
        # And still over: the rest of cutoff_length is what an answer has.
        ("abcdef", "x", "stuvwxyz", ("defx<eos>", "defstuvwxy")),
    ],
)
def test_a_pairs_prompt_and_answers_are_cut_as_trls_orpo_trainer_cuts_them(
    tmp_path: Path, prompt: str, chosen: str, rejected: str, expected: tuple[str, str]
) -> None:
    pair = {"instruction": prompt, "chosen": chosen, "rejected": rejected}
    cut = {"objective": "orpo", "cutoff_length": 10, "max_prompt_length": 3}
    data = read(tmp_path, pair, **cut)
    assert tuple(text(ids) for ids, _ in data.train.sequences(0)) == expected
    assert (data.counts.truncated == 1) == (expected[0][0] == "d")


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"max_prompt_length": 3}, "is for objective: orpo"),
        ({"objective": "orpo", "max_prompt_length": 1024}, "leaves no room for an answer"),
    ],
)
def test_a_prompt_length_that_can_have_no_effect_is_refused(
    params: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        Train.model_validate(params)
