"""Which rows may be compared: settings in which they differ beside what their table studies."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.keys import canonical
from harness.plan import RowPlan
from harness.report.settings import ANSWERS, Setting, Settings, answers_of, is_control, settings_of
from harness.spec.judges import OutputJudge, RowOutputs, RubricJudge
from harness.spec.models import Row


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
    whole = first.row.studied is not None or second.row.studied is not None
    ours, theirs = settings_of(first, whole), settings_of(second, whole)
    found = [_difference(ours[key], theirs[key]) for key in _differing(ours, theirs)
             if not _is_studied(first.row, second.row, ours[key], theirs[key])]  # fmt: skip
    return [*_answers(first.row, second.row), *found]


def _answers(first: Row, second: Row) -> list[Difference]:
    """That a control answered in place of a model, or another control."""
    if not (is_control(first) or is_control(second)) or _studied_by(first, second, ANSWERS):
        return []
    said = answers_of(first), answers_of(second)
    return [Difference("answers", *said)] if said[0] != said[1] else []


def confounded(plans: Sequence[RowPlan]) -> dict[str, list[Difference]]:
    """Row -> what sets it apart from the other rows of its table beside what the table studies.

    Each row is compared with the table's commonest value of each setting; where two values are
    equally common, the rows of both are told. Rows that share no metric are not compared.
    """
    found: dict[str, list[Difference]] = {}
    groups: dict[tuple[str, str], list[RowPlan]] = {}
    for plan in plans:
        groups.setdefault((plan.row.table, _measure(plan.row)), []).append(plan)
    for group in groups.values():
        for name, told in _in_table(group).items():
            found[name] = told
    return found


def message(found: Sequence[Difference]) -> str:
    """What a person reads of a row of `confounded`."""
    together: dict[tuple[str, ...], list[Difference]] = {}
    for one in found:
        together.setdefault(one.rows, []).append(one)
    parts = []
    for rows, told in together.items():
        named = ", ".join(rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
        parts.append(f"{'; '.join(map(str, told))} (in {named})")
    return f"differs from other rows in more than what is studied: {'; '.join(parts)}"


def _in_table(plans: Sequence[RowPlan]) -> dict[str, list[Difference]]:
    rows = {plan.row.row: plan.row for plan in plans}
    whole = any(row.studied is not None for row in rows.values())
    settings = _that_vary({plan.row.row: settings_of(plan, whole) for plan in plans})
    against = {
        key: _commonest([own[key].value for own in settings.values() if key in own])
        for key in dict.fromkeys(key for own in settings.values() for key in own)
    }
    found: dict[str, list[Difference]] = {}
    for name, own in settings.items():
        differing = {other: set(_differing(own, settings[other])) for other in rows}
        for key, setting in own.items():
            # Of equally common values, a row that has one is told another.
            values = [v for v in against[key] if v != setting.value]
            others = [
                other
                for other, keys in differing.items()
                if key in keys
                and settings[other][key].value in values[:1]
                and not _is_studied(rows[name], rows[other], setting, settings[other][key])
            ]
            if others:
                told = _difference(setting, settings[others[0]][key])
                found.setdefault(name, []).append(replace(told, rows=tuple(others)))
    return found


def _that_vary(settings: dict[str, Settings]) -> dict[str, Settings]:
    """Without what every row that has it has alike."""
    first: Settings = {}
    vary: set[str] = set()
    for own in settings.values():
        for key, setting in own.items():
            if first.setdefault(key, setting).value != setting.value:
                vary.add(key)
    return {name: {k: s for k, s in own.items() if k in vary} for name, own in settings.items()}


def _commonest(values: Sequence[Any]) -> list[Any]:
    """The commonest value, or the two first of several that are equally common."""
    counts = Counter(map(_hashable, values))
    most = max(counts.values())
    first = {_hashable(v): v for v in reversed(values)}
    return [first[key] for key, count in counts.items() if count == most][:2]


def _hashable(value: Any) -> str:
    return canonical(value) if not isinstance(value, str) else value


def _differing(ours: Settings, theirs: Settings) -> list[str]:
    """Keys of both that differ, but for those within another that does."""
    found: list[str] = []
    for key, a in ours.items():
        b = theirs.get(key)
        if b is None or a.value == b.value:
            continue
        if a.effective is not None and a.effective == b.effective:
            continue
        if not any(key.startswith(f"{other}.") for other in found):
            found.append(key)
    return found


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
    judge = row.eval.judge if row.eval else None
    return isinstance(getattr(judge, "reference", None), RowOutputs)


def _covers(studied: list[str] | None, path: str) -> bool:
    if studied is None:
        return path.partition(".")[0] not in ("eval", "environment")
    return any(path == one or path.startswith(f"{one}.") for one in studied)


def _measure(row: Row) -> str:
    """What rows must share to be compared at all: the metric that their judge gives."""
    judge = row.eval.judge if row.eval else None
    if judge is None:
        return "train"
    if isinstance(judge, OutputJudge) and not isinstance(judge, RubricJudge):
        return "win_rate"
    return judge.kind
