"""Which rows may be compared: settings in which they differ beside what their table studies."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.artefact.keys import canonical
from harness.common.grouping import grouped
from harness.results.settings import (
    ANSWERS,
    RowSettings,
    Setting,
    answers_of,
    is_control,
    settings_of,
)
from harness.row.row import Row
from harness.run.plan import RowPlan


@dataclass(frozen=True)
class Difference:
    """One setting in which rows differ; `first` and `second` are what it is in each, in words."""

    setting: str
    first: str
    second: str
    rows: tuple[str, ...] = ()
    """In a table: the other rows, which have `second`."""

    def __str__(self) -> str:
        return f"{self.setting}: {self.first} against {self.second}"


def differences(first: RowPlan, second: RowPlan) -> list[Difference]:
    """Every setting in which two rows differ beside the studied ones: what either studies
    (`Row.studied`) or, of rows of different tables, what both do.

    Compared are the parts of their specs that decide a result, and, where both rows have artefacts of
    answers and judgements, the served judge models and package versions that the manifests name.
    What only one of them has (the decoding of a control that decodes nothing) is no difference; that
    it is a control's answers that a model's are compared with, is one.
    """
    every_setting = first.row.studied is not None or second.row.studied is not None
    first_settings = settings_of(first, every_setting)
    second_settings = settings_of(second, every_setting)
    differing = [
        _difference(first_settings[key], second_settings[key])
        for key in _differing(first_settings, second_settings)
        if not _is_studied(first.row, second.row, first_settings[key], second_settings[key])
    ]
    return [*_answers(first.row, second.row), *differing]


def _answers(first: Row, second: Row) -> list[Difference]:
    """That a control answered in place of a model, or another control."""
    if not (is_control(first) or is_control(second)) or _studied_by(first, second, ANSWERS):
        return []
    answers = answers_of(first), answers_of(second)
    return [Difference("answers", *answers)] if answers[0] != answers[1] else []


def confounded(plans: Sequence[RowPlan]) -> dict[str, list[Difference]]:
    """Row -> what sets it apart from the other rows of its table beside what the table studies.

    Each row is compared with the table's commonest value of each setting; where two values are
    equally common, the rows of both are told. Rows that share no metric are not compared.
    """
    by_row: dict[str, list[Difference]] = {}
    for group in grouped(plans, lambda plan: (plan.row.table, _measure(plan.row))).values():
        by_row |= _in_table(group)
    return by_row


def message(row_differences: Sequence[Difference]) -> str:
    """What a person reads of a row of `confounded`."""
    parts = []
    for rows, group in grouped(row_differences, lambda difference: difference.rows).items():
        row_names = ", ".join(rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
        parts.append(f"{'; '.join(map(str, group))} (in {row_names})")
    return f"differs from other rows in more than what is studied: {'; '.join(parts)}"


def _in_table(plans: Sequence[RowPlan]) -> dict[str, list[Difference]]:
    rows = {plan.row.row: plan.row for plan in plans}
    every_setting = any(row.studied is not None for row in rows.values())
    # A damaged row has no stages; its files are told by their bytes as the others' are.
    planner = next((plan.stages[0].planner for plan in plans if plan.stages), None)
    settings = _that_vary(
        {plan.row.row: settings_of(plan, every_setting, planner) for plan in plans}
    )
    against = {
        key: _commonest(
            [row_settings[key].value for row_settings in settings.values() if key in row_settings]
        )
        for key in dict.fromkeys(key for row_settings in settings.values() for key in row_settings)
    }
    by_row: dict[str, list[Difference]] = {}
    for name, row_settings in settings.items():
        differing = {other: set(_differing(row_settings, settings[other])) for other in rows}
        for key, setting in row_settings.items():
            # Of equally common values, a row that has one is told another.
            values = [v for v in against[key] if v != setting.value]
            other_rows = [
                other
                for other, keys in differing.items()
                if key in keys
                and settings[other][key].value in values[:1]
                and not _is_studied(rows[name], rows[other], setting, settings[other][key])
            ]
            if other_rows:
                difference = _difference(setting, settings[other_rows[0]][key])
                by_row.setdefault(name, []).append(replace(difference, rows=tuple(other_rows)))
    return by_row


def _that_vary(settings: dict[str, RowSettings]) -> dict[str, RowSettings]:
    """Without what every row that has it has alike."""
    first: RowSettings = {}
    vary: set[str] = set()
    for row_settings in settings.values():
        for key, setting in row_settings.items():
            if first.setdefault(key, setting).value != setting.value:
                vary.add(key)
    return {
        name: {k: s for k, s in row_settings.items() if k in vary}
        for name, row_settings in settings.items()
    }


def _commonest(values: Sequence[Any]) -> list[Any]:
    """The commonest value, or the two first of several that are equally common."""
    counts = Counter(map(_hashable, values))
    most = max(counts.values())
    first = {_hashable(v): v for v in reversed(values)}
    return [first[key] for key, count in counts.items() if count == most][:2]


def _hashable(value: Any) -> str:
    return canonical(value) if not isinstance(value, str) else value


def _differing(first: RowSettings, second: RowSettings) -> list[str]:
    """Keys of both that differ, but for those within another that does."""
    keys: list[str] = []
    for key, a in first.items():
        b = second.get(key)
        if b is None or a.value == b.value:
            continue
        if a.effective is not None and a.effective == b.effective:
            continue
        if not any(key.startswith(f"{other}.") for other in keys):
            keys.append(key)
    return keys


def _difference(a: Setting, b: Setting) -> Difference:
    first, second = a.text, b.text
    if first == second:
        first, second = (f"{s.text} ({_digest(s.value)})" for s in (a, b))
    return Difference(a.label, first, second)


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:8]


def _is_studied(first: Row, second: Row, a: Setting, b: Setting) -> bool:
    paths = a.paths + b.paths
    if BASELINE in paths and first.table != second.table:
        kinds = {_has_rows_baseline(row) for row in (first, second)}
        # Each table studies its own opponents; a file is none of them.
        if len(kinds) > 1:
            return False
    return _studied_by(first, second, paths)


def _studied_by(first: Row, second: Row, paths: Sequence[str]) -> bool:
    """By either row of a table; by both of two tables, of which each studies something else."""
    studied = (any(_covers(row.studied, path) for path in paths) for row in (first, second))
    return any(studied) if first.table == second.table else all(studied)


BASELINE = "eval.judge.reference"


def _has_rows_baseline(row: Row) -> bool:
    """Whether the baseline is another row's outputs, and no file."""
    return row.judge is not None and row.judge.baseline_row is not None


def _covers(studied: list[str] | None, path: str) -> bool:
    if studied is None:
        return path.partition(".")[0] not in ("eval", "environment")
    return any(
        path == studied_path or path.startswith(f"{studied_path}.") for studied_path in studied
    )


def _measure(row: Row) -> str:
    """What rows must share to be compared at all: the metric that their judge gives."""
    return "train" if row.judge is None else row.judge.measure
