"""What an artefact says of itself, in its manifest.json: read as classes and written back as it was,
also where another version of the harness wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, TypedDict

UNSAID = frozenset({"*"})
"""In place of a metric's absent keys where it was not read: they are those that hold nothing."""
Severity = Literal["error", "warning", "info"]
"""error: a number is wrong, or cannot be known; warning: it may mislead; info: neither, but a reader
should know."""


class FileRecord(TypedDict):
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class JsonRecord:
    """A JSON object: its known keys are fields."""

    further: dict[str, Any] = field(default_factory=dict)
    """Keys that this version does not know, which are written again."""
    absent: frozenset[str] = frozenset()
    """Known keys that the object lacks, which are not written."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises TypeError where a key is missing without which there is no such record."""
        names = {f.name for f in fields(cls)} - {"further", "absent"}
        present = {name: value for name, value in values.items() if name in names}
        further = {name: value for name, value in values.items() if name not in names}
        return cls(**present, further=further, absent=frozenset(names - values.keys()))

    def to_json(self) -> dict[str, Any]:
        names = [f.name for f in fields(self) if f.name not in {"further", "absent", *self.absent}]
        return {name: getattr(self, name) for name in names} | self.further


@dataclass(frozen=True)
class Finding(JsonRecord):
    """What a reader of the numbers should know. `evidence` is JSON: counts, examples, the effect."""

    kind: str
    severity: Severity = "warning"
    message: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class MetricValue(JsonRecord):
    """One score. Of a prompt set of which nothing was judged the value is None."""

    value: float | None = None
    standard_error: float | None = None
    judged: int | None = None
    expected: int | None = None
    lower_bound: float | None = None
    """All unjudged prompts lost; `upper_bound`: all won."""
    upper_bound: float | None = None
    wins: int | None = None
    losses: int | None = None
    draws: int | None = None
    examples: int | None = None
    """Of a loss: the held-out examples, and their answers' tokens and bytes."""
    tokens: int | None = None
    bytes: int | None = None
    absent: frozenset[str] = UNSAID

    def __post_init__(self) -> None:
        if self.absent == UNSAID:
            empty = {f.name for f in fields(MetricValue) if getattr(self, f.name) is None} - {
                "value"
            }
            # Of what was judged null says that the error cannot be known; a training's log has none.
            empty -= {"standard_error"} if self.judged is not None else set()
            object.__setattr__(self, "absent", frozenset(empty))


@dataclass(frozen=True, kw_only=True)
class Manifest(JsonRecord):
    """What was asked, what was used, what came out, what it cost."""

    stage: str
    key: str
    document: dict[str, Any] = field(default_factory=dict)
    """All that the key is of (harness.artefact.keys)."""
    row: str = ""
    """The row that it was first made for, and which of the row's stages it is."""
    label: str = ""
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name -> stage, key, and, which artefacts of earlier versions lack, `content`
    (harness.artefact.store.Artefact) and of answers `texts` (harness.answer.outputs)."""
    executor: dict[str, Any] = field(default_factory=dict)
    used: dict[str, Any] = field(default_factory=dict)
    """What was resolved: served models, revisions, packages, hardware."""
    seeds: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    simulated: list[str] = field(default_factory=list)
    """Its own marks and those of what it was made from."""
    random_weights: bool = False
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    ran: str = ""
    finished: str = ""
    files: dict[str, FileRecord] = field(default_factory=dict)
    """Name -> sha256 and size."""
    format: int = 1

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises TypeError or AttributeError where something in it is of another kind."""
        metrics, findings = values.get("metrics", {}), values.get("findings", [])
        parsed = {
            "metrics": {name: MetricValue.from_json(v) for name, v in metrics.items()},
            "findings": [Finding.from_json(finding) for finding in findings],
        }
        manifest = super().from_json({**values, **{n: v for n, v in parsed.items() if n in values}})
        kinds = (("counts", dict), ("cost", dict), ("files", dict), ("simulated", list))
        of_another_kind = [n for n, kind in kinds if not isinstance(getattr(manifest, n), kind)]
        if of_another_kind or not all(isinstance(file, dict) for file in manifest.files.values()):
            raise TypeError(f"of another kind: {', '.join(of_another_kind) or 'files'}")
        return manifest

    def to_json(self) -> dict[str, Any]:
        document = super().to_json()
        if "metrics" in document:
            document["metrics"] = {n: metric.to_json() for n, metric in self.metrics.items()}
        if "findings" in document:
            document["findings"] = [finding.to_json() for finding in self.findings]
        return document
