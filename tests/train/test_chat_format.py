"""ChatML's marks as added tokens, on a real model that has never seen them."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.answer.engines.vllm import VllmEngine
from harness.answer.run import run as answer
from harness.artefact.keys import Files, file_digest, key_view
from harness.errors import InputError
from harness.modeling import chat_format
from harness.modeling.load import load_model, load_tokenizer
from harness.modeling.memory.need import Need
from harness.modeling.memory.shapes import from_config
from harness.modeling.text import Encoder
from harness.row.load import load_rows
from harness.row.twin import scaled
from harness.spec.model_source import ModelSource
from harness.spec.template import Template
from harness.spec.train import Lora, Train
from harness.train import checkpoints
from harness.train.run import run
from tests.helpers import copy_of_model, write_row
from tests.modeling.calls import MODEL, answer_call, random_model, train_call
from tests.train.test_tokenizer_files import ROWS, card_code
from tests.train.test_train import Stop

CHATML = {
    "prompt": {
        "path": "p.txt",
        "text": "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n\n",
    },
    "end": "<|im_end|>",
    "separator": "\n",
    "special": ["<|im_start|>", "<|im_end|>"],
}
LORA = {"method": "lora", "lora": {"rank": 4}}
MERGED = {"method": "lora", "lora": {"rank": 4, "merge": True}}
QUESTION = "Say yes."


@pytest.fixture(scope="module")
def base(real_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model without ChatML: what it calls its marks is another text."""
    folder = copy_of_model(real_model, tmp_path_factory.mktemp("base") / "model")
    for path in folder.glob("*.json"):
        text = path.read_text().replace("<|im_", "<|another_")
        path.unlink()
        path.write_text(text)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def source(base: Path, chat: str | None = "chatml") -> ModelSource:
    return ModelSource.model_validate({"path": {"path": str(base)}, "chat_format": chat})


def in_spec(base: Path) -> dict[str, Any]:
    return {"path": {"path": str(base)}, "chat_format": "chatml"}


