"""What the twins of a row's parts (`--scale tiny`) have in common: specs/smoke's files, and simulated
servers."""

from pathlib import Path

from harness.spec.base import DataPath, Endpoint, Simulated
from harness.spec.hub import Sample

EXAMPLES = 16


def smoke_data(path: Path) -> DataPath:
    return DataPath(path=str(path))


def smoke_examples(smoke: Path, kind: str = "") -> DataPath:
    """`preference`, `conversations`, or else rated instructions."""
    names = {"preference": "preferences.json", "conversations": "conversations.jsonl"}
    return smoke_data(smoke / "data" / names.get(kind, "rated.json"))


def few_of(sample: Sample | None, most: int) -> Sample | None:
    return sample.model_copy(update={"k": min(sample.k, most)}) if sample else None


def simulated(endpoint: Endpoint, error_rate: float = 0.0) -> Endpoint:
    return endpoint.model_copy(
        update={
            "base_url": None,
            "api_key_env": None,
            "simulated": endpoint.simulated or Simulated(error_rate=error_rate),
            "batch_poll_s": min(endpoint.batch_poll_s, 0.2),
        }
    )
