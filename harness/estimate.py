"""What a stage will ask of a teacher or judge: calls and tokens, before it runs. Rough, and said so."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.keys import Files
from harness.spec.answer import Answer, EndpointEngine, PromptSet
from harness.spec.base import Data, _TextFile
from harness.spec.judges import (
    AlpacaEvalJudge,
    GradingJudge,
    Judge,
    ModelJudge,
    PreferenceJudge,
    RowOutputs,
    RubricJudge,
)
from harness.spec.recipes import (
    AlpacaGen,
    ExpandGen,
    ImportGen,
    LongestGen,
    NaiveGen,
    RandomGen,
    RateGen,
    SeedsGen,
    SelfInstructGen,
)

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English."""
TOKENS_PER_INSTRUCTION = 15
TOKENS_PER_TASK = 60
"""Instruction, input and output of Self-Instruct's kind."""
TOKENS_PER_EXPANDED = 200
TOKENS_PER_RATING = 80
TOKENS_PER_VERDICT = 10
TOKENS_PER_GRADING = 150
TOKENS_PER_FEEDBACK = 200
TOKENS_PER_ANSWER = 300
ANNOTATOR_CHARACTERS = 1200
"""Of an alpaca_eval annotator's prompt."""
RUBRIC_CHARACTERS = 3000
ANSWER_CHARACTERS = 1200
"""Of an answer that is not there to be counted."""
INSTRUCTIONS_PER_REPLY = 8
"""Of Self-Instruct's requests, before its filters."""
KEPT_SHARE = 0.5
"""Of new instructions, after the filters."""
PROMPT_CHARACTERS = 200
"""Of a prompt that is not there to be counted."""
ON_HUB = "how many examples the hub data set has is known once it is fetched"
NOT_COUNTED = "how many examples the data set has is known once it is read"


@dataclass(frozen=True)
class Estimate:
    """Expected calls, their tokens, and how many examples a gen step leaves."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    examples: int | None = 0
    """None: not known."""
    unknown: str = ""
    """Why the calls, or else the examples, are not known."""

    def __add__(self, other: "Estimate") -> "Estimate":
        """Both sets of calls, as far as they are known; the second one's examples."""
        return Estimate(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            other.examples,
            self.unknown or other.unknown,
        )


def of_stage(
    stage: str, params: Mapping[str, Any], files: Files, previous: Estimate | None = None
) -> Estimate:
    """What a stage will need, from its parameters and the sizes of what they name.

    `previous`: of the step before, in a chain of gen steps. Given transcripts leave nothing to call.
    """
    if stage == "gen":
        step = params["gen"]
        estimator = _GEN.get(type(step))
        examples = previous.examples if previous else 0
        if examples is None and not isinstance(step, RandomGen | LongestGen):
            assert previous is not None
            return Estimate(examples=None, unknown=previous.unknown)
        expected = (
            estimator(step, files, examples or 0) if estimator else Estimate(examples=examples)
        )
        is_recorded = getattr(step, "transcript", None) is not None
        return Estimate(examples=expected.examples) if is_recorded else expected
    if stage == "answer":
        return _answer(params["answer"], files)
    if stage == "judge":
        return _judge(params["judge"], params.get("prompts"), files)
    return Estimate()


def _alpaca(gen: AlpacaGen, files: Files, examples: int) -> Estimate:
    calls = ceil(gen.examples / gen.tasks_per_reply)
    per_reply = gen.tasks_per_reply * TOKENS_PER_TASK
    most = gen.sampling.max_tokens or per_reply
    prompt = _tokens(gen.prompt) + gen.shown * TOKENS_PER_TASK
    seeds = _records(gen.seeds, files) if gen.include_seeds else 0
    return _calls(calls, prompt, min(per_reply, most), gen.examples + seeds)


def _self_instruct(gen: SelfInstructGen, files: Files, examples: int) -> Estimate:
    step = gen.instructions
    rounds = ceil(step.count / (INSTRUCTIONS_PER_REPLY * KEPT_SHARE))
    listing = _calls(
        rounds,
        _tokens(step.prompt) + step.shown * TOKENS_PER_INSTRUCTION,
        INSTRUCTIONS_PER_REPLY * TOKENS_PER_INSTRUCTION,
    )
    kind = _calls(step.count, _tokens(gen.classification.prompt) + TOKENS_PER_INSTRUCTION, 1)
    seeds = _records(gen.seeds, files) if gen.include_seeds else 0
    filled = _calls(
        step.count,
        _tokens(gen.instances.input_first) + TOKENS_PER_INSTRUCTION,
        2 * TOKENS_PER_TASK,
        step.count + seeds,
    )
    return listing + kind + filled


def _naive(gen: NaiveGen, files: Files, examples: int) -> Estimate:
    seeds = _records(gen.seeds, files)
    new = round(gen.growth * seeds)
    pairs = gen.shown * TOKENS_PER_INSTRUCTION
    tasks = _calls(ceil(new / gen.shown), _tokens(gen.tasks_prompt) + pairs, pairs)
    more = _calls(
        seeds,
        _tokens(gen.given_prompt) + TOKENS_PER_TASK,
        (1 + gen.given_instances) * TOKENS_PER_TASK,
    )
    fresh = _calls(
        new,
        _tokens(gen.new_prompt) + TOKENS_PER_TASK + TOKENS_PER_INSTRUCTION,
        gen.new_instances * TOKENS_PER_TASK,
        seeds * (gen.include_seeds + gen.given_instances) + new * gen.new_instances,
    )
    return tasks + more + fresh


