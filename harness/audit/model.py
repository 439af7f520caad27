"""What an audit says: a result set's numbers, those published of it, and the faults that were found."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from harness.artefact.manifest import Finding, Severity

UNFORESEEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a check raises that met values which nobody thought of."""

SEVERITIES: tuple[Severity, ...] = get_args(Severity)

KINDS = (
    "dropped_rows",
    "shared_outputs",
    "copied_results",
    "position_bias",
    "prompt_mismatch",
    "confounded",
    "count_mismatch",
    "unparsed_scored",
    "missing_context",
    "unknown_checkpoint",
    "empty_or_truncated",
    "truncated_scores",
    "length_bias",
)

SURE = 0.001
"""A statistical finding needs a p below this; with a few tests a folder, a clean one is then accused
less than once in a hundred, and the practical size that each check asks for as well makes it rarer."""

EXAMPLES, EXAMPLE_LENGTH = 3, 160
"""How many examples a finding shows, and how many characters of each."""


Source = TypeVar("Source")


@dataclass(frozen=True)
class Reader(Generic[Source]):
    """What a reader of results says of itself (harness/audit/__init__.py says what it does)."""

    name: str
    looks_for: str
    """What it reads, in words, for who gave something else."""
    findings: frozenset[str]
    """The kinds of findings that it can make."""
    find: "Callable[[Source], list[Result]]"
    """A Result for each result set below the source's root."""
    comparable: bool = False
    """Win rates stand side by side in a table: judge and baseline of all should be the same."""
    states_copies: bool = False
    """Manifests, keys and seals say already whose answers were judged, and what is a copy."""
    stated: str = "published"
    """What is said of the numbers that the files themselves claim."""
    judgements_tell: bool = True
    """Equal judgements are a sign of a copy; not so where a few steps are all that a judge gives."""


NO_READER: Reader[Any] = Reader("", "", frozenset(), lambda source: [])


@dataclass
class Material:
    """What the checks across results compare, of which every part may be absent."""

    outputs: dict[str, str] | None = None
    """Instruction -> what the model answered."""
    judgements: list[tuple[str, Any]] = field(default_factory=list)
    """Instruction and preference, in the file's order."""
    raws: list[tuple[str, str]] = field(default_factory=list)
    """Instruction and the judge's reply."""
    times: list[float] = field(default_factory=list)
    """What each call took."""
    judge: str | None = None
    baseline: str | None = None
    model: str | None = None
    run: str | None = None
    """The folder of the outputs."""
    settings: dict[str, object] = field(default_factory=dict)
    """How the outputs were made, such as temperature."""
    files: dict[str, str] = field(default_factory=dict)
    """Name -> sha256, of outputs and annotations."""
    same_run: set[str] = field(default_factory=set)
    """sha256 of files elsewhere that hold this run's outputs, as a manifest or a crate says."""
    line: dict[str, float] | None = None
    """Figures of the leaderboard that has this model alone."""
    data: str | None = None
    """The path of the data set that a training was held against."""


@dataclass
class Result:
    """One result set: the scores of one model under one judge, one training's log, one benchmark run.

    path: the folder or file, as the user named it. kind: its reader's word, such as `alpaca_eval`.
    metrics: recomputed; published: what the files themselves claim, under the same names. matches:
    whether all that could be compared is the same, None where nothing could be. digits: of each number
    that was compared, to how many decimals the two agree (`agreeing_digits`). notes: for the user,
    and no fault. material, reader: for the checks across results, not shown.
    """

    path: str
    kind: str
    metrics: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    matches: bool | None = None
    digits: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    material: Material = field(default_factory=Material, repr=False)
    reader: Reader[Any] = field(default=NO_READER, repr=False)
    """Set by the audit."""
    required_digits: dict[str, int] = field(default_factory=dict, repr=False)
    """Of each number that was compared, to how many decimals it must agree."""

    def add(
        self, kind: str, severity: Severity, message: str, evidence: dict[str, Any] | None = None
    ) -> None:
        """Raises ValueError: no kind that an audit looks for, or no severity."""
        if kind not in KINDS or severity not in SEVERITIES:
            raise ValueError(f"no such finding: {kind}, {severity}")
        self.findings.append(Finding(kind, severity, message, evidence or {}))

    def mismatch(
        self, message: str, evidence: dict[str, Any], severity: Severity = "error"
    ) -> None:
        self.add("count_mismatch", severity, message, evidence)

    def refute(self, message: str, evidence: dict[str, Any]) -> None:
        """A mismatch by which what is published is wrong."""
        self.matches = False
        self.mismatch(message, evidence)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: finite numbers alone, findings from error to info."""
        names = ("path", "kind", "metrics", "published", "matches", "digits")
        document = {name: getattr(self, name) for name in names}
        document["findings"] = [finding.to_json() for finding in self.sorted_findings]
        document["notes"] = self.notes
        return {name: finite(value) for name, value in document.items()}

    @property
    def sorted_findings(self) -> list[Finding]:
        """From error to info."""
        return sorted(self.findings, key=lambda f: SEVERITIES.index(f.severity))


def finite(value: Any) -> Any:
    """The same with None for NaN and infinities, which JSON lacks, and texts as keys."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


MOST_DIGITS = 15
"""Decimals that a comparison looks at."""


def agreeing_digits(published: float, recomputed: float) -> int:
    """To how many decimals two numbers agree, at most 15; -1 where not even the units do.

    They agree to n decimals when they are no more than half a unit of the nth apart.
    """
    if not (math.isfinite(published) and math.isfinite(recomputed)):
        return MOST_DIGITS if published == recomputed else -1
    difference = abs(published - recomputed)
    # The last bits of doubles are nobody's claim.
    slack = 4 * max(math.ulp(published), math.ulp(recomputed))
    for decimals in range(MOST_DIGITS, -1, -1):
        if difference <= 0.5 * 10.0**-decimals + slack:
            return decimals
    return -1


def compare(result: Result, decimals: dict[str, int] | None = None) -> None:
    """Set `matches` and `digits` from the numbers that metrics and published share.

    decimals: of each published number as it was printed, how many decimals it has; two numbers match
    when they agree to these, and by default to 8, or all but the last four of a double.
    """
    same = []
    for name, published in result.published.items():
        recomputed = result.metrics.get(name)
        if recomputed is None or not (_is_number(published) and _is_number(recomputed)):
            continue
        agree = agreeing_digits(float(published), float(recomputed))
        result.required_digits[name] = min((decimals or {}).get(name, 8), 8)
        result.digits[name] = agree
        same.append(agree >= result.required_digits[name])
    result.matches = all(same) if same else None


def short(text: Any, length: int = EXAMPLE_LENGTH) -> str:
    """The beginning of a text, on one line, for an example."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= length else flat[: length - 1] + "\u2026"


def guarded_result(path: Path | str, kind: str, make: Callable[[], Result]) -> Result:
    """What `make` gives; a result that says why where it fails unforeseen, lest others be lost."""
    try:
        return make()
    except UNFORESEEN as e:
        return Result(str(path), kind, notes=[f"could not be read: {type(e).__name__}: {short(e)}"])


def _is_number(value: Any) -> bool:
    """Also not one that no float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