def embeddings(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.get_input_embeddings().weight.detach()
    return weight


@torch.no_grad()  # type: ignore[untyped-decorator]
def logits(model: Any, ids: list[int]) -> torch.Tensor:
    last: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
    return last


def test_the_marks_are_one_token_each_that_begins_ends_and_pads_and_the_template_is_chatml(
    base: Path,
) -> None:
    before, tokenizer = (load_tokenizer(source(base, chat), {}) for chat in (None, "chatml"))
    assert len(before("<|im_start|>")["input_ids"]) > 1
    size = len(before)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (size, size + 1)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    text = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\n"
    turn = [{"role": "user", "content": QUESTION}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids) == text
    assert ids.count(size) == 2
    encoder = Encoder(tokenizer, Template.model_validate(CHATML))
    assert encoder.prompt(QUESTION) == ids
    assert encoder.end_ids == [size + 1]
    own = Encoder(tokenizer, Template.model_validate("tokenizer"))
    assert own.prompt(QUESTION) == ids
    with pytest.raises(InputError, match="does not know as one token"):
        Encoder(before, Template.model_validate(CHATML))


def test_the_embeddings_have_a_row_for_each_token_drawn_as_transformers_does_and_the_same_each_time(
    base: Path,
) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(source(base), {})
    state = torch.get_rng_state()
    model = load_model(source(base), {}, tokenizer, "float32", "cpu")
    assert torch.equal(torch.get_rng_state(), state)
    again = load_model(source(base), {}, tokenizer, "float32", "cpu")
    expected = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(chat_format.SEED)
    expected.resize_token_embeddings(len(tokenizer))
    assert embeddings(model).shape[0] == len(tokenizer)
    assert torch.equal(embeddings(model), embeddings(expected))
    assert torch.equal(embeddings(model), embeddings(again))
    old, new = embeddings(model)[:-2], embeddings(model)[-2:]
    assert (new - old.mean(0)).norm() < (old - old.mean(0)).norm(dim=1).mean()
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.lm_head.weight.data_ptr() == embeddings(model).data_ptr()


def test_an_adapter_brings_its_embeddings_whatever_rows_are_drawn_where_it_is_used(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 2, "keep": [1], "learning_rate": 1e-3, "scheduler": "constant", **LORA}
    call = train_call(tmp_path, ROWS, in_spec(base), CHATML, **settings)
    run(call)
    tokenizer = load_tokenizer(source(base), {})
    drawn = embeddings(load_model(source(base), {}, tokenizer, "float32", "cpu"))
    for folder in (call.folder / "model", call.folder / "kept" / "1" / "model"):
        stored = load_file(folder / "adapter_model.safetensors")
        rows = {n: w for n, w in stored.items() if "lora_" not in n}
        assert list(rows) == ["base_model.model.model.embed_tokens.weight"]
        assert torch.equal(next(iter(rows.values())).float(), drawn.float())
    inputs = {"model": str(call.folder)}
    trained = load_tokenizer(source(base), inputs)
    assert trained.get_vocab() == tokenizer.get_vocab()
    ids = Encoder(trained, Template.model_validate(CHATML)).prompt(QUESTION)
    first = logits(load_model(source(base), inputs, trained, "float32", "cpu"), ids)
    monkeypatch.setattr(chat_format, "SEED", 1)
    second = logits(load_model(source(base), inputs, trained, "float32", "cpu"), ids)
    assert torch.equal(first, second)
    merged = train_call(
        tmp_path / "merged", ROWS, in_spec(base), CHATML,
        **settings | {"keep": [], "lora": {"rank": 4, "merge": True}},
    )  # fmt: skip
    monkeypatch.setattr(chat_format, "SEED", 0)
    run(merged)
    plain = ModelSource.model_validate({"path": {"path": str(merged.folder / "model")}})
    whole = load_model(plain, {}, load_tokenizer(plain, {}), "float32", "cpu")
    torch.testing.assert_close(logits(whole, ids), first, rtol=1e-3, atol=1e-3)
    assert whole.config.vocab_size == len(tokenizer)


def test_a_trained_row_answers_until_the_mark_and_that_alone_ends_it(tmp_path: Path) -> None:
    model = random_model() | {"chat_format": "chatml"}
    settings = {"steps": 60, "batch_size": 1, "learning_rate": 5e-3, "scheduler": "constant"}
    call = train_call(tmp_path, ROWS, model, CHATML, **settings)
    run(call)
    read = json.loads((call.folder / "model" / "generation_config.json").read_text())
    assert read["eos_token_id"] == 259
    assert "are tokens of the vocabulary" in (call.folder / "README.md").read_text()
    asked = answer_call(
        tmp_path / "answers", ROWS, model, call.folder, CHATML,
        decoding={"max_new_tokens": 20, "temperature": 0.0},
    )  # fmt: skip
    answer(asked)
    [output] = json.loads((asked.folder / "model_outputs.json").read_text())
    assert output["output"] == "yes"


@pytest.mark.parametrize(
    ("method", "tied"), [({}, True), (LORA, True), (LORA, False), (MERGED, True)]
)
def test_an_interrupted_training_ends_with_the_very_files_of_an_uninterrupted_one_marks_and_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any], tied: bool
) -> None:
    model = random_model(tie_word_embeddings=tied) | {"chat_format": "chatml"}
    settings = {"steps": 6, "checkpoint_steps": 2, **method}
    calls = [train_call(tmp_path / name, None, model, CHATML, **settings) for name in "ab"]
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "seal", Stop(checkpoints.seal, 2, after=True))
        with pytest.raises(KeyboardInterrupt):
            run(calls[0])
    newest = checkpoints.newest(calls[0].folder / "checkpoints")
    assert newest is not None
    assert newest.step == 4
    for call in calls:
        run(call)
    names = sorted(p.name for p in (calls[0].folder / "model").iterdir())
    assert names == sorted(p.name for p in (calls[1].folder / "model").iterdir())
    for name in (*(f"model/{name}" for name in names), "trainer_log.jsonl"):
        one, two = (file_digest(call.folder / name) for call in calls)
        assert one == two, name


