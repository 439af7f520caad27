"""Answers in the making: a batch that prompts join and answers leave, and how a token is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy
import torch

from harness.answer.decoding.cache import Places

if TYPE_CHECKING:
    from transformers.cache_utils import DynamicCache


@dataclass(frozen=True)
class DecodingRequest:
    """A prompt's tokens and the most that its answer may have; `seed` of its random numbers."""

    index: int
    ids: list[int]
    limit: int
    seed: int = 0


@dataclass
class Answering:
    request: DecodingRequest
    random: numpy.random.Generator
    tokens: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.request.limit - len(self.tokens)


@dataclass
class Batch:
    """Answers in the making and their places; None where a place is empty."""

    answers: list[Answering | None]
    places: Places
    starts: torch.Tensor
    """The column of each answer's first token."""
    last: torch.Tensor
    """The last token of each, which the model has not read yet."""
    is_padded: bool = False
    """Whether some place has columns in sight before its answer's first."""

    @classmethod
    def empty(cls, device: torch.device) -> "Batch":
        nothing = torch.empty(0, dtype=torch.long, device=device)
        return cls([], Places(), nothing, nothing.clone())

    @property
    def alive(self) -> int:
        return sum(answer is not None for answer in self.answers)

    def join(self, new: Sequence[Answering], filled: "DynamicCache", first: torch.Tensor) -> None:
        """Give answers, whose prompts were read into `filled`, a place and their first token."""
        more = max(0, len(new) - self.answers.count(None))
        self.starts = torch.cat([self.starts, self.starts.new_zeros(more)])
        self.last = torch.cat([self.last, self.last.new_zeros(more)])
        width = filled.get_seq_length()
        if more or width > self.places.end:
            old_places = range(len(self.answers))
            self.starts += self.places.arrange(old_places, len(old_places) + more, width)
            self.answers += [None] * more
        free = [place for place, answer in enumerate(self.answers) if answer is None][: len(new)]
        self.places.put(free, filled)
        at = torch.tensor(free, device=self.last.device)
        lengths = torch.tensor([len(answer.request.ids) for answer in new], device=self.last.device)
        self.starts[at], self.last[at] = self.places.end - lengths, first
        for place, answer in zip(free, new, strict=True):
            self.answers[place] = answer
        self.forget()

    def forget(self) -> None:
        """The columns that no answer has tokens in; the last token of each is not in yet."""
        lengths = {
            len(answer.request.ids) + max(len(answer.tokens) - 1, 0)
            for answer in self.answers
            if answer
        }
        self.places.see_from(self.places.end - max(lengths))
        self.is_padded = len(lengths) > 1 or None in self.answers
        if None in self.answers:
            # An empty place makes tokens that nobody sees, from a position that exists.
            empty = torch.tensor(
                [answer is None for answer in self.answers], device=self.starts.device
            )
            self.starts = self.starts.masked_fill(empty, self.places.end)

    def make_room(self, tokens: int) -> None:
        """For so many more tokens of each, no more than harness.answer.decoding.cache.GROWTH."""
        if not self.places.has_room(tokens):
            self.starts += self.places.arrange(range(len(self.answers)), len(self.answers), 0)

    def close_up(self, rows: int) -> None:
        """Do away with empty places; as many stay as make the answers a multiple of `rows`, or one."""
        places = [place for place, answer in enumerate(self.answers) if answer is not None]
        count = len(places) if len(places) == 1 else -(-len(places) // rows) * rows
        if 0 < count < len(self.answers):
            empty = [place for place, answer in enumerate(self.answers) if answer is None]
            places += empty[: count - len(places)]
            shift = self.places.arrange(places, count, 0)
            self.answers = [self.answers[place] for place in places]
            self.starts, self.last = self.starts[places] + shift, self.last[places]


def random_numbers(seed: int) -> numpy.random.Generator:
    """A prompt's own, in [0, 1): the same however many are drawn at a time."""
    return numpy.random.Generator(numpy.random.PCG64(seed))


def sample(
    logits: torch.Tensor,
    temperature: float,
    top_p: float,
    draws: torch.Tensor,
    min_p: float = 0.0,
) -> torch.Tensor:
    """One token a row, by inversion of the cumulative distribution in the vocabulary's order.

    logits: (rows, vocabulary). draws: (rows,), in [0, 1). top_p: only from the smallest set of the
    likeliest tokens that have at least this probability (Holtzman et al. 2020, nucleus sampling).
    min_p: of these, only tokens with at least this share of the likeliest one's probability (Nguyen et
    al. 2024, arXiv 2407.01082).
    """
    # Probabilities are float32, and only what they come from and are added up in is float64.
    if temperature == 1:
        # softmax takes the largest away itself, and the difference of two float32 is the same with or
        # without float64 in between: double rounding is innocuous (Figueroa 1995: 53 >= 2 * 24 + 2).
        probabilities = logits.softmax(-1, dtype=torch.float32)
    else:
        # The largest is 0 then, at any temperature; the others go to minus infinity where it is tiny.
        below = logits - logits.amax(-1, keepdim=True).double()
        scaled = torch.empty_like(logits, dtype=torch.float32)
        probabilities = torch.div(below, temperature, out=scaled).softmax(-1)
    if top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(-1, dtype=torch.float64) - ranked
        nucleus = torch.where(before < top_p, ranked, torch.zeros_like(ranked))
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, nucleus)
    if min_p > 0:
        # A share of the largest is the same before and after what is left is made to add up to 1.
        low = probabilities < min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(low, 0)
    sums = probabilities.cumsum(-1, dtype=torch.float64)
    total = sums[:, -1:].contiguous()
    chosen = torch.searchsorted(sums, draws[:, None].to(sums.dtype) * total, right=True)
    # A product may be rounded up to the total: then the last token with any probability.
    last = torch.searchsorted(sums, total).clamp(max=logits.shape[-1] - 1)
    return torch.minimum(chosen, last)[:, 0]
