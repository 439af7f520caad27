"""Decoding many answers at a time: each is the one that its prompt has alone, whatever the model."""

import inspect
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from harness.answer.answer import Decoding
from harness.answer.decoding.batch import DecodingRequest, sample
from harness.answer.decoding.decode import Decoder
from harness.modeling.load import bytes_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

END, PAD = 257, 256
SMALL = {
    "vocab_size": 258, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "initializer_range": 0.3, "eos_token_id": END, "pad_token_id": PAD, "bos_token_id": None,
}  # fmt: skip
WINDOW = {"sliding_window": 6}
OLD = {"vocab_size": 258, "initializer_range": 0.3, "eos_token_id": END, "bos_token_id": None}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", SMALL),
    "llama": ("llama", SMALL),
    "mistral with a window": ("mistral", SMALL | WINDOW),
    "phi3": ("phi3", SMALL),
    "gemma": ("gemma", SMALL | {"head_dim": 4}),
    "gemma3 with windows": ("gemma3_text", SMALL | WINDOW | {"head_dim": 4}),
    "gpt2": ("gpt2", OLD | {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "gpt_neox": (
        "gpt_neox",
        {name: value for name, value in SMALL.items() if name != "num_key_value_heads"},
    ),
}


def model_of(kind: str, config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config)).eval()


def prompts(count: int = 9, longest: int = 30) -> list[DecodingRequest]:
    draw = random.Random(1)
    return [
        DecodingRequest(n, [draw.randrange(256) for _ in range(draw.randint(1, longest))],
              draw.choice([1, 2, 9, 24]), seed=n)
        for n in range(count)
    ]  # fmt: skip


def decoder(model: Any, steps: int = 1, stop: list[str] | None = None, **settings: Any) -> Decoder:
    decoding = Decoding.model_validate(settings.pop("decoding", {}))
    made = Decoder(model, bytes_tokenizer(), decoding, [END], stop or [], **settings)
    made._steps = steps
    return made


def answers(made: Decoder, asked: list[DecodingRequest]) -> dict[int, tuple[list[int], str]]:
    found = {one.index: (one.tokens, one.finish_reason) for one in made.answers(asked)}
    assert len(found) == len(asked)
    return found


def alone(model: Any, one: DecodingRequest) -> tuple[list[int], str]:
    """By the library, greedily, one prompt in a batch of its own."""
    ids = torch.tensor([one.ids])
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=one.limit,
        eos_token_id=END, pad_token_id=PAD,
    )[0, len(one.ids) :].tolist()  # fmt: skip
    return (made[:-1], "stop") if made[-1] == END else (made, "length")


@pytest.mark.parametrize("name", MODELS)
def test_greedy_answers_are_those_of_generate_one_prompt_at_a_time(name: str) -> None:
    model, asked = model_of(*MODELS[name]), prompts()
    expected = {one.index: alone(model, one) for one in asked}
    assert len({len(tokens) for tokens, _ in expected.values()}) > 2, "they must end at many times"
    for batching, size, steps in (("sorted", 4, 1), ("continuous", 3, 1), ("continuous", 4, 5)):
        made = decoder(model, steps, batch_size=size, batching=batching)
        assert made.note == ""
        assert answers(made, asked) == expected, (batching, size, steps)


def test_a_real_models_greedy_answers_are_those_of_generate(real_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    texts = ["Name a colour.", "What is 2 + 2?", "Who wrote Hamlet, and when was it first played?"]
    asked = [
        DecodingRequest(
            n, tokenizer.apply_chat_template([{"role": "user", "content": text}], return_dict=False,
                                             add_generation_prompt=True), 8 + 4 * n)
        for n, text in enumerate(texts)
    ]  # fmt: skip
    end = tokenizer.eos_token_id
    for batching, steps in (("sorted", 3), ("continuous", 1)):
        made = Decoder(model, tokenizer, Decoding(), [end], [], 2, batching)
        made._steps = steps
        assert made._windows, "its masks come ready"
        found = {one.index: one.tokens for one in made.answers(asked)}
        for one in asked:
            ids = torch.tensor([one.ids])
            alone = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=one.limit, eos_token_id=end, pad_token_id=end,
            )[0, len(one.ids) :].tolist()  # fmt: skip
            assert found[one.index] == [token for token in alone if token != end]


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_sampled_answers_are_the_same_in_any_company(top_p: float) -> None:
    model, asked = model_of(*MODELS["qwen2"]), prompts()
    decoding = {"temperature": 1.0, "top_p": top_p}
    found = [
        answers(decoder(model, steps, batch_size=size, batching=batching, decoding=decoding), given)
        for size, batching, steps, given in (
            (1, "sorted", 1, asked),
            (4, "sorted", 3, asked[::-1]),
            (3, "continuous", 1, asked),
            (9, "continuous", 7, asked),
        )
    ]
    assert all(one == found[0] for one in found)
    apart = answers(decoder(model, batch_size=2, decoding=decoding), asked[3:5])
    assert apart == {n: found[0][n] for n in (3, 4)}
    assert found[0] != answers(decoder(model, batch_size=4), asked)


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 5e-324])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_at_the_lowest_temperatures_the_likeliest_token_is_drawn(
    temperature: float, top_p: float
) -> None:
    logits = torch.tensor([[1.0, 30.0, -8.0, 29.0], [-90.0, -float("inf"), -95.0, -float("inf")]])
    for draw in (0.0, 0.5, 1 - 2**-53):
        draws = torch.full((2,), draw, dtype=torch.float64)
        assert sample(logits, temperature, top_p, draws).tolist() == [1, 0]


