"""Whether a training's number of examples fits its data set, and what is claimed of both."""

import math
from collections.abc import Sequence
from pathlib import Path

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


def fits(ranges: Ranges, data: TrainingData, log: Log, facts: TrainingFacts) -> bool:
    """Whether an epoch's examples can be a data set's."""
    return meet(ranges, *_expected(data, log, facts))


def check_data(
    result: Result, log: Log, facts: TrainingFacts, ranges: Ranges, sets: Sequence[TrainingData]
) -> None:
    """Against the data set: more examples than rows cannot be; fewer by more than a trainer leaves
    out means that the file is another one's."""
    if not sets or any(fits(ranges, data_set, log, facts) for data_set in sets):
        return
    data_set = sets[0]
    low, high = _expected(data_set, log, facts)
    examples_text = _several(ranges, facts)
    what = f"{data_set.rows:,} rows" if len(sets) == 1 else _each(sets)
    ratio = ranges[0][0] / max(high, 1) if ranges[0][0] > high else ranges[-1][1] / max(low, 1)
    result.add(
        "count_mismatch",
        "error" if ranges[0][0] > high else "warning",
        f"the log makes {examples_text} examples an epoch ({_reckoning(log, facts)}), and {what} "
        f"are in {_names(sets)}: {ratio:.2f} times as many examples as rows",
        {
            "examples": _pairs(ranges),
            "rows": {str(s.path): s.rows for s in sets},
            "expected_low": math.floor(low),
            "expected_high": math.ceil(high),
            "ratio": round(ratio, 4),
            **_setting_evidence(log, facts),
        },
    )


def _expected(data: TrainingData, log: Log, facts: TrainingFacts) -> tuple[float, float]:
    """Examples of an epoch that the file can make."""
    low, high = (data.rows - data.empty) * (1 - SLACK), float(data.rows)
    if facts.most:
        low, high = min(low, facts.most[0]), min(high, facts.most[-1])
    shares = _held_out(log, facts)
    lows = [low * (1 - v) - 1 if v < 1 else low - v for v in shares]
    highs = [high * (1 - v) + (1 if v else 0) if v < 1 else high - v for v in shares]
    return max(min(lows), 1), max(*highs, 1)


def _held_out(log: Log, facts: TrainingFacts) -> tuple[float, ...]:
    """What may have been kept back: where it was measured and no file says of how many, up to half."""
    return facts.held_out or ((0.0, 0.5) if log.has_held_out else (0.0,))


def _rows_behind(log: Log, facts: TrainingFacts, ranges: Ranges) -> Ranges:
    """How many rows a data set may have of which the log's examples were taken."""
    if facts.most:
        # Cut to so many: the file may have any number beyond.
        return [(ranges[0][0], ANY)] if meet(ranges, facts.most[0], facts.most[-1]) else ranges
    shares = _held_out(log, facts)
    rows = []
    for low, high in ranges:
        if high == ANY:
            rows.append((low, ANY))
            continue
        tops = [high / (1 - v) + 1 if 0 < v < 1 else high + v for v in shares]
        bottoms = [low / (1 - v) - 1 if 0 < v < 1 else low + v for v in shares]
        rows.append((math.floor(min(bottoms)), math.ceil(max(tops) * (1 + SLACK))))
    return rows


def check_claims(
    result: Result,
    log: Log,
    facts: TrainingFacts,
    ranges: Ranges,
    sets: Sequence[TrainingData],
    source: AuditSource,
) -> None:
    """Against a README's table, its text, and the folder's name; each alone."""
    folder = log.folder
    lines: list[ReadmeLine] = []
    text_counts: list[Count] = []
    for readme in readmes(folder, source.root):
        readme_lines, text = read_claims(readme, source)
        lines += readme_lines
        if (
            readme.parent in (folder, folder.parent)
            and _trainings_below(readme.parent, source) == 1
        ):
            text_counts += counts_in_text(readme, text)
    about = [c for c in map(count_in, lines_about(lines, folder)) if c]
    name_count = count_in_name(folder, source.root)
    behind = _rows_behind(log, facts, ranges) if ranges else []
    if len(sets) > 1:
        sets = []
    for counts, severity in (
        (about, "error"),
        (text_counts, "warning"),
        ([name_count] if name_count else [], "warning"),
    ):
        if not counts or not (sets or behind):
            continue
        result.published.setdefault("examples", round((counts[0].low + counts[0].high) / 2))
        fits = any(may_be_true(count, behind, ranges, sets) for count in counts)
        result.matches = fits and result.matches is not False
        if not fits:
            claim_finding(result, counts[0], severity, log, facts, ranges, sets)