def test_the_cards_own_code_makes_the_same_model_of_base_and_adapter(tmp_path: Path) -> None:
    """The base is a folder of a small model, as it would come from the hub."""
    folder = tmp_path / "base"
    plain = ModelSource.model_validate(random_model())
    tokenizer = load_tokenizer(plain, {})
    load_model(plain, {}, tokenizer, "float32", "cpu").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    call = train_call(tmp_path, None, in_spec(folder), CHATML, steps=3, **LORA)
    run(call)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(card_code(call.folder, PATH_OF_THE_BASE_MODEL=str(folder)), names)
    trained = load_tokenizer(source(folder), {"model": str(call.folder)})
    ours = load_model(source(folder), {"model": str(call.folder)}, trained, "float32", "cpu")
    ids = Encoder(trained, Template.model_validate(CHATML)).prompt("Say yes.")
    assert list(names["given"]["input_ids"][0]) == ids
    torch.testing.assert_close(logits(names["model"], ids), logits(ours, ids))


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_with_random_weights_and_a_head_of_its_own_is_trained_whole_and_by_adapter(
    tmp_path: Path, tied: bool
) -> None:
    model = random_model(tie_word_embeddings=tied, vocab_size=300) | {"chat_format": "chatml"}
    for number, train in enumerate(({}, LORA)):
        call = train_call(tmp_path / str(number), None, model, CHATML, steps=2, **train)
        run(call)
        read = ModelSource.model_validate(model)
        inputs = {"model": str(call.folder)}
        tokenizer = load_tokenizer(read, inputs)
        loaded = load_model(read, inputs, tokenizer, "float32", "cpu")
        assert loaded.config.vocab_size == len(tokenizer) == 260
        head = loaded.get_output_embeddings().weight
        assert (head.data_ptr() == embeddings(loaded).data_ptr()) == tied
        if train:
            stored = load_file(call.folder / "model" / "adapter_model.safetensors")
            assert len([n for n in stored if "lora_" not in n]) == (1 if tied else 2)


def test_vllm_serves_it_only_where_training_leaves_a_whole_model() -> None:
    engine, where = VllmEngine(), "eval.answer.engine: "
    hub = {"id": "a/b", "revision": "0" * 40}
    model = ModelSource.model_validate({"hub": hub, "chat_format": "chatml"})
    engine.check_model(model, Train(), where)
    engine.check_model(model, Train(method="lora", lora=Lora(merge=True)), where)
    with pytest.raises(InputError, match=r"without the tokens of model\.chat_format") as caught:
        engine.check_model(model, Train(method="lora"), where)
    assert "merge: true" in caught.value.hint
    with pytest.raises(InputError, match=r"without the tokens of model\.chat_format") as caught:
        engine.check_model(model, None, where)
    assert "merge" not in caught.value.hint
    VllmEngine(base_url="http://h/v1").check_model(model, None, where)


def test_it_is_in_the_key_where_it_is_set_and_a_twin_has_it_too(tmp_path: Path) -> None:
    plain = {"hub": {"id": "a/b", "revision": "0" * 40}}
    views = [
        key_view(ModelSource.model_validate(plain | more), Files(None, None))
        for more in ({}, {"chat_format": None}, {"chat_format": "chatml"})
    ]
    assert views[0] == views[1] == {k: v for k, v in views[2].items() if k != "chat_format"}
    assert views[2]["chat_format"] == "chatml"
    [loaded] = load_rows([write_row(tmp_path, model=plain | {"chat_format": "chatml"})])
    twin = scaled(loaded).row.model
    assert twin is not None
    assert twin.chat_format == "chatml"


@pytest.mark.parametrize(("tied", "matrices"), [(True, 1), (False, 2)])
def test_the_disk_that_kept_adapters_take_has_their_embeddings(tied: bool, matrices: int) -> None:
    shape = from_config(MODEL | {"tie_word_embeddings": tied, "vocab_size": 5000})
    assert shape is not None
    train = Train(method="lora", keep=[1, 2], steps=3)
    more = Need(train, shape, None, True).kept - Need(train, shape).kept
    assert more == 2 * 4 * matrices * 5000 * 32
