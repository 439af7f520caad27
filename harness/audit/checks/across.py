"""Checks across the results of one call: the same outputs under several names, copied judgements, and
runs that differ in how they were made or judged."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, TypedDict

from harness.artefact.manifest import Severity
from harness.audit.model import SURE, Result, short
from harness.common import numbers

SAME_SHARE = 0.95
"""So large a share of two runs' outputs must be the same texts: greedy decoding of related models makes
some the same."""
FEWEST = 10
"""So many different texts, or judgements of the rarer outcome, before sameness means anything: empty
answers and sweeps coincide by themselves."""
TRIVIAL = 10
"""Characters below which an output may well be another model's too."""
COPIED_SHARE = 0.99
AGREE = 0.95
"""As often as two honest judges at most agree on one pair of outputs."""
FINDINGS = frozenset({"shared_outputs", "copied_results", "confounded"})
"""The kinds that are made here."""


def check(results: list[Result]) -> None:
    """shared_outputs, copied_results and confounded, on the results concerned."""
    _check_shared(results)
    _check_copied(results)
    _check_copied_lines(results)
    _check_settings(results)
    _check_judges(results)


class _Difference(TypedDict):
    """A setting of a result, that of the others, and one of them."""

    this: object
    others: object
    example: str


@dataclass(frozen=True)
class _Texts:
    result: Result
    plain: dict[str, str]
    """Its outputs, in which white space does not count."""


@dataclass(frozen=True)
class _Counted:
    result: Result

    @cached_property
    def times(self) -> Counter[float]:
        return Counter(self.result.material.times)

    @cached_property
    def raws(self) -> Counter[Any]:
        return Counter(map(_key, self.result.material.raws))

    @cached_property
    def judgements(self) -> Counter[Any]:
        return Counter(map(_key, self.result.material.judgements))


def _check_shared(results: Sequence[Result]) -> None:
    """Results that are told apart as runs, with the same outputs.

    Several judges of one run's outputs are as it should be: these lie in one folder, or an artefact's
    manifest or a crate says where they stand.
    """
    stated = {digest: r.material.run for r in results for digest in r.material.same_run}
    having = [_Texts(r, _plain_texts(r.material.outputs)) for r in results if r.material.outputs]
    for texts in _groups(having, _share_outputs):
        group = [t.result for t in texts]
        runs = {
            next((stated[d] for d in r.material.files.values() if d in stated), r.material.run)
            for r in group
        }
        if len(runs) < 2:
            continue
        rates = {r.path: r.metrics.get("win_rate") for r in group}
        known_rates = [rate for rate in rates.values() if rate is not None]
        judges = {r.material.judge for r in group if r.material.judge}
        spread = max(known_rates) - min(known_rates) if len(known_rates) > 1 else None
        names = ", ".join(r.path for r in group[:6])
        counts = [_same(texts[0].plain, other.plain) for other in texts[1:]]
        same, total = min(counts, key=lambda n: n[0] / n[1])
        what = f"the same outputs ({names})"
        if same < total:
            what = (
                f"{numbers.out_of(same, total)} outputs ({numbers.percent(same, total)}; {names})"
            )
        message = f"{len(group)} results share {what}"
        if spread is not None:
            extremes = numbers.interval(min(known_rates), max(known_rates), 1)
            message += f": their win rates, {extremes}, differ by judging alone"
        for result in group:
            result.add(
                "shared_outputs",
                "error",
                message,
                {
                    "results": [r.path for r in group],
                    "win_rates": rates,
                    "spread": spread,
                    "judges": sorted(judges),
                    "outputs": len(result.material.outputs or ()),
                    "same": same,
                    "share": same / total,
                },
            )


