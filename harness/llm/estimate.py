"""What a stage will ask of a teacher or judge: calls and tokens, before it runs. Rough, and said so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.artefact.keys import Files
from harness.errors import InputError
from harness.spec.base import Data, Endpoint, FileText
from harness.spec.prompts import PromptSet

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English."""
TOKENS_PER_INSTRUCTION = 15
TOKENS_PER_TASK = 60
"""Instruction, input and output of Self-Instruct's kind."""
PROMPT_CHARACTERS = 200
"""Of a prompt that is not there to be counted."""
ON_HUB = "how many examples the hub data set has is known once it is fetched"


class Share(NamedTuple):
    """Expected tokens of the calls of one endpoint."""

    endpoint: Endpoint
    prompt_tokens: int
    completion_tokens: int


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
    shares: tuple[Share, ...] = ()
    """Whose tokens they are, of a stage that calls several models; no shares: all of its one."""
    is_measured: bool = False
    """Whether it is what the same calls took before."""

    def of(self, endpoint: Endpoint) -> "Estimate":
        """The same calls, as one model's share of a stage's."""
        share = Share(endpoint, self.prompt_tokens, self.completion_tokens)
        return replace(self, shares=(share,))

    def as_measured(self, calls: int, prompt_tokens: int, completion_tokens: int) -> "Estimate":
        """With what the same calls took before, to which each model has its share."""
        prompt = prompt_tokens / max(self.prompt_tokens, 1)
        completion = completion_tokens / max(self.completion_tokens, 1)
        shares = tuple(
            Share(
                s.endpoint, round(s.prompt_tokens * prompt), round(s.completion_tokens * completion)
            )
            for s in self.shares
        )
        return Estimate(
            calls, prompt_tokens, completion_tokens, self.examples, self.unknown, shares, True
        )

    def __add__(self, other: "Estimate") -> "Estimate":
        """Both sets of calls, as far as they are known; the second one's examples."""
        return Estimate(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            other.examples,
            self.unknown or other.unknown,
            self.shares + other.shares,
        )


def prompt_lengths(prompts: PromptSet, files: Files) -> Sequence[int] | None:
    """Characters of each prompt, of a question of several turns one for each; None for a whole set on
    the hub, which is not there yet."""
    if prompts.hub is not None:
        count = prompts.sample.k if prompts.sample else prompts.first
        return None if count is None else [PROMPT_CHARACTERS] * count
    sources = list((prompts.files or {}).values())
    sources += [prompts.file] if prompts.file else []
    most = prompts.sample.k if prompts.sample else prompts.first
    records = [r for data in sources for r in _records_in(files.locate(data))[:most]]
    return [length for length, turns in records for _ in range(turns)]


def estimate_prompts(
    prompts: PromptSet,
    files: Files,
    completion: int,
    characters: Callable[[Sequence[int]], int] = sum,
    times: int = 1,
) -> Estimate:
    """Of `times` calls about each prompt. `characters`: of one call about each of them, by the prompts'
    own; `completion`: tokens of a reply."""
    lengths = prompt_lengths(prompts, files)
    if lengths is None:
        return Estimate(unknown=ON_HUB)
    calls = times * len(lengths)
    tokens = times * characters(lengths) // CHARACTERS_PER_TOKEN
    return Estimate(calls, tokens, calls * completion)


def estimate_calls(calls: int, prompt: int, completion: int, examples: int = 0) -> Estimate:
    return Estimate(calls, calls * prompt, calls * completion, examples)


def count_tokens(template: FileText) -> int:
    return len(template.text) // CHARACTERS_PER_TOKEN


def count_records(data: Data, files: Files) -> int:
    return len(text_lengths(files.locate(data)))


def text_lengths(path: Path) -> Sequence[int]:
    """Characters of each record of a file; none for what cannot be counted so."""
    return [length for length, _ in _records_in(path)]


def _records_in(path: Path) -> Sequence[tuple[int, int]]:
    """Characters and turns of each record."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return _counted(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _counted(path: Path, changed: int, size: int) -> Sequence[tuple[int, int]]:
    """Empty for a file that a stage will refuse, and for Parquet whose reader is not here."""
    from harness.data.tables import Every, read_files

    try:
        rows = read_files(path, Every()).rows
    except (InputError, ImportError):
        return []
    return [(sum(len(str(v)) for v in row.fields.values()), _turns(row.fields)) for row in rows]


def _turns(fields: Mapping[str, Any]) -> int:
    turns = fields.get("turns")
    return len(turns) if isinstance(turns, list) and "instruction" not in fields else 1
