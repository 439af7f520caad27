"""What is known of a file of examples before a stage reads it."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.artefact.keys import Files, digest_of, key_view
from harness.spec.base import Data


@dataclass(frozen=True)
class Reading:
    """What one file holds for the stage that reads it."""

    name: str
    records: int = 0
    layout: str = ""
    examples: int = 0
    """What the stage leaves of them; of a sample, the sample."""
    dropped: int = 0
    rules: str = ""
    """How many of those each rule drops, in words."""
    notes: Sequence[str] = ()
    unread: str = ""
    """Why nothing of this is known."""

    def __str__(self) -> str:
        if self.unread:
            return f"{self.name}: not looked at: {self.unread}"
        text = f"{self.name}: {self.records:,} record{'s' * (self.records != 1)} ({self.layout})"
        if self.dropped:
            text += f", {self.dropped:,} will be dropped: {self.rules}"
        return "; ".join([text, *self.notes])


def cached_reading(
    files: Files, data: Data, settings: Any, code_version: int, make: Callable[[], Reading]
) -> Reading:
    """A reading, from the volume's memory where these bytes were read so before. `code_version`: of
    the stage that reads them."""
    decides = [code_version, files.locate(data).name, key_view(settings, files), files.digest(data)]
    cached = files.cached(
        digest_of(["reading", *decides]), lambda: json.dumps(dataclasses.asdict(make()))
    )
    return Reading(**json.loads(cached))
