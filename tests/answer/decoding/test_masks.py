"""Masks of decoding steps: as the library makes them itself, but nothing is read from the device."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.answer.decoding.batch import Answering, Batch, DecodingRequest, random_numbers
from harness.answer.decoding.decode import Decoder
from harness.answer.decoding.masks import step_masks, windows_of
from tests.answer.decoding.test_decode import MODELS, OLD, SMALL, WINDOW, decoder, model_of

pytestmark = pytest.mark.usefixtures("one_thread")

READ = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2")
"""Operators whose result, or whose shape, the CPU waits for a GPU for."""
STEPS = 6
WITH_KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
TAKING = MODELS | {
    "opt": (
        "opt",
        OLD | {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
               "word_embed_proj_dim": 16, "max_position_embeddings": 64, "pad_token_id": 256},
    ),
    "gemma2 with windows": ("gemma2", SMALL | WINDOW | {"head_dim": 4}),
    "qwen2 with windows": ("qwen2", SMALL | WINDOW | WITH_KINDS | {"use_sliding_window": True}),
    "phi3 with a window": ("phi3", SMALL | WINDOW),
}  # fmt: skip


class Reads(TorchDispatchMode):
    """Counts the operators that read from the device; not under inference_mode, which hides some."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        if name in READ or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def advanced(made: Decoder, lengths: list[int], empty: bool = False) -> tuple[Any, list[str]]:
    """The logits of a few steps after prompts of these lengths, and what was read in those steps."""
    drawn = torch.Generator().manual_seed(sum(lengths))
    asked = [
        DecodingRequest(n, torch.randint(0, 256, (length,), generator=drawn).tolist(), 2 * STEPS)
        for n, length in enumerate(lengths)
    ]
    logits: list[torch.Tensor] = []
    choose = made._choose

    def keep(scores: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        logits.append(scores)
        return choose(scores, draws)

    made._choose = keep  # type: ignore[method-assign]
    with torch.no_grad():
        batch = made._begin(asked, Batch.empty(made.model.device))
        if empty:
            batch.answers[-1] = None
        batch.forget()
        batch.make_room(STEPS)
        draws = made._draw(batch.answers, STEPS)
        with Reads() as reads:
            made._advance(batch, draws)
    return torch.stack(logits), reads.found


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", TAKING)
def test_steps_read_nothing_from_the_device_and_have_the_logits_of_the_librarys_own_masks(
    name: str, eager: bool
) -> None:
    model = model_of(*TAKING[name])
    if eager:
        model.set_attn_implementation("eager")
    made, own = (decoder(model, decoding={"temperature": 1.0}, batch_size=4) for _ in range(2))
    assert made.note == ""
    assert made._windows is not None, "it takes masks that come ready"
    own._windows = None
    read_before = []
    for lengths, empty in (([9, 5, 2], False), ([3, 3], False), ([8], False), ([4, 4, 4], True)):
        found, reads = advanced(made, lengths, empty)
        expected, more = advanced(own, lengths, empty)
        read_before += more
        assert reads == []
        alive = slice(len(lengths) - empty)
        assert torch.equal(found[:, alive], expected[:, alive]), (lengths, empty)
    is_sdpa = model.config._attn_implementation == "sdpa"
    assert bool(read_before) == is_sdpa, "what is counted must count"


@pytest.mark.parametrize("window", [None, 1, 3, 7, 30])
def test_a_step_sees_the_columns_from_its_answers_first_within_the_window(
    window: int | None,
) -> None:
    starts, columns, steps = torch.tensor([0, 2, 5]), 6, 4
    masks = step_masks({"": window}, starts, columns, steps, True, torch.float32)
    for step, mask in enumerate(masks):
        here = columns - 1 + step
        for row, start in enumerate(starts.tolist()):
            first = start if window is None else max(start, here - window + 1)
            assert mask.shape == (3, 1, 1, here + 1)
            assert (mask[row, 0, 0] == 0).tolist() == [c >= first for c in range(here + 1)]
        assert all(stride % 8 == 0 for stride in mask.stride()[:-1]), "no kernel copies it"


def test_answers_that_all_begin_in_one_column_need_no_mask_until_a_window_hides_some() -> None:
    starts = torch.zeros(2, dtype=torch.long)
    for step in step_masks({"full": None, "near": 8}, starts, 5, 3, False, torch.float32):
        assert step == {"full": None, "near": None}
    last = step_masks({"full": None, "near": 8}, starts, 6, 4, False, torch.float32)[-1]
    assert last["full"] is None
    assert (last["near"][1, 0, 0] == 0).tolist() == [False, *[True] * 8]


def test_a_model_that_takes_no_masks_that_come_ready_is_given_columns_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of(*MODELS["qwen2"])
    assert windows_of(model) == {"full_attention": None}
    real = type(model).forward

    def flat_only(
        self: Any, input_ids: Any, attention_mask: Any = None, position_ids: Any = None,
        past_key_values: Any = None, use_cache: Any = None,
    ) -> Any:  # fmt: skip
        assert attention_mask is None or attention_mask.ndim == 2
        return real(
            self, input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, use_cache=use_cache,
        )  # fmt: skip

    monkeypatch.setattr(type(model), "forward", flat_only)
    made = decoder(model, batch_size=4)
    assert made.note == ""
    assert made._windows is None
    chunked = model_of(*MODELS["llama"])
    chunked.config.attention_chunk_size = 8
    assert windows_of(chunked) is None


def test_answers_keep_random_numbers_of_their_own_beside_an_empty_place() -> None:
    made = decoder(model_of(*MODELS["qwen2"]), decoding={"temperature": 1.0}, batch_size=2)
    drawn = made._draw([Answering(DecodingRequest(0, [1], 4), random_numbers(0)), None], STEPS)
    assert drawn.shape == (2, STEPS)
    assert drawn[1].tolist() == [0] * STEPS


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("name", TAKING)
def test_on_a_gpu_steps_wait_for_nothing(name: str, temperature: float) -> None:
    model = model_of(*TAKING[name]).to("cuda")
    decoding = {"temperature": temperature, "top_p": 0.9}
    made = decoder(model, batch_size=4, decoding=decoding)
    advance = made._advance

    def watched(batch: Any, draws: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return advance(batch, draws)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    made._advance = watched  # type: ignore[method-assign]
    for lengths in ([9, 5, 2], [8, 8]):
        logits, reads = advanced(made, lengths)
        assert logits.isfinite().all()
        assert reads == []