def _expand(gen: ExpandGen, files: Files, examples: int) -> Estimate:
    return _calls(
        examples, _tokens(gen.prompt) + 2 * TOKENS_PER_TASK, TOKENS_PER_EXPANDED, examples
    )


def _rate(gen: RateGen, files: Files, examples: int) -> Estimate:
    return _calls(examples, _tokens(gen.prompt) + TOKENS_PER_TASK, TOKENS_PER_RATING, examples)


def _seeds_only(gen: SeedsGen, files: Files, examples: int) -> Estimate:
    return Estimate(examples=_records(gen.seeds, files))


def _import(gen: ImportGen, files: Files, examples: int) -> Estimate:
    from harness.given import read_import

    if gen.file is not None:
        with contextlib.suppress(InputError):
            reading = read_import(gen, files)
            if not reading.unread:
                return Estimate(examples=reading.examples)
    if gen.sample is not None:
        return Estimate(examples=gen.sample.k)
    return Estimate(examples=None, unknown=ON_HUB if gen.hub else NOT_COUNTED)


def _first_k(gen: RandomGen | LongestGen, files: Files, examples: int) -> Estimate:
    return Estimate(examples=gen.k)


_GEN: dict[type, Callable[[Any, Files, int], Estimate]] = {
    AlpacaGen: _alpaca,
    SelfInstructGen: _self_instruct,
    NaiveGen: _naive,
    ExpandGen: _expand,
    RateGen: _rate,
    SeedsGen: _seeds_only,
    ImportGen: _import,
    RandomGen: _first_k,
    LongestGen: _first_k,
}


def _answer(answer: Answer, files: Files) -> Estimate:
    """Of a served model; none where the row's own answers."""
    engine = answer.engine
    if not isinstance(engine, EndpointEngine) or engine.transcript is not None:
        return Estimate()
    lengths = _prompt_lengths(answer.prompts, files)
    if lengths is None:
        return Estimate(unknown=ON_HUB)
    most = min(TOKENS_PER_ANSWER, answer.decoding.max_new_tokens or TOKENS_PER_ANSWER)
    return Estimate(len(lengths), sum(lengths) // CHARACTERS_PER_TOKEN, len(lengths) * most)


def _judge(judge: Judge, prompts: PromptSet | None, files: Files) -> Estimate:
    if isinstance(judge, ModelJudge) or prompts is None or _recorded(judge):
        return Estimate()
    if isinstance(judge, RubricJudge) and not isinstance(judge.engine, EndpointEngine):
        return Estimate()
    lengths = _prompt_lengths(prompts, files)
    if lengths is None:
        return Estimate(unknown=ON_HUB)
    calls = len(lengths)
    if isinstance(judge, RubricJudge):
        prompt_characters = RUBRIC_CHARACTERS + ANSWER_CHARACTERS
        characters = sum(lengths) + calls * prompt_characters
        return Estimate(calls, characters // CHARACTERS_PER_TOKEN, calls * TOKENS_PER_FEEDBACK)
    fixed = ANNOTATOR_CHARACTERS
    if not isinstance(judge, AlpacaEvalJudge):
        fixed = len(judge.prompt.text)
    characters = calls * fixed + 2 * _answer_characters(judge, lengths, files)
    if isinstance(judge, GradingJudge):
        prompt_tokens = 2 * characters // CHARACTERS_PER_TOKEN
        return Estimate(2 * calls, prompt_tokens, 2 * calls * TOKENS_PER_GRADING)
    return Estimate(calls, characters // CHARACTERS_PER_TOKEN, calls * TOKENS_PER_VERDICT)


def _recorded(judge: Judge) -> bool:
    holder = judge.engine if isinstance(judge, RubricJudge) else judge
    return getattr(holder, "transcript", None) is not None


def _prompt_lengths(prompts: PromptSet, files: Files) -> Sequence[int] | None:
    """Characters of each prompt; None for a whole set on the hub, which is not there yet."""
    if prompts.hub is not None:
        count = prompts.sample.k if prompts.sample else prompts.first
        return None if count is None else [PROMPT_CHARACTERS] * count
    sources = list((prompts.files or {}).values())
    sources += [prompts.file] if prompts.file else []
    most = prompts.sample.k if prompts.sample else prompts.first
    return [n for data in sources for n in text_lengths(files.locate(data))[:most]]


def _answer_characters(
    judge: PreferenceJudge | AlpacaEvalJudge | GradingJudge, lengths: Sequence[int], files: Files
) -> int:
    """Of the baseline's answers with their instructions; the model's are taken to be as long."""
    if isinstance(judge.reference, RowOutputs):
        return sum(lengths) + len(lengths) * ANSWER_CHARACTERS
    return sum(text_lengths(files.locate(judge.reference))[: len(lengths)])


def _calls(calls: int, prompt: int, completion: int, examples: int = 0) -> Estimate:
    return Estimate(calls, calls * prompt, calls * completion, examples)


def _tokens(template: _TextFile) -> int:
    return len(template.text) // CHARACTERS_PER_TOKEN


def _records(data: Data, files: Files) -> int:
    return len(text_lengths(files.locate(data)))


def text_lengths(path: Path) -> Sequence[int]:
    """Characters of each record of a file; none for what cannot be counted so."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return _lengths_of(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _lengths_of(path: Path, changed: int, size: int) -> Sequence[int]:
    """Empty for a file that a stage will refuse, and for Parquet whose reader is not here."""
    from harness.modeling.tables import Every, read_files

    try:
        rows = read_files(path, Every()).rows
    except (InputError, ImportError):
        return []
    return [sum(len(str(v)) for v in row.fields.values()) for row in rows]
