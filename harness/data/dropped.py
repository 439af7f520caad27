"""What a step left out of its records, by which rule: counted, listed and put into words here alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Reason(NamedTuple):
    """The rule that drops a candidate, and what else there is to say of it."""

    rule: str
    about: Mapping[str, object] = {}


@dataclass
class Tally:
    """What became of one step's candidates: proposed = kept + all that was dropped."""

    step: str
    unit: str
    """What is counted: `instructions`, `tasks`, `examples`."""
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Rule -> how many it dropped; each candidate falls to the first rule that it breaks."""
    rows: list[Mapping[str, object]] = field(default_factory=list)
    """For dropped.jsonl, of each dropped candidate: step, rule, and its content."""

    @property
    def proposed(self) -> int:
        return self.kept + self.dropped.total()

    def drop(self, rule: str, **content: object) -> None:
        self.dropped[rule] += 1
        self.rows.append({"step": self.step, "rule": rule, **content})

    def counts(self, prefix: str) -> dict[str, int]:
        """How many each rule dropped, in the order of their names, as a manifest calls it."""
        return {f"{prefix}_{rule}": count for rule, count in sorted(self.dropped.items())}

    def in_words(self, by_name: bool = False) -> str:
        """`3 too short, 1 cut`: the most frequent first, or in the order of the rules' names."""
        counts = sorted(self.dropped.items()) if by_name else self.dropped.most_common()
        return ", ".join(f"{n} {rule.replace('_', ' ')}" for rule, n in counts) or "nothing"

    def share(self, unit: str = "") -> str:
        """`2 of 12 rows`."""
        return f"{self.dropped.total()} of {self.proposed} {unit or self.unit}"

    def sentences(self, reasons: Mapping[str, str]) -> list[str]:
        """For each rule of `reasons` that dropped some, that they were left out and why."""
        return [
            f"{self.dropped[rule]} of {self.proposed} {self.unit} were left out: they {why}"
            for rule, why in reasons.items()
            if self.dropped[rule]
        ]
