"""The training set: records read, rendered, turned into tokens and labels, every loss counted."""

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from harness.artefact import events
from harness.artefact.call import StageCall
from harness.artefact.keys import digest_of, file_digest
from harness.data.dropped import Tally
from harness.errors import InputError
from harness.modeling.text import Encoder, Example, Tokens
from harness.spec.template import Template
from harness.spec.train import Train
from harness.train.examples import CUT, DATA_FILE, EMPTY, MARKED, Task, file_of, read_examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER, COUNTED = 1, 2
"""Bits of a token's mark: part of the answer; its prediction enters the likelihood."""
CACHE_FORMAT = 2
ARRAYS = ("ids", "marks", "bounds", "answer_bytes")
CHUNK = 1000
"""Examples tokenised between two notes of progress."""
CACHED = 32
"""Tokenised data sets that the volume keeps."""

Array = npt.NDArray[Any]


@dataclass
class Counts:
    """records = examples + held_out + dropped_empty + dropped_marked + dropped_cut."""

    records: int = 0
    examples: int = 0
    held_out: int = 0
    dropped_empty: int = 0
    """Records with an empty answer."""
    dropped_marked: int = 0
    """Records that are marked as not to be trained on."""
    dropped_cut: int = 0
    """Records of which the cut left no token of an answer."""
    truncated: int = 0
    """Examples that were cut and kept."""
    special_tokens: int = 0
    """Examples whose own text holds one of the tokenizer's special tokens, which is read as one."""
    special_in_answers: int = 0
    """Of these, examples with one in an answer, where it may be what ends an answer."""
    held_out_records: int = 0
    """Of a validation file."""
    held_out_dropped: int = 0
    """Of these, those left out: empty, or marked as not to be trained on."""

    def notes(self, cutoff: int | None) -> list[str]:
        """What became of records, in words; nothing where all of them are trained on as they are."""
        rules = Counter(
            {EMPTY: self.dropped_empty, MARKED: self.dropped_marked, CUT: self.dropped_cut}
        )
        tally = Tally("train", "records", self.records - rules.total(), rules)
        notes = tally.sentences(
            {
                EMPTY: "have an empty answer",
                MARKED: "are marked as not to be trained on",
                CUT: f"have no answer left within {cutoff} tokens",
            }
        )
        if self.truncated:
            notes.append(
                f"{self.truncated} of {self.examples} examples were cut to {cutoff} tokens"
            )
        if self.special_in_answers:
            notes.append(
                f"{self.special_in_answers} of {self.examples + self.dropped_cut} examples have one of "
                "the tokenizer's special tokens in the text of an answer, where it is learnt as that "
                "token"
            )
        if self.held_out_dropped:
            notes.append(
                f"{self.held_out_dropped} of {self.held_out_records} records of the validation file "
                "were left out: their answer is empty, or marked as not to be trained on"
            )
        return notes


@dataclass
class EncodedExamples:
    """Tokenised sequences, end to end. Preference data has two a pair: chosen, then rejected.

    ids: int32, (tokens,). marks: uint8, (tokens,). bounds: int64, (sequences + 1,).
    answer_bytes: int64, (sequences,), the UTF-8 bytes of each answer's text.
    """

    ids: Array
    marks: Array
    bounds: Array
    answer_bytes: Array
    pairs: bool = False

    def __len__(self) -> int:
        """Examples: sequences, or pairs of them."""
        return (len(self.bounds) - 1) // self.each

    @property
    def each(self) -> int:
        """Sequences an example."""
        return 2 if self.pairs else 1

    def sequences(self, example: int) -> list[tuple[Array, Array]]:
        """The ids and marks of each of an example's sequences."""
        first = example * self.each
        cuts = self.bounds[first : first + self.each + 1]
        return [(self.ids[a:b], self.marks[a:b]) for a, b in pairwise(cuts)]

    def sizes(self) -> Array:
        """Tokens of each example."""
        return np.diff(self.bounds[:: self.each])

    def longest(self) -> int:
        return int(np.diff(self.bounds).max())

    def counted(self) -> Array:
        """Of each example, the tokens that enter the likelihood."""
        totals = np.concatenate([[0], np.cumsum(self._counted_marks())])
        starts = self.bounds[:-1]
        per_sequence = totals[self.bounds[1:]] - totals[starts]
        return cast(Array, per_sequence.reshape(-1, self.each)[:, 0])

    def _counted_marks(self) -> Array:
        """The first token of a text has nothing before it to predict it."""
        counted = (self.marks & COUNTED) > 0
        counted[self.bounds[:-1]] = False
        return counted