def test_no_token_outside_the_vocabulary_is_drawn() -> None:
    broken = torch.tensor([[float("nan")] * 4, [float("inf"), 0.0, 1.0, 2.0], [-float("inf")] * 4])
    for top_p in (1.0, 0.5):
        drawn = sample(broken, 1.0, top_p, torch.full((3,), 0.9, dtype=torch.float64))
        assert all(0 <= token < 4 for token in drawn.tolist())


def sizes_of_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each step by the places in its batch."""
    sizes: list[int] = []
    real = Decoder._next

    def count(self: Any, places: Any, starts: Any, last: Any, mask: Any) -> Any:
        sizes.append(len(last))
        return real(self, places, starts, last, mask)

    monkeypatch.setattr(Decoder, "_next", count)
    return sizes


def test_a_place_that_becomes_free_is_taken_before_the_others_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of(*MODELS["qwen2"])
    asked = [DecodingRequest(n, [n + 1, 2, 3], 20 if n == 0 else 2) for n in range(6)]
    forwards: dict[str, int] = {}
    sizes = sizes_of_steps(monkeypatch)
    for batching in ("sorted", "continuous"):
        made = decoder(model, batch_size=2, batching=batching)
        made.ends = set()
        sizes.clear()
        answers(made, asked)
        forwards[batching] = len(sizes)
        assert 1 in sizes, "an answer that ended leaves the batch"
    assert forwards == {"continuous": 19, "sorted": 19 + 1 + 1}


def test_a_batch_on_a_cpu_shrinks_to_numbers_of_rows_that_are_no_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, sizes = model_of(*MODELS["qwen2"]), sizes_of_steps(monkeypatch)
    made = decoder(model, batch_size=10)
    made.ends = set()
    asked = [DecodingRequest(n, [n + 1, 2, 3], 2 * n + 2) for n in range(10)]
    sizes.clear()
    found = answers(made, asked)
    assert sizes == [10] * 3 + [8] * 8 + [4] * 6 + [1] * 2
    for one in asked:
        assert found[one.index] == (alone(model, one)[0], "length")


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_tokens_are_told_while_no_answer_has_ended(one_at_a_time: bool) -> None:
    asked = [DecodingRequest(n, [n + 1, 2, 3], 12) for n in range(2)]
    made = decoder(model_of(*MODELS["qwen2"]), batch_size=2)
    made.ends, made.note = {END + 1}, "alone" if one_at_a_time else ""
    told: list[dict[int, int]] = []
    ended = list(made.answers(asked, lambda making: told.append(dict(making))))
    assert [one.finish_reason for one in ended] == ["length", "length"]
    steps = range(1, 12)
    if one_at_a_time:
        assert told[:11] == [{0: n} for n in steps]
        assert {1: 5} in told
    else:
        assert told[:11] == [{0: n, 1: n} for n in steps]
    assert told[-1] == {}


def test_an_answer_ends_where_a_stop_text_over_several_tokens_is_complete() -> None:
    model, asked = model_of(*MODELS["llama"]), prompts()
    whole = answers(decoder(model, batch_size=4), asked)
    tokenizer = bytes_tokenizer()
    number, at, text = next(
        (number, at, text)
        for number, (tokens, _) in whole.items()
        for at in range(2, len(tokens) - 1)
        if "\ufffd" not in (text := tokenizer.decode(tokens[at : at + 2])) and len(text) == 2
    )
    tokens = whole[number][0]
    for steps in (1, 6):
        made = decoder(model, steps, batch_size=4, stop=["not there", text])
        cut, reason = answers(made, asked)[number]
        assert reason == "stop"
        assert cut == tokens[: len(cut)]
        assert len(cut) <= at + 2
        assert tokenizer.decode(cut).endswith(text)
        assert text not in tokenizer.decode(cut[:-1])


def test_a_model_whose_cache_cannot_be_joined_answers_one_prompt_at_a_time_and_says_so() -> None:
    bloom = model_of("bloom", OLD | {"hidden_size": 16, "n_layer": 2, "n_head": 4})
    made = decoder(bloom, batch_size=4)
    assert "takes no position_ids" in made.note
    asked = prompts(4)
    assert answers(made, asked) == {one.index: alone(bloom, one) for one in asked}
    sampled = {"temperature": 1.0}
    first = answers(decoder(bloom, batch_size=4, decoding=sampled), asked)
    assert answers(decoder(bloom, batch_size=4, decoding=sampled), asked[::-1]) == first
    dynamic = SMALL | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}
    assert "longest text" in decoder(model_of("llama", dynamic), batch_size=4).note


def test_a_model_that_answers_otherwise_in_a_batch_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of(*MODELS["qwen2"])
    real = type(model).forward

    def blind(self: Any, *args: Any, attention_mask: Any = None, **given: Any) -> Any:
        """Without its mask a model sees the padding."""
        return real(self, *args, attention_mask=None, **given)

    blind.__signature__ = inspect.signature(real)  # type: ignore[attr-defined]
    monkeypatch.setattr(type(model), "forward", blind)
    assert "in a batch with another prompt" in decoder(model, batch_size=4).note
