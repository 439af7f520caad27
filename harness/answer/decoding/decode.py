"""Decoding with a model in this process: greedy or sampled, many answers at a time, each as if alone.

One loop makes one token for every answer in each step. `sorted`: batches of prompts of like length,
which answers leave as they end. `continuous`: a waiting prompt takes the place of each that ended.

Each prompt has random numbers of its own, from the seed, its instruction and its input, one a token.
So neither the order of prompts nor their batch mates nor an interruption changes an answer, **as far
as the numerics allow**: a sum of floats has other last bits in a matrix of another shape. Where the two
likeliest tokens of a greedy step are no further apart than these, or a random number falls as close to
the border between two tokens, the answer can differ from there on. In float32, of seven digits, that is
rare; in bfloat16, of fewer than three, it is to be expected of long answers.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy
import torch

from harness.answer.answer import Decoding
from harness.answer.decoding.batch import Answering, Batch, DecodingRequest, random_numbers, sample
from harness.answer.decoding.batch_size import ON_CPU, Sizes, sizes_for
from harness.answer.decoding.cache import Places, why_not_joined
from harness.answer.decoding.masks import Windows, step_masks, windows_of
from harness.answer.decoding.stops import Stops
from harness.answer.encode import limit_of
from harness.common.device_faults import pass_on, ran_out_of_memory
from harness.modeling.generation import token_set
from harness.modeling.load import most_positions

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

STEPS_UNSEEN = 8
"""Tokens made on a GPU before the answers are looked at: each look waits for the GPU. What an answer
that ended got too much is thrown away."""
PLACES_AT_ONCE = 8
"""On a GPU a prompt waits until one place in so many is free, and several begin together."""
ROWS_ON_CPU = 4
"""Answers on a CPU stay a multiple of so many: a step of 2 or 3 took longer than one of 4, and one of 5
to 7 about as long as one of 8 (benchmarks/README.md, one model)."""

OnStep = Callable[[Mapping[int, int]], None]
"""Is given prompt's number -> tokens so far, of the answers in the making."""


@dataclass(frozen=True)
class Made:
    """An answer's tokens, without the end token; `finish_reason` is `stop` or `length`."""

    index: int
    tokens: list[int]
    finish_reason: str


def end_tokens(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", template_ends: Sequence[int]
) -> list[int]:
    """An answer ends with the tokenizer's end token, with one that the model's own configuration
    names, or with the template's."""
    ends = token_set(model.generation_config.eos_token_id)
    return sorted(ends | {tokenizer.eos_token_id, *template_ends})