@dataclass
class Data:
    train: EncodedExamples
    held_out: EncodedExamples | None
    counts: Counts
    simulated: bool = False
    """Whether a record says that a simulated teacher or judge had a hand in it."""


def data_file(call: StageCall) -> Path:
    """The data set's file: the gen artefact's, or the one the row gives."""
    if "data" in call.inputs:
        return Path(call.inputs["data"]) / DATA_FILE
    data = call.params.get("data")
    if not data:
        raise InputError("the call names no data set (neither inputs.data nor params.data)")
    return file_of(Path(data["path"]))


def load_data(
    call: StageCall, params: Train, template: Template, tokenizer: "PreTrainedTokenizerBase"
) -> Data:
    """The tokenised data set, from the volume's cache where another run left it there."""
    path = data_file(call)
    held_out = params.validation and params.validation.file
    folder = Path(call.cache) if call.cache else call.folder / "tokens"
    cached = folder / f"{_cache_key(path, held_out, params, template, tokenizer)}.npz"
    try:
        data = _read_cache(cached)
        if params.validation is not None and data.held_out is None:
            raise ValueError("the cached data set lacks its held-out part")
    except (OSError, ValueError, KeyError, NotImplementedError):
        data = encode(path, params, template, tokenizer)
        _write_cache(cached, data)
    return data


def encode(
    path: Path, params: Train, template: Template, tokenizer: "PreTrainedTokenizerBase"
) -> Data:
    """Raises InputError, with file:line, for a record that is not what the objective is trained on
    or lacks a part, and for a data set of which nothing is left."""
    pairs = params.objective == "orpo"
    counts = Counts()
    source = read_examples(path, pairs)
    examples, simulated = source.tasks, source.simulated
    tally = source.tally
    counts.records = tally.proposed
    counts.dropped_empty, counts.dropped_marked = tally.dropped[EMPTY], tally.dropped[MARKED]
    held_out = _split_off(examples, params)
    encoder = Encoder(tokenizer, template, params.tokenize == "together", params.append_end)
    counts.special_tokens = sum(_is_injected(encoder, e) for e in examples)
    counts.special_in_answers = sum(any(map(encoder.injected, e.answers)) for e in examples)
    train = _tokenise(encoder, examples, params, params.cutoff_length, counts)
    if not len(train):
        before = tally.in_words() if tally.dropped else ""
        raise InputError(
            f"{path}: none of the {counts.records} records can be trained on "
            f"(of {counts.dropped_cut} the cut leaves no answer{before and f'; {before}'})",
            "Give a data set with answers, or a larger cutoff_length.",
        )
    counts.examples = len(train)
    other = None
    if params.validation is not None:
        if params.validation.file is not None:
            other_file = read_examples(file_of(Path(params.validation.file.path)), pairs)
            counts.held_out_records = other_file.tally.proposed
            counts.held_out_dropped = other_file.tally.dropped.total()
            held_out = other_file.tasks[: params.validation.first]
            simulated = simulated or other_file.simulated
        whole = params.validation.over == "text"
        other = _tokenise(encoder, held_out, params, None, Counts(), whole)
        if params.validation.share is not None:
            counts.held_out = len(other)
        if not len(other):
            which = params.validation.file.path if params.validation.file else path
            raise InputError(
                f"{which}: it has no example with an answer to hold out",
                "Give a larger train.validation.share, or another train.validation.file.",
            )
    return Data(train, other, counts, simulated)


def _split_off(examples: list[Task], params: Train) -> list[Task]:
    """Take the held-out share out of `examples`: by place alone, so for every tokenizer the same."""
    if params.validation is None or params.validation.share is None:
        return []
    count = min(max(1, round(params.validation.share * len(examples))), len(examples) - 1)
    drawn = set(random.Random(params.validation.seed).sample(range(len(examples)), max(count, 0)))
    held_out = [e for i, e in enumerate(examples) if i in drawn]
    examples[:] = [e for i, e in enumerate(examples) if i not in drawn]
    return held_out


