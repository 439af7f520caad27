"""Whether a training's number of examples fits its data set, and what is claimed of both."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.artefact.manifest import Severity
from harness.audit.model import Result, short
from harness.audit.parse.epoch_arithmetic import ANY, Ranges, meet, ranges_text
from harness.audit.parse.files import AuditSource
from harness.audit.parse.readme import (
    Count,
    ReadmeLine,
    count_in,
    count_in_name,
    counts_in_text,
    lines_about,
    read_claims,
    readmes,
)
from harness.audit.parse.training_data import TrainingData
from harness.audit.parse.training_examples import TrainingFacts
from harness.audit.parse.training_log import LINES, STATE, Log

SLACK = 0.02
"""The share of a data set that a trainer may have left out for its own reasons."""
REPEATED = 0.1
"""From this share of repeated rows on, a data set's size says little of what is in it."""


@dataclass
class AuditedTraining:
    """What is known of one. ranges: how many examples an epoch may have had; sets: the data sets that
    it may have been trained on."""

    log: Log
    facts: TrainingFacts
    ranges: Ranges = field(default_factory=list)
    sets: list[TrainingData] = field(default_factory=list)

    @property
    def held_out(self) -> tuple[float, ...]:
        """What may have been kept back: where it was measured and no file says of how many, up to
        half."""
        return self.facts.held_out or ((0.0, 0.5) if self.log.has_held_out else (0.0,))

    @property
    def epochs(self) -> float | None:
        return max((epoch for _, epoch in self.log.progress), default=None)

    def fits(self, data: TrainingData) -> bool:
        """Whether an epoch's examples can be a data set's."""
        return meet(self.ranges, *_expected(self, data))

    def evidence(self) -> dict[str, object]:
        return {
            "steps": self.log.step or self.log.planned,
            "epochs": self.epochs,
            "batch_sizes": list(self.facts.batches),
            "accumulations": list(self.facts.accumulations),
            "devices": list(self.facts.devices),
        }


def check_data(result: Result, training: AuditedTraining) -> None:
    """Against the data set: more examples than rows cannot be; fewer by more than a trainer leaves
    out means that the file is another one's."""
    ranges, sets = training.ranges, training.sets
    if not sets or any(map(training.fits, sets)):
        return
    low, high = _expected(training, sets[0])
    rows = " or ".join(f"{s.rows:,}" for s in sets[:3])
    names = " or ".join(s.path.name for s in sets[:3])
    ratio = ranges[0][0] / max(high, 1) if ranges[0][0] > high else ranges[-1][1] / max(low, 1)
    result.mismatch(
        f"the log makes {_several(training)} examples an epoch ({_reckoning(training)}), and {rows} "
        f"rows are in {names}: {ratio:.2f} times as many examples as rows",
        {
            "examples": _pairs(ranges),
            "rows": {str(s.path): s.rows for s in sets},
            "expected_low": math.floor(low),
            "expected_high": math.ceil(high),
            "ratio": round(ratio, 4),
            **training.evidence(),
        },
        "error" if ranges[0][0] > high else "warning",
    )


def _expected(training: AuditedTraining, data: TrainingData) -> tuple[float, float]:
    """Examples of an epoch that the file can make."""
    low, high = (data.rows - data.empty) * (1 - SLACK), float(data.rows)
    most, shares = training.facts.most, training.held_out
    if most:
        low, high = min(low, most[0]), min(high, most[-1])
    lows = [low * (1 - v) - 1 if v < 1 else low - v for v in shares]
    highs = [high * (1 - v) + (1 if v else 0) if v < 1 else high - v for v in shares]
    return max(min(lows), 1), max(*highs, 1)


def _rows_behind(training: AuditedTraining) -> Ranges:
    """How many rows a data set may have of which the log's examples were taken."""
    ranges, most, shares = training.ranges, training.facts.most, training.held_out
    if most and ranges:
        # Cut to so many: the file may have any number beyond.
        return [(ranges[0][0], ANY)] if meet(ranges, most[0], most[-1]) else ranges
    rows = []
    for low, high in ranges:
        if high == ANY:
            rows.append((low, ANY))
            continue
        tops = [high / (1 - v) + 1 if 0 < v < 1 else high + v for v in shares]
        bottoms = [low / (1 - v) - 1 if 0 < v < 1 else low + v for v in shares]
        rows.append((math.floor(min(bottoms)), math.ceil(max(tops) * (1 + SLACK))))
    return rows


