"""What the twins of a row's parts (`--scale tiny`) have in common: specs/smoke's files, and simulated
servers."""

from pathlib import Path

from harness.spec.base import DataPath, Endpoint, Simulated
from harness.spec.hub import Sample
from harness.spec.model_source import ModelSource
from harness.spec.prompts import PromptColumns, PromptSet

PROMPTS, EXAMPLES, CUTOFF = 12, 16, 256
SETS = 8
"""Small prompt sets in specs/smoke/twin, for rows with several named ones; of more, some repeat."""


def smoke_data(path: Path) -> DataPath:
    return DataPath(path=str(path))


def smoke_examples(smoke: Path, kind: str = "") -> DataPath:
    """`preference`, `conversations`, or else rated instructions."""
    names = {"preference": "preferences.json", "conversations": "conversations.jsonl"}
    return smoke_data(smoke / "data" / names.get(kind, "rated.json"))


def at_most(count: int | None, most: int) -> int:
    return most if count is None else min(count, most)


def few_of(sample: Sample | None, most: int) -> Sample | None:
    return sample.model_copy(update={"k": min(sample.k, most)}) if sample else None


def few_prompts(prompts: PromptSet, smoke: Path) -> PromptSet:
    """A file stands for one; several named ones stay several, each with prompts of its own."""
    if prompts.files is None:
        sample = few_of(prompts.sample, PROMPTS)
        return PromptSet(
            file=smoke_data(smoke / "prompts.jsonl"),
            columns=PromptColumns(),
            first=None if sample else at_most(prompts.first, PROMPTS),
            sample=sample,
        )
    sets = {
        name: smoke_data(smoke / "twin" / "sets" / f"{number % SETS + 1}.jsonl")
        for number, name in enumerate(prompts.files)
    }
    return PromptSet(files=sets, first=prompts.first, sample=few_of(prompts.sample, 3))


def name_of(source: ModelSource) -> str:
    """Its id on the hub, or its folder's name."""
    if source.hub is not None:
        return source.hub.id
    return Path(source.path.name).name if source.path else ""


def simulated(endpoint: Endpoint, error_rate: float = 0.0) -> Endpoint:
    return endpoint.model_copy(
        update={
            "base_url": None,
            "api_key_env": None,
            "simulated": endpoint.simulated or Simulated(error_rate=error_rate),
            "batch_poll_s": min(endpoint.batch_poll_s, 0.2),
        }
    )