def _is_injected(encoder: Encoder, example: Task) -> bool:
    turns = [text for turn in example.history for text in turn]
    texts = (example.instruction, example.input, example.system, *turns, *example.answers)
    return any(encoder.injected(text) for text in texts)


def _tokenise(
    encoder: Encoder,
    examples: list[Task],
    params: Train,
    cutoff: int | None,
    counts: Counts,
    whole: bool = False,
) -> EncodedExamples:
    """All sequences, cut to `cutoff` tokens. An example with one that has no answer left is dropped.
    `whole`: each text counts as an answer from its beginning."""
    each = 2 if params.objective == "orpo" else 1
    tokens = _encode_all(encoder, examples)
    ids: list[Array] = []
    marks: list[Array] = []
    sizes: list[int] = []
    for number, example in enumerate(examples):
        parts = tokens[number * each : (number + 1) * each]
        if params.max_prompt_length is not None and cutoff is not None:
            cut = _cut_pair(parts, cutoff, params.max_prompt_length, params, example)
        else:
            cut = [_cut(t, cutoff, params, example) for t in parts]
        if not all((m[1:] & ANSWER).any() for _, m in cut):
            counts.dropped_cut += 1
            continue
        counts.truncated += any(len(m) < len(t.ids) for (_, m), t in zip(cut, parts, strict=True))
        for (i, m), rendered in zip(cut, _rendered(example), strict=True):
            ids.append(i)
            marks.append(m | ANSWER if whole else m)
            sizes.append(rendered.text_bytes if whole else len(rendered.output.encode()))
    bounds = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    return EncodedExamples(
        np.concatenate(ids) if ids else np.zeros(0, np.int32),
        np.concatenate(marks) if marks else np.zeros(0, np.uint8),
        bounds,
        np.array(sizes, dtype=np.int64),
        each == 2,
    )


def _encode_all(encoder: Encoder, tasks: list[Task]) -> list[Tokens]:
    """One after the other, with progress; a task that the template cannot hold is named."""
    tokens: list[Tokens] = []
    for at in range(0, len(tasks), CHUNK):
        chunk = tasks[at : at + CHUNK]
        try:
            tokens += encoder.examples([e for task in chunk for e in _rendered(task)])
        except InputError:
            for task in chunk:
                try:
                    encoder.examples(_rendered(task))
                except InputError as e:
                    e.message = f"{task.where}: {e.message}"
                    raise
            raise
        if len(tasks) > CHUNK:
            events.progress("tokenise", at + len(chunk), len(tasks), "examples")
    return tokens


def _rendered(task: Task) -> list[Example]:
    return [
        Example(task.instruction, task.input, answer, task.system, task.history)
        for answer in task.answers
    ]


def _marked(tokens: Tokens, params: Train, task: Task) -> tuple[Array, Array]:
    marks = np.full(len(tokens.ids), COUNTED if params.train_on_prompt else 0, dtype=np.uint8)
    for turn, (start, stop) in enumerate(tokens.answers[:-1]):
        if turn in task.untrained:
            marks[start:stop] = 0
        elif params.train_on_history:
            marks[start:stop] |= COUNTED
    start, stop = tokens.answers[-1]
    marks[start:stop] |= ANSWER | COUNTED
    return np.array(tokens.ids, dtype=np.int32), marks


def _cut(tokens: Tokens, cutoff: int | None, params: Train, task: Task) -> tuple[Array, Array]:
    """The ids and marks that the cut leaves."""
    ids, marks = _marked(tokens, params, task)
    if cutoff is None or len(ids) < cutoff:
        return ids, marks
    if params.truncation != "whole":
        places = _shared(tokens, cutoff, params)
        return ids[places], marks[places]
    side = slice(None, cutoff) if params.truncation_side == "right" else slice(-cutoff, None)
    return ids[side], marks[side]


def _cut_pair(
    parts: Sequence[Tokens], cutoff: int, most: int, params: Train, task: Task
) -> list[tuple[Array, Array]]:
    """As TRL's ORPOTrainer (0.12, tokenize_row; truncation_mode keep_end): where the prompt with the
    longer answer is over `cutoff`, the last `most` tokens of the prompt stay, and of an answer that is
    still too long for it as many as `most` leaves room for."""
    starts = [tokens.answers[-1][0] for tokens in parts]
    longer = max(len(t.ids) - start for t, start in zip(parts, starts, strict=True))
    cut = []
    for tokens, start in zip(parts, starts, strict=True):
        ids, marks = _marked(tokens, params, task)
        begin = max(0, start - most) if start + longer > cutoff else 0
        end = start + cutoff - most if start - begin + longer > cutoff else len(ids)
        cut.append((ids[begin:end], marks[begin:end]))
    return cut


