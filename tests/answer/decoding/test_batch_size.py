"""How many answers at a time: what a GPU's free memory holds, and if the estimate was too high."""

from typing import Any

import pytest
import torch

from harness.answer.decoding import decode
from harness.answer.decoding.batch import Batch, DecodingRequest
from harness.answer.decoding.batch_size import (
    GROWTH,
    MOST,
    ON_CPU,
    READ_AT_ONCE,
    Costs,
    Sizes,
    costs_of,
    sizes_for,
    sizes_in,
)
from tests.answer.decoding.test_decode import MODELS, answers, decoder, model_of, prompts

GIB = 2**30
QWEN = Costs(
    # Qwen1.5-0.5B in float32: 24 layers of keys and values of 1024 numbers, 151,936 tokens.
    per_column=24 * 2 * 1024 * 4, per_answer=64 * 151_936, per_token_read=600_000, layers=24,
)  # fmt: skip


def alpaca_eval(limit: int = 2048) -> list[DecodingRequest]:
    return [DecodingRequest(n, [0] * (20 + n), limit) for n in range(805)]


@pytest.mark.parametrize("gibibytes", [6, 16, 24, 80, 139])
@pytest.mark.parametrize("limit", [128, 2048])
def test_as_many_answers_as_fit_are_made_at_a_time_and_no_more(gibibytes: int, limit: int) -> None:
    free, asked = gibibytes * GIB, alpaca_eval(limit)
    sizes = sizes_in(free, QWEN, asked)

    def taken(answers: int) -> float:
        """All their columns, a layer of them twice more, logits, and prompts being read."""
        cache = answers * (824 + limit + GROWTH) * QWEN.per_column
        reading = max(824, sizes.tokens_read) * QWEN.per_token_read
        return cache * (1 + 2 / 24) + answers * QWEN.per_answer + reading

    assert taken(sizes.answers) <= free
    assert sizes.answers == MOST or taken(2 * sizes.answers) > free, "half of the card stays empty"
    assert 824 < sizes.tokens_read <= READ_AT_ONCE
    assert sizes_in(free, QWEN, asked[:3]).answers == min(3, sizes.answers)


def test_at_least_one_answer_is_made_at_a_time_on_however_small_a_card() -> None:
    assert sizes_in(10_000, QWEN, alpaca_eval()).answers == 1


@pytest.mark.parametrize("name", MODELS)
def test_a_columns_cost_is_what_the_decoders_cache_takes(name: str) -> None:
    model = model_of(*MODELS[name])
    made = decoder(model, batch_size=4)
    with torch.inference_mode():
        batch = made._begin(
            [DecodingRequest(n, [1] * 9, 5) for n in range(4)], Batch.empty(model.device)
        )
    layers = batch.places.cache.layers
    total = sum(t.nbytes for layer in layers for t in (layer.keys, layer.values))
    costs = costs_of(model, 9)
    assert total == 4 * (9 + GROWTH) * costs.per_column
    assert costs.layers == len(layers) == 2
    assert costs.per_token_read > costs.per_column + 4 * 4 * 32


def test_on_a_cpu_it_is_always_the_same_and_nothing_is_said() -> None:
    made = decoder(model_of(*MODELS["qwen2"]), batch_size=None)
    answers(made, prompts(3))
    assert (made.batch_size, made.size_note) == (ON_CPU, "")
    assert sizes_for(made.model, prompts(3)).answers == ON_CPU


@pytest.mark.parametrize("batching", ["sorted", "continuous"])
def test_what_does_not_fit_after_all_is_made_by_halves_and_comes_out_the_same(
    monkeypatch: pytest.MonkeyPatch, batching: str
) -> None:
    model, asked = model_of(*MODELS["qwen2"]), prompts(12)
    sampled = {"temperature": 1.0}
    expected = answers(decoder(model, batch_size=4, decoding=sampled), asked)
    monkeypatch.setattr(decode, "sizes_for", lambda *_: Sizes(8, 10**6, 3 * GIB))
    made = decoder(model, batch_size=None, batching=batching, decoding=sampled)
    step, steps = made._step, 0

    def crowded(batch: Any) -> None:
        nonlocal steps
        steps += 1
        if steps > 3 and len(batch.answers) > 2:
            raise torch.OutOfMemoryError
        step(batch)

    made._step = crowded  # type: ignore[method-assign]
    assert answers(made, asked) == expected
    assert made.batch_size == 2
    assert made.size_note == (
        "engine.batch_size was left open: 2 answers were made at a time, after 8 did not fit the "
        "3.0 GiB of the GPU's memory"
    )


def test_prompts_are_read_no_more_at_a_time_than_memory_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, asked = model_of(*MODELS["llama"]), prompts(12)
    expected = answers(decoder(model, batch_size=12), asked)
    monkeypatch.setattr(decode, "sizes_for", lambda *_: Sizes(12, 64, GIB))
    made = decoder(model, batch_size=None)
    read, sizes = made._read, []

    def measured(ids: Any, cache: Any) -> Any:
        sizes.append(len(ids) * max(map(len, ids)))
        return read(ids, cache)

    made._read = measured  # type: ignore[method-assign]
    assert answers(made, asked) == expected
    assert made.batch_size == 12
    assert max(sizes) <= 64
    assert len(sizes) > 2
    assert made.size_note.endswith("for the 1.0 GiB of the GPU's memory that were free")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_the_number_that_is_chosen_fits() -> None:
    kind, config = MODELS["qwen2"]
    wide = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8,
            "vocab_size": 150_000, "max_position_embeddings": 4096}  # fmt: skip
    model = model_of(kind, config | wide).to("cuda")
    asked = [DecodingRequest(n, [1 + n % 200] * (1 + 3 * n % 900), 1024) for n in range(600)]
    made = decoder(model, steps=8, batch_size=None, decoding={"temperature": 1.0, "top_p": 0.9})
    made.ends = set()
    for index, _ in enumerate(made.answers(asked)):
        if index == 300:
            break
    assert made.batch_size == made._sizes.answers > 16
    assert torch.cuda.max_memory_allocated() < torch.cuda.mem_get_info()[1]