def _trainings_below(folder: Path, source: AuditSource) -> int:
    """Of several, no text says which one it speaks of."""
    logs = {p.parent for p in source.files if p.name in (STATE, LINES) and folder in p.parents}
    return len({p.parent if p.name.startswith("checkpoint-") else p for p in logs})


def may_be_true(count: Count, behind: Ranges, ranges: Ranges, sets: Sequence[TrainingData]) -> bool:
    """Whether a claim may be true. An exact one must be the file's rows (all, usable, or different
    ones), where there is a file; else it must fit the log."""
    if sets:
        data_set = sets[0]
        return any(
            count.low <= n <= count.high
            for n in (data_set.rows, data_set.rows - data_set.empty, data_set.different)
        )
    if behind:
        return meet(behind, count.low, count.high) or meet(ranges, count.low, count.high)
    return True


def claim_finding(
    result: Result,
    count: Count,
    severity: str,
    log: Log,
    facts: TrainingFacts,
    ranges: Ranges,
    sets: Sequence[TrainingData],
) -> None:
    count_text = _count_text(count)
    parts = []
    if sets:
        parts.append(f"{sets[0].path.name} has {sets[0].rows:,}")
    if ranges:
        parts.append(f"the log makes {_several(ranges, facts)} an epoch ({_reckoning(log, facts)})")
    result.add(
        "count_mismatch",
        # Not an error by batches that may be another training's.
        "error" if severity == "error" and (sets or not facts.elsewhere) else "warning",
        f"{count.where} says {count_text} training examples, and " + "; ".join(parts),
        {
            "claimed": [count.low, count.high],
            "where": count.where,
            "quote": short(count.quote),
            "rows": sets[0].rows if sets else None,
            "different_rows": sets[0].different if sets else None,
            "examples": _pairs(ranges),
            **(_setting_evidence(log, facts) if ranges else {}),
        },
    )


def _pairs(ranges: Ranges) -> list[list[int | None]]:
    """The first ranges, for evidence; None: without end."""
    return [[low, high if high < ANY else None] for low, high in ranges[:5]]


def _count_text(count: Count) -> str:
    if count.low == count.high:
        return f"{int(count.low):,}"
    return f"about {round((count.low + count.high) / 2):,}"


def _several(ranges: Ranges, facts: TrainingFacts) -> str:
    """The numbers in words; of an unknown number of devices those of one."""
    if len(facts.devices) > 1 and ranges[0][1] < ANY:
        return f"{ranges_text(ranges[:1])}, or on several devices a multiple of it,"
    return ranges_text(ranges)


def _reckoning(log: Log, facts: TrainingFacts) -> str:
    """How the log's number came about, in words."""
    if log.examples is not None:
        return f"{log.counted_by or 'its summary'} counts them"
    epochs = max((e for _, e in log.progress), default=facts.epochs or log.epochs or 0)
    step = log.step or log.planned or 0
    parts = {"batch": facts.batches, "accumulation": facts.accumulations, "devices": facts.devices}
    single_values = {name: values[0] for name, values in parts.items() if len(values) == 1}
    details = [f"{value} {name}" if name == "devices" else f"{name} {value}"
               for name, value in single_values.items() if value > 1]  # fmt: skip
    if len(single_values) < len(parts):
        details.append(
            f"unknown {' and '.join(name for name in parts if name not in single_values)}"
        )
    return f"{step:,} steps in {epochs:g} epochs, {', '.join(details) or 'batch 1'}"


def _setting_evidence(log: Log, facts: TrainingFacts) -> dict[str, object]:
    return {
        "steps": log.step or log.planned,
        "epochs": max((e for _, e in log.progress), default=None),
        "batch_sizes": list(facts.batches),
        "accumulations": list(facts.accumulations),
        "devices": list(facts.devices),
    }


def check_repeats(result: Result, data: TrainingData) -> None:
    repeated = data.rows - data.different
    if repeated < max(REPEATED * data.rows, 10):
        return
    result.add(
        "count_mismatch",
        "info",
        f"{repeated:,} of the {data.rows:,} rows of {data.path.name} repeat another one: it holds "
        f"{data.different:,} different examples",
        {"rows": data.rows, "different": data.different, "repeated": repeated},
    )


def _names(sets: Sequence[TrainingData]) -> str:
    return " or ".join(s.path.name for s in sets[:3])


def _each(sets: Sequence[TrainingData]) -> str:
    return " or ".join(f"{s.rows:,}" for s in sets[:3]) + " rows"