def _shared(tokens: Tokens, cutoff: int, params: Train) -> Array:
    """The places of the tokens that are left where prompt and answer of each turn share what room
    the turns before it leave. Where history is not trained on, LLaMA-Factory of today serves the last
    turn first (its `mask_history`)."""
    today = params.truncation == "shared"
    begins = [0, *(stop for _, stop in tokens.answers)]
    turns = list(zip(begins, tokens.answers, strict=False))
    if today and not params.train_on_history:
        turns.reverse()
    places: list[int] = []
    for begin, (start, stop) in turns:
        room = cutoff - len(places)
        if room <= 0:
            break
        prompt, answer = _shares(start - begin, stop - start, room, today)
        places += [*range(begin, begin + prompt), *range(start, start + answer)]
    return np.array(sorted(places), dtype=np.int64)


def _shares(prompt: int, answer: int, room: int, today: bool) -> tuple[int, int]:
    """Tokens of a prompt and of its answer that stay: LLaMA-Factory's `_infer_seqlen` (0.9.3) and
    `infer_max_len` (0.7.1). The product is taken in its order, whose last bit can cost a token."""
    most = int(room * (answer / (prompt + answer)))
    if not today:
        most = max(most, 1)
    elif 2 * answer < room:
        most = room
    elif 2 * prompt < room:
        most = room - prompt
    answer = min(most, answer)
    return min(room - answer, prompt), answer


def _cache_key(
    path: Path,
    held_out: Any,
    params: Train,
    template: Template,
    tokenizer: "PreTrainedTokenizerBase",
) -> str:
    import tokenizers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = backend.to_str() if backend is not None else tokenizer.__getstate__().__repr__()
    names = ("objective", "train_on_prompt", "train_on_history", "cutoff_length", "truncation_side",
             "truncation", "tokenize", "append_end", "max_prompt_length")  # fmt: skip
    validation = params.validation.model_dump(mode="json") if params.validation else None
    return digest_of(
        {
            "format": CACHE_FORMAT,
            "data": file_digest(path),
            "held_out": file_digest(file_of(Path(held_out.path))) if held_out else None,
            "validation": validation
            and {n: validation.get(n) for n in ("share", "first", "seed", "over")},
            "template": template.model_dump(mode="json"),
            "tokenizer": hashlib.sha256(state.encode()).hexdigest(),
            "special": {k: str(v) for k, v in sorted(tokenizer.special_tokens_map.items())},
            "chat_template": str(tokenizer.chat_template),
            "version": tokenizers.__version__,
            "params": {name: getattr(params, name) for name in names},
        }
    )


def _write_cache(path: Path, data: Data) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"counts": asdict(data.counts), "simulated": data.simulated, "pairs": data.train.pairs}
    parts = {"train": data.train} | ({"held_out": data.held_out} if data.held_out else {})
    arrays = {f"{p}.{n}": getattr(e, n) for p, e in parts.items() for n in ARRAYS}
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)
    part.replace(path)
    newest_first = sorted(path.parent.glob("*.npz"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in newest_first[CACHED:]:
        old.unlink(missing_ok=True)


def _read_cache(path: Path) -> Data:
    """Raises OSError, ValueError or KeyError where there is none, or it is broken."""
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as arrays_file:
            facts = json.loads(str(arrays_file["facts"]))
            encoded = {}
            for part in ("train", "held_out"):
                if f"{part}.ids" in arrays_file:
                    arrays = {n: arrays_file[f"{part}.{n}"] for n in ARRAYS}
                    encoded[part] = EncodedExamples(**arrays, pairs=facts["pairs"])
    except (zipfile.BadZipFile, EOFError) as e:
        raise ValueError(str(e)) from e
    os.utime(path)
    return Data(
        encoded["train"], encoded.get("held_out"), Counts(**facts["counts"]), facts["simulated"]
    )
