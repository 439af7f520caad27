"""The stage contract: what a stage is told (CALL.json) and what it leaves behind (result.json)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from harness.artefact.environment import KeyEnvironment
from harness.artefact.manifest import Finding, MetricValue
from harness.errors import InputError
from harness.spec.model_source import ModelSource

CALL_FILE = "CALL.json"
CALL_FORMAT = 6
"""Raised whenever a field is added: an image built from another checkout then says so."""
NOT_THIS_CHECKOUT = (
    "the image was not built from this checkout: the two do not understand each other"
)
BUILD_ANEW = "Build it anew: docker compose build"
RESULT_FILE = "result.json"
MANIFEST = "manifest.json"
TRANSCRIPT = "transcript.jsonl"
"""Of an artefact, its calls."""

CHECKPOINT = "checkpoint"
"""Of a stage's parameters: the step of the training whose weights it reads, where not the last's."""
KEPT = "kept"
"""Of a train artefact, the folder that has for each kept step a folder with its model."""


def model_input(folder: Path, params: Mapping[str, Any]) -> Path:
    """Where in a train artefact's folder the model lies that a stage with these parameters reads."""
    step = params.get(CHECKPOINT)
    return folder if step is None else folder / KEPT / str(step)


class PriceRecord(TypedDict):
    """The dump of a harness.llm.prices.Price, and the date of its table."""

    prompt: float
    completion: float
    batch_share: float
    dated: str


@dataclass(frozen=True)
class StageCall:
    """One stage to run.

    `params` holds the stage's spec models (harness.row.row): as the stage reads them, their dump with
    every default filled in and every path one that the stage can open. `inputs` maps a name (`data`,
    `model`, `outputs`) to an input artefact's folder. The stage writes into `work`, finds there what an
    earlier, interrupted run of the same call left, and goes on from it.
    """

    stage: str
    key: str
    params: dict[str, Any]
    inputs: dict[str, str]
    work: str
    code_version: int = 1
    environment: KeyEnvironment = field(default_factory=KeyEnvironment)
    """The environment part of the key, which the stage compares with what it runs in."""
    budget: dict[str, float | None] = field(default_factory=dict)
    """Limits: calls, tokens, usd."""
    prices: dict[str, PriceRecord] = field(default_factory=dict)
    """Model -> what it costs, of the called ones as far as that is known."""
    replay: bool = False
    """Make the artefact in `inputs["recorded"]` again: every reply comes from the transcript in the
    work folder, what a model made from the recorded files; no network is reached."""
    server: dict[str, str] | None = None
    """`base_url` and `model` of the server that the executor started beside the stage."""
    tokenizer: ModelSource | dict[str, object] | None = None
    """Where the row's tokenizer is, for the lengths in a data card; decides nothing."""
    cache: str | None = None
    """A folder of the volume where tokenised data sets are kept for other runs."""
    lease_seconds: float | None = None
    """Where flock does not reach every machine that might work in the folder: after how long a lease on
    it of which nothing is seen is another's to take."""
    gpus: list[dict[str, Any]] = field(default_factory=list)
    """Those that the executor chose for the stage and the server beside it
    (harness.artefact.gpus.record)."""

    @property
    def folder(self) -> Path:
        return Path(self.work)

    def write(self, path: Path) -> None:
        fields = {"format": CALL_FORMAT, **asdict(self)}
        path.write_text(json.dumps(fields, indent=2, sort_keys=True), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "StageCall":
        """Raises InputError for a call that another version of the harness wrote."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format", 1) != CALL_FORMAT:
            raise InputError(NOT_THIS_CHECKOUT, BUILD_ANEW)
        return cls(**fields)


@dataclass(kw_only=True)
class Account:
    """What a stage, or a part of it, says beside what it made."""

    keep: list[str] = field(default_factory=list)
    """Files and folders, relative to the work folder, that belong to the artefact; everything else
    there (checkpoints, caches) is removed before it is sealed."""
    used: dict[str, Any] = field(default_factory=dict)
    """What was resolved: served models, data and model revisions."""
    seeds: dict[str, int] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    """calls, attempts, prompt_tokens, completion_tokens, gpu_seconds."""
    simulated: list[str] = field(default_factory=list)
    """What came from the simulated teacher or judge, or from random weights, in words."""
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    """From the published set-up, as far as only the stage can know them."""

    def add(self, other: "Account") -> None:
        for name in ("keep", "simulated", "notes", "findings", "deviations"):
            getattr(self, name).extend(getattr(other, name))
        self.used |= other.used
        self.seeds |= other.seeds
        for name, value in other.cost.items():
            self.cost[name] = self.cost.get(name, 0) + value


@dataclass(kw_only=True)
class StageResult(Account):
    """What came out."""

    metrics: dict[str, MetricValue] = field(default_factory=dict)
    """Only the judge stage has scores."""
    counts: dict[str, int] = field(default_factory=dict)
    """They must fit together."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "StageResult":
        metrics = {name: MetricValue.from_json(v) for name, v in values.get("metrics", {}).items()}
        findings = [Finding.from_json(finding) for finding in values.get("findings", [])]
        return cls(**{**values, "metrics": metrics, "findings": findings})

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "findings": [finding.to_json() for finding in self.findings],
        }

    @classmethod
    def read(cls, folder: Path) -> "StageResult | None":
        """What a stage says in its work folder, also where it said so before the harness was killed;
        None where it has not said it."""
        try:
            return cls.from_json(json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