def check_claims(result: Result, training: AuditedTraining, source: AuditSource) -> None:
    """Against a README's table, its text, and the folder's name; each alone."""
    folder = training.log.folder
    lines: list[ReadmeLine] = []
    text_counts: list[Count] = []
    for readme in readmes(folder, source.root):
        readme_lines, text = read_claims(readme, source)
        lines += readme_lines
        is_near = readme.parent in (folder, folder.parent)
        if is_near and _trainings_below(readme.parent, source) == 1:
            text_counts += counts_in_text(readme, text)
    about = [c for c in map(count_in, lines_about(lines, folder)) if c]
    name_count = count_in_name(folder, source.root)
    behind = _rows_behind(training)
    if len(training.sets) > 1:
        training = replace(training, sets=[])
    for counts in (about, text_counts, [name_count] if name_count else []):
        if not counts or not (training.sets or behind):
            continue
        result.published.setdefault("examples", round((counts[0].low + counts[0].high) / 2))
        fits = any(may_be_true(count, training, behind) for count in counts)
        result.matches = fits and result.matches is not False
        if not fits:
            claim_finding(result, counts[0], training, "error" if counts is about else "warning")


def _trainings_below(folder: Path, source: AuditSource) -> int:
    """Of several, no text says which one it speaks of."""
    logs = {p.parent for p in source.files if p.name in (STATE, LINES) and folder in p.parents}
    return len({p.parent if p.name.startswith("checkpoint-") else p for p in logs})


def may_be_true(count: Count, training: AuditedTraining, behind: Ranges) -> bool:
    """Whether a claim may be true. An exact one must be the file's rows (all, usable, or different
    ones), where there is a file; else it must fit the log.

    behind: how many rows there may be behind the log's examples."""
    if training.sets:
        data = training.sets[0]
        rows = (data.rows, data.rows - data.empty, data.different)
        return any(count.low <= n <= count.high for n in rows)
    return not behind or any(meet(r, count.low, count.high) for r in (behind, training.ranges))


def claim_finding(
    result: Result, count: Count, training: AuditedTraining, severity: Severity
) -> None:
    data = training.sets[0] if training.sets else None
    parts = []
    if data:
        parts.append(f"{data.path.name} has {data.rows:,}")
    if training.ranges:
        parts.append(f"the log makes {_several(training)} an epoch ({_reckoning(training)})")
    is_exact = count.low == count.high
    middle = f"{int(count.low):,}" if is_exact else f"about {round((count.low + count.high) / 2):,}"
    result.mismatch(
        f"{count.where} says {middle} training examples, and " + "; ".join(parts),
        {
            "claimed": [count.low, count.high],
            "where": count.where,
            "quote": short(count.quote),
            "rows": data.rows if data else None,
            "different_rows": data.different if data else None,
            "examples": _pairs(training.ranges),
            **(training.evidence() if training.ranges else {}),
        },
        # Not an error by batches that may be another training's.
        severity if data or not training.facts.elsewhere else "warning",
    )


def _pairs(ranges: Ranges) -> list[list[int | None]]:
    """The first ranges, for evidence; None: without end."""
    return [[low, high if high < ANY else None] for low, high in ranges[:5]]


def _several(training: AuditedTraining) -> str:
    """The numbers in words; of an unknown number of devices those of one."""
    ranges = training.ranges
    if len(training.facts.devices) > 1 and ranges[0][1] < ANY:
        return f"{ranges_text(ranges[:1])}, or on several devices a multiple of it,"
    return ranges_text(ranges)


def _reckoning(training: AuditedTraining) -> str:
    """How the log's number came about, in words."""
    log, facts = training.log, training.facts
    if log.examples is not None:
        return f"{log.counted_by or 'its summary'} counts them"
    epochs = (facts.epochs or log.epochs or 0) if training.epochs is None else training.epochs
    step = log.step or log.planned or 0
    parts = {"batch": facts.batches, "accumulation": facts.accumulations, "devices": facts.devices}
    single_values = {name: values[0] for name, values in parts.items() if len(values) == 1}
    details = [f"{value} {name}" if name == "devices" else f"{name} {value}"
               for name, value in single_values.items() if value > 1]  # fmt: skip
    unknown = [name for name in parts if name not in single_values]
    if unknown:
        details.append(f"unknown {' and '.join(unknown)}")
    return f"{step:,} steps in {epochs:g} epochs, {', '.join(details) or 'batch 1'}"


def check_repeats(result: Result, data: TrainingData) -> None:
    repeated = data.rows - data.different
    if repeated < max(REPEATED * data.rows, 10):
        return
    result.mismatch(
        f"{repeated:,} of the {data.rows:,} rows of {data.path.name} repeat another one: it holds "
        f"{data.different:,} different examples",
        {"rows": data.rows, "different": data.different, "repeated": repeated},
        "info",
    )