class Decoder:
    """Makes answers. `ends`: tokens that end one. `batch_size`: answers in the making at a time; None:
    as many as a GPU's memory holds.

    `note` says why answers are made one at a time, by generate(): the model's cache is of a kind that
    batches cannot be made of, or its answers to two short probes came out otherwise; "" mostly.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        decoding: Decoding,
        ends: Sequence[int],
        stop: Sequence[str],
        batch_size: int | None,
        batching: str = "sorted",
    ) -> None:
        self.model, self.tokenizer, self.decoding = model, tokenizer, decoding
        self.ends, self.stops = set(ends), Stops(tokenizer, stop)
        self.batch_size, self.batching = batch_size or ON_CPU, batching
        self._is_open = batch_size is None
        self._sizes = Sizes(self.batch_size, sys.maxsize)
        self._on_gpu = model.device.type != "cpu"
        self._steps = STEPS_UNSEEN if self._on_gpu else 1
        import inspect

        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only: dict[str, Any] = {"logits_to_keep": 1} if keeps else {}
        self._windows: Windows | None = None
        reason = why_not_joined(model) or self._probe()
        self.note = f"answers were made one at a time, by generate(): {reason}" if reason else ""

    def answers(
        self, requests: Sequence[DecodingRequest], on_step: OnStep | None = None
    ) -> Iterator[Made]:
        """Every answer as it ends. The longest prompts come first: what does not fit shows at once.
        `on_step` is told after each step how many tokens the answers in the making have.
        """
        order = sorted(requests, key=lambda request: (-len(request.ids), request.index))
        with torch.inference_mode():
            decode = self._alone if self.note else self._fitting
            yield from decode(order, on_step or (lambda making: None))

    @property
    def size_note(self) -> str:
        """How the number of answers at a time was chosen, where that was left open on a GPU."""
        return self._sizes.note(self.batch_size) if self._is_open else ""

    def _fitting(self, order: Sequence[DecodingRequest], on_step: OnStep) -> Iterator[Made]:
        """As many at a time as was asked for; or as fit, by an estimate, and by halves where it is too
        high: what was not ended then is begun anew, with the same random numbers."""
        self._sizes = sizes_for(self.model, order)
        if self._is_open:
            self.batch_size = self._sizes.answers
        left = {request.index: request for request in order}
        while left:
            try:
                for answer in self._together(list(left.values()), on_step):
                    del left[answer.index]
                    yield answer
            except Exception as e:
                if not (self._is_open and self.batch_size > 1 and ran_out_of_memory(e)):
                    raise
                self.batch_size //= 2
            # Where memory ran out its holders are gone only now.
            torch.cuda.empty_cache()

    def _together(self, order: Sequence[DecodingRequest], on_step: OnStep) -> Iterator[Made]:
        waiting = deque(order)
        batch = Batch.empty(self.model.device)
        few = max(1, self.batch_size // PLACES_AT_ONCE) if self._on_gpu else 1
        while waiting or batch.alive:
            free = self.batch_size - batch.alive
            fills = self.batching == "continuous" and free >= few
            if waiting and (fills or not batch.alive):
                new = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                while new:
                    count = max(1, self._sizes.tokens_read // len(new[0].ids))
                    batch = self._begin(new[:count], batch)
                    new = new[count:]
            else:
                self._step(batch)
            for place, answer in enumerate(batch.answers):
                if answer is not None and (ended := self._ended(answer)) is not None:
                    batch.answers[place] = None
                    yield ended
            on_step(
                {
                    answer.request.index: len(answer.tokens)
                    for answer in batch.answers
                    if answer is not None
                }
            )
            if not (waiting and self.batching == "continuous"):
                batch.close_up(1 if self._on_gpu else ROWS_ON_CPU)

    def _begin(self, new: list[DecodingRequest], batch: Batch) -> Batch:
        """Read the new prompts, give each a place and make the first token of each."""
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        logits = self._read([request.ids for request in new], cache)
        if not batch.alive:
            batch = Batch.empty(self.model.device)
        begun = [Answering(request, random_numbers(request.seed)) for request in new]
        first = self._choose(logits, self._draw(begun, 1)[:, 0])
        batch.join(begun, cache, first)
        for answer, token in zip(begun, first.tolist(), strict=True):
            self._take(answer, [token])
        return batch

    def _read(self, prompts: Sequence[list[int]], cache: Any) -> torch.Tensor:
        """The logits after each prompt, of (prompts, tokens of the vocabulary)."""
        width, device = max(map(len, prompts)), self.model.device
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            **self._last_only,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _step(self, batch: Batch) -> None:
        """A few more tokens for every answer."""
        steps = min(self._steps, *(answer.left for answer in batch.answers if answer is not None))
        draws = self._draw(batch.answers, steps)
        batch.forget()
        batch.make_room(steps)
        chosen = self._advance(batch, draws)
        for answer, tokens in zip(batch.answers, torch.stack(chosen, 1).tolist(), strict=True):
            if answer is not None:
                self._take(answer, tokens)

    def _advance(self, batch: Batch, draws: torch.Tensor) -> list[torch.Tensor]:
        """The next tokens of each, a step for each column of `draws`. Nothing is read from the device,
        so that its work is queued ahead of it."""
        chosen = []
        masks = self._masks(batch.places, batch.starts, draws.shape[1], batch.is_padded)
        for step, mask in enumerate(masks):
            logits = self._next(batch.places, batch.starts, batch.last, mask)
            batch.last = self._choose(logits, draws[:, step])
            chosen.append(batch.last)
        return chosen

    def _masks(self, places: Places, starts: torch.Tensor, steps: int, padded: bool) -> list[Any]:
        columns = places.end + 1 - places.begin
        first = starts - places.begin
        return step_masks(self._windows, first, columns, steps, padded, self.model.dtype)

    def _next(
        self, places: Places, starts: torch.Tensor, last: torch.Tensor, mask: Any
    ) -> torch.Tensor:
        out = self.model(
            input_ids=last[:, None],
            attention_mask=mask,
            position_ids=(places.end - starts)[:, None],
            past_key_values=places.cache,
            use_cache=True,
        )
        places.advance()
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _draw(self, answers: Sequence[Answering | None], steps: int) -> torch.Tensor:
        """The next random numbers of each, of (answers, steps), in [0, 1)."""
        if self.decoding.temperature == 0:
            return torch.empty(len(answers), steps)
        drawn = [
            answer.random.random(steps) if answer else numpy.zeros(steps) for answer in answers
        ]
        return torch.from_numpy(numpy.stack(drawn)).to(self.model.device)

    def _choose(self, logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        if not self.decoding.temperature:
            return logits.argmax(-1)
        decoding = self.decoding
        return sample(logits, decoding.temperature or 0, decoding.top_p, draws, decoding.min_p)

    def _take(self, answer: Answering, tokens: Sequence[int]) -> None:
        """Add tokens up to where the answer ends."""
        for token in tokens:
            answer.tokens.append(token)
            if self._reason(answer) is not None:
                # What was drawn for tokens after the end is nobody's.
                return

    def _reason(self, answer: Answering) -> str | None:
        if answer.tokens[-1] in self.ends or self.stops.complete(answer.tokens):
            return "stop"
        return "length" if answer.left <= 0 else None

    def _ended(self, answer: Answering) -> Made | None:
        reason = self._reason(answer)
        if reason is None:
            return None
        tokens = answer.tokens[:-1] if answer.tokens[-1] in self.ends else answer.tokens
        return Made(answer.request.index, tokens, reason)

    def _alone(self, order: Sequence[DecodingRequest], on_step: OnStep) -> Iterator[Made]:
        """By the library's own decoding, one prompt at a time."""
        for request in order:
            settings = generation_settings(
                self.model, self.tokenizer, self.decoding, len(request.ids), sorted(self.ends)
            )
            settings.max_new_tokens = request.limit
            answer, width = Answering(request, random_numbers(request.seed)), len(request.ids)

            def has_ended(
                ids: torch.Tensor,
                scores: Any,
                index: int = request.index,
                width: int = width,
                **rest: Any,
            ) -> torch.Tensor:
                generated = ids[0, width:].tolist()
                on_step({index: len(generated)})
                done = self.stops.complete(generated)
                return torch.tensor([done], device=ids.device)

            torch.manual_seed(request.seed)
            prompt = torch.tensor([request.ids], device=self.model.device)
            generated: Any = self.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=settings,
                stopping_criteria=[has_ended],
            )
            self._take(answer, generated[0, width:].tolist())
            ended = self._ended(answer)
            assert ended is not None, "generate() ended before its limit and without an end"
            yield ended
            on_step({})

    def _probe(self) -> str:
        """Two short prompts together, a step further, against each alone and without a cache."""
        rows = self.model.get_input_embeddings().num_embeddings
        long = [number * 7919 % rows for number in range(1, 8)]
        short = long[:3]
        room = most_positions(self.model)
        if room is not None and room <= len(long) + 1:
            return ""
        self._windows = windows_of(self.model)
        reason = self._why_not_compared([long, short])
        if reason and self._windows is not None:
            # It may be that it takes no masks that come ready.
            self._windows = None
            reason = self._why_not_compared([long, short])
        return reason

    def _why_not_compared(self, prompts: list[list[int]]) -> str:
        try:
            with torch.inference_mode():
                return self._compare(prompts)
        except Exception as e:
            pass_on(e)
            return f"its cache cannot be joined ({type(e).__name__}: {str(e)[:100]})"

    def _compare(self, prompts: list[list[int]]) -> str:
        from transformers.cache_utils import DynamicCache

        cache, places = DynamicCache(), Places()
        first = self._read(prompts, cache).argmax(-1)
        places.arrange([], len(prompts), cache.get_seq_length())
        places.put(range(len(prompts)), cache)
        places.see_from(0)
        starts = places.end - torch.tensor([len(p) for p in prompts], device=first.device)
        (mask,) = self._masks(places, starts, 1, True)
        together = self._next(places, starts, first, mask).float()
        for row, prompt in enumerate(prompts):
            ids = torch.tensor([[*prompt, int(first[row])]], device=first.device)
            alone = self.model(input_ids=ids, use_cache=False).logits[0, -1].float()
            off = float((together[row] - alone).abs().max() / alone.std().clamp(min=1e-12))
            if not off <= PROBE_TOLERANCE[self.model.dtype == torch.float32]:
                return "in a batch with another prompt its logits are others than alone"
        return ""


PROBE_TOLERANCE = {True: 1e-2, False: 0.5}
"""In float32 or not: of a logit, in standard deviations of the logits; last bits make far less."""


def generation_settings(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    decoding: Decoding,
    width: int,
    template_ends: Sequence[int] = (),
) -> "GenerationConfig":
    """For generate(): the decoding that the row asks for and nothing else.

    generate() fills what is left open from the model folder's generation_config.json (repetition
    penalties, top_k) and then from its own defaults (top_k 50): both would go unseen.
    """
    from transformers import GenerationConfig

    ends = end_tokens(model, tokenizer, template_ends)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    sampled = bool(decoding.temperature)
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=pad)
    return GenerationConfig(
        max_new_tokens=limit_of(width, decoding.max_new_tokens, most_positions(model)),
        do_sample=sampled,
        eos_token_id=ends,
        pad_token_id=pad,
        **({"temperature": decoding.temperature, "top_p": decoding.top_p} if sampled else {}),
        **({"top_k": 0} if sampled else {}),
        **({"min_p": decoding.min_p} if decoding.min_p else {}),
    )