def _share_outputs(texts: _Texts, other: _Texts) -> bool:
    if texts.result.reader.states_copies and other.result.reader.states_copies:
        return False
    plain, other_plain = texts.plain, other.plain
    if abs(len(plain) - len(other_plain)) > (1 - SAME_SHARE) * max(len(plain), len(other_plain)):
        return False
    # Most pairs are nothing alike, and there may be many.
    few, misses = (1 - SAME_SHARE) * (len(plain) + len(other_plain)), 0
    for key, text in plain.items():
        misses += other_plain.get(key) != text and len(text) >= TRIVIAL
        if misses > few:
            return False
    same, total = _same(plain, other_plain)
    if not total or same < SAME_SHARE * total:
        return False
    shared = {text for key, text in plain.items() if text and other_plain.get(key) == text}
    return len(shared) >= min(FEWEST, max(3, len(plain) // 2))


def _same(outputs: dict[str, str], other_outputs: dict[str, str]) -> tuple[int, int]:
    """How many outputs are the same but for white space, of how many that either has more than a word
    of: short answers coincide by themselves. Where all are short, they count."""
    pairs = [
        (outputs.get(key, ""), other_outputs.get(key, ""))
        for key in outputs.keys() | other_outputs.keys()
    ]
    compared = [(a, b) for a, b in pairs if len(a) >= TRIVIAL or len(b) >= TRIVIAL]
    if len(compared) < FEWEST:
        compared = pairs
    return sum(a == b for a, b in compared), len(compared)


def _plain_texts(outputs: dict[str, str]) -> dict[str, str]:
    return {k: " ".join(v.split()) if isinstance(v, str) else "" for k, v in outputs.items()}


def _check_copied(results: Sequence[Result]) -> None:
    having = [_Counted(r) for r in results if r.material.judgements]
    for counted, other_counted in combinations(having, 2):
        first, second = counted.result, other_counted.result
        if first.reader.states_copies and second.reader.states_copies:
            # A judge at temperature 0 says the same twice.
            continue
        how = _copied(counted, other_counted)
        if not how:
            continue
        for result, twin in ((first, second), (second, first)):
            result.add(
                "copied_results",
                "error",
                f"{how} in {twin.path}{_difference_text(result, twin)}",
                {
                    "other": twin.path,
                    "judge": result.material.judge,
                    "other_judge": twin.material.judge,
                    "judgements": len(result.material.judgements),
                    "files": result.material.files,
                    "win_rates": {r.path: r.metrics.get("win_rate") for r in (result, twin)},
                },
            )


def _check_copied_lines(results: Sequence[Result]) -> None:
    """copied_results: leaderboards with the same figures to the last digit, of which one at least has
    no annotations that could be held against the other's."""
    by_line: dict[Any, list[Result]] = {}
    for result in results:
        line = result.material.line or {}
        if not line.keys() >= {"n_wins", "n_wins_base"}:
            continue
        outcomes = sorted((line["n_wins"], line["n_wins_base"], line.get("n_draws", 0)))
        # Equal counts coincide; with the length, or a rate weighted by it, they do not.
        is_telling = line.keys() & {"avg_length", "length_controlled_winrate"}
        if sum(outcomes[:-1]) >= FEWEST and is_telling:
            by_line.setdefault(frozenset(line.items()), []).append(result)
    for group in by_line.values():
        for first, second in combinations(group, 2):
            if first.material.judgements and second.material.judgements:
                continue
            places = {Path(first.path), Path(second.path)}
            if any(place in p.parents for place in places for p in places):
                continue  # The leaderboard above gathers those below.
            for result, twin in ((first, second), (second, first)):
                figures = result.material.line or {}
                result.add(
                    "copied_results",
                    "warning",
                    f"the same {len(figures)} figures, to the last digit, stand in the leaderboard of "
                    f"{twin.path} (wins {figures['n_wins']:g}, losses {figures['n_wins_base']:g}); "
                    "annotations that would tell two runs apart are not stored with both: one looks "
                    "like a copy of the other",
                    {"other": twin.path, "figures": figures,
                     "models": [r.material.model for r in (result, twin)]},
                )  # fmt: skip


def _copied(counted: _Counted, other: _Counted) -> str:
    """How one set of judgements is another's copy; "" where it is none."""
    material, other_material = counted.result.material, other.result.material
    judgements_tell = counted.result.reader.judgements_tell
    shared = set(material.files.values()) & set(other_material.files.values())
    if shared and material.model == other_material.model and material.judge == other_material.judge:
        return "the same bytes as the annotations stand"
    if shared:
        return ""  # One file with several models.
    same, total = _common(counted.times, other.times)
    if total and same >= COPIED_SHARE * total and _different(material.times) >= FEWEST:
        return f"the same judgements{_of(same, total)}, to the time that each call took, stand"
    outputs = material.outputs
    if (
        material.judge == other_material.judge
        and outputs == other_material.outputs
        and (outputs is not None or judgements_tell)
    ):
        # A judge at temperature 0 may say the same of the same outputs twice.
        return ""
    same, total = _common(counted.raws, other.raws)
    if total and same >= COPIED_SHARE * total and _different(r for _, r in material.raws) >= FEWEST:
        return f"the same replies of the judge{_of(same, total)} stand"
    if not judgements_tell:
        return ""
    same, total = _common(counted.judgements, other.judgements)
    is_nearly = same >= COPIED_SHARE * total
    if same == total or (is_nearly and _beyond_chance(counted, other, same, total)):
        outcomes = Counter(_plain(preference) for _, preference in material.judgements)
        rarer = sum(outcomes.values()) - max(outcomes.values(), default=0)
        return f"the same judgements{_of(same, total)} stand" if rarer >= FEWEST else ""
    return ""


def _common(entries: Counter[Any], other_entries: Counter[Any]) -> tuple[int, int]:
    """How many entries of a list two results share, in any order (zero where they are clearly few), and
    how long the longer is."""
    total = max(entries.total(), other_entries.total())
    if not entries or not other_entries:
        return 0, 0
    shared_keys = entries.keys() & other_entries.keys()
    if len(shared_keys) < COPIED_SHARE * len(entries) / 2:
        return 0, total
    return sum(min(entries[key], other_entries[key]) for key in shared_keys), total


def _key(value: Any) -> Any:
    return (value[0], _plain(value[1])) if isinstance(value, tuple) else value


def _different(values: Iterable[Any]) -> int:
    return len(set(map(_plain, values)))


def _of(same: int, total: int) -> str:
    return "" if same == total else f" ({numbers.out_of(same, total)})"


def _beyond_chance(counted: _Counted, other: _Counted, same: int, total: int) -> bool:
    """Whether two judgings agree more often than honest judges could, on the rarer outcome too."""
    judgements, other_judgements = (
        dict(map(_key, c.result.material.judgements)) for c in (counted, other)
    )
    common = Counter(judgements.values()).most_common(1)[0][0]
    keys = judgements.keys() | other_judgements.keys()
    pairs = [(judgements.get(key), other_judgements.get(key)) for key in keys]
    rare = [pair for pair in pairs if set(pair) != {common}]
    agreed = sum(first == second for first, second in rare)
    if agreed < max(FEWEST, 0.9 * len(rare)):
        return False
    if counted.raws and other.raws:
        # What the judges wrote is there, and is not the same.
        same_replies, all_replies = _common(counted.raws, other.raws)
        if same_replies < COPIED_SHARE * all_replies:
            return False
    return math.fsum(math.exp(_log_chance(k, total)) for k in range(same, total + 1)) < SURE


def _log_chance(same: int, total: int) -> float:
    """Logarithm of the chance that of `total` judgements exactly `same` agree."""
    ways = math.lgamma(total + 1) - math.lgamma(same + 1) - math.lgamma(total - same + 1)
    return ways + same * math.log(AGREE) + (total - same) * math.log(1 - AGREE)


def _difference_text(result: Result, other: Result) -> str:
    judge, other_judge = result.material.judge, other.material.judge
    if judge != other_judge:
        names = f"{judge or 'one judge'}, those of {other_judge or 'another'}"
        return f", though these are said to be of {names}"
    if result.material.outputs != other.material.outputs:
        return ", though the judged outputs are others"
    return ""


def _check_settings(results: Sequence[Result]) -> None:
    """confounded: runs whose configurations differ from the commonest value of a setting."""
    differences: dict[int, dict[str, _Difference]] = {}
    for name in sorted({name for r in results for name in r.material.settings}):
        values = {n: r.material.settings[name] for n, r in enumerate(results)
                  if name in r.material.settings}  # fmt: skip
        common, often = Counter(map(_plain, values.values())).most_common(1)[0]
        if often == 1 and len(values) > 2:
            # Each has its own: that is what the runs are about.
            continue
        example = next(n for n, value in values.items() if _plain(value) == common)
        for n, value in values.items():
            if value is not None and _plain(value) != common:
                differences.setdefault(n, {})[name] = {
                    "this": _short(value),
                    "others": _short(values[example]),
                    "example": results[example].path,
                }
    for n, differing in differences.items():
        _confounded(results[n], differing, "was made")


def _check_judges(results: Sequence[Result]) -> None:
    """confounded: a run that no judge has judged whom the others share, or against another baseline."""
    compared = [r for r in results if r.reader.comparable and r.material.judge]
    for kind in dict.fromkeys(r.kind for r in compared):
        of_kind = [r for r in compared if r.kind == kind]
        by_run: dict[Any, list[Result]] = {}
        for result in of_kind:
            by_run.setdefault(result.material.run, []).append(result)
        judged = {run: set(map(_judged_by, group)) for run, group in by_run.items()}
        if len(judged) < 2 or set.intersection(*judged.values()) or not _same_prompts(of_kind):
            continue
        common = Counter(pair for pairs in judged.values() for pair in pairs).most_common(1)[0][0]
        for run, pairs in judged.items():
            if common in pairs:
                continue
            result = by_run[run][0]
            example = next(r for r in of_kind if _judged_by(r) == common)
            pairs_by_name = zip(("judge", "baseline"), _judged_by(result), common, strict=True)
            differing: dict[str, _Difference] = {
                name: {"this": this, "others": value, "example": example.path}
                for name, this, value in pairs_by_name
                if this != value
            }
            _confounded(result, differing, "was judged", "info")


def _same_prompts(results: Sequence[Result]) -> bool:
    """Whether all were asked nearly the same: else nobody compares them."""
    prompt_sets = [{prompt for prompt, _ in r.material.judgements} for r in results]
    fewest = SAME_SHARE * len(prompt_sets[0])
    return all(len(prompts & prompt_sets[0]) >= fewest for prompts in prompt_sets)


def _judged_by(result: Result) -> tuple[Any, Any]:
    return result.material.judge, result.material.baseline


def _confounded(
    result: Result, differing: Mapping[str, _Difference], how: str, severity: Severity = "warning"
) -> None:
    details = "; ".join(
        f"{name} {_quoted(d['this'])}, {d['example']} has {_quoted(d['others'])}"
        for name, d in differing.items()
    )
    result.add(
        "confounded",
        severity,
        f"it {how} in another way than what it is compared with: {details}. Their scores differ by "
        "this as well as by the model",
        {"settings": differing},
    )


def _groups(
    results: Sequence[_Texts], same: Callable[[_Texts, _Texts], bool]
) -> list[list[_Texts]]:
    """Groups of two and more that are the same as their first."""
    left, groups = list(results), []
    while left:
        first, *rest = left
        group = [first, *(r for r in rest if same(first, r))]
        left = [r for r in rest if r not in group]
        if len(group) > 1:
            groups.append(group)
    return groups


def _plain(value: Any) -> str:
    try:
        return repr(float(value)) if isinstance(value, int | float) else str(value)
    except OverflowError:
        return "more than a number holds"


def _short(value: Any) -> Any:
    return short(value) if isinstance(value, str) else value


def _quoted(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)
