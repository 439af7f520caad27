"""lm-eval's results side by side: runs in other ways, and what a README's tables say of them."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from harness.audit.claims import Line, read_claims
from harness.audit.files import Given
from harness.audit.lm_eval_files import Run, main_score
from harness.audit.model import Result, agreeing_digits, short
from harness.eval.tasks.benchmarks import BENCHMARKS, MMLU

AVERAGES = re.compile(r"^\W*(?:average|avg\.?|mean)\W*$", re.IGNORECASE)
COLUMNS = {
    "arc": "arc_challenge", "arcc": "arc_challenge", "arcchallenge": "arc_challenge",
    "hellaswag": "hellaswag", "mmlu": MMLU, "truthfulqa": "truthfulqa_mc2",
    "truthfulqamc2": "truthfulqa_mc2", "tqa": "truthfulqa_mc2",
}  # fmt: skip
"""How tables call the leaderboard's benchmarks, in letters and figures alone."""
_CELL = re.compile(r"^[*_` ]*(\d{1,3}(?:\.(\d+))?)\s*%?(?:\s*(?:±|\+/-).*)?[*_` ]*$")
_BOARD = re.compile(r"open\s+llm\s+leader\s?board", re.IGNORECASE)


def compare_runs(runs: Sequence[tuple[Result, Run]]) -> None:
    """confounded: different models on the same task, run in different ways."""
    differing: dict[tuple[str, str], dict[str, list[int]]] = {}
    for place, (_, run) in enumerate(runs):
        for task in run.tasks.values():
            for what, told in (("shots", task.shots), ("task version", task.version)):
                if told is not None and task.name not in run.groups:
                    differing.setdefault((task.name, what), {}).setdefault(str(told), []).append(
                        place
                    )
        for what, told in run.settings.items():
            differing.setdefault(("", what), {}).setdefault(str(told), []).append(place)
    for (task_name, what), values in differing.items():
        if len(values) < 2:
            continue
        # One model run in two ways is a study of the ways.
        models = {frozenset(runs[p][1].model for p in places) for places in values.values()}
        if len(models) == 1:
            continue
        told = "; ".join(
            f"{value}: {', '.join(sorted(_short_name(runs[p][1]) for p in places))}"
            for value, places in sorted(values.items())
        )
        for place in sorted({p for places in values.values() for p in places}):
            of = f"of {task_name} " if task_name else ""
            runs[place][0].add(
                "confounded",
                "warning",
                f"the {what} {of}differ between the models that stand side by side: {told}",
                {"setting": what, "task": task_name or None,
                 "values": {v: sorted(str(runs[p][1].path) for p in ps) for v, ps in values.items()}},
            )  # fmt: skip


def _short_name(run: Run) -> str:
    return short(run.model or str(run.path), 60)


def check_readmes(runs: Sequence[tuple[Result, Run]], given: Given) -> None:
    """Averages that do not follow from their line, and shots that are not the leaderboard's where a
    README puts the scores beside the leaderboard's."""
    speaks = None
    lines: list[Line] = []
    for path in (p for p in given.files if p.name.lower() == "readme.md"):
        found, text = read_claims(path)
        lines += found
        if _BOARD.search(text):
            speaks = speaks or path
    for result, run in runs:
        _check_shots(result, run, speaks)
    if runs:
        _check_averages(runs[0][0], lines)
        _check_claims(runs, lines)


def _check_shots(result: Result, run: Run, readme: Path | None) -> None:
    others: dict[str, tuple[int, int]] = {}
    for task in run.tasks.values():
        known = BENCHMARKS.get(task.benchmark)
        if (
            known
            and task.shots is not None
            and task.shots != known.shots
            and task.name not in run.groups
        ):
            others.setdefault(task.benchmark, (task.shots, known.shots))
    if not others:
        return
    told = ", ".join(
        f"{name} with {had} shots, not {wanted}" for name, (had, wanted) in others.items()
    )
    if readme is None:
        result.notes.append(f"{told}, as the Open LLM Leaderboard (v1) has them")
        return
    result.add(
        "confounded",
        "warning",
        f"{readme.name} speaks of the Open LLM Leaderboard, and these are other settings: {told}",
        {"tasks": {n: {"shots": h, "leaderboard": w} for n, (h, w) in others.items()}},
    )


def _check_averages(result: Result, lines: Sequence[Line]) -> None:
    """An average in a table's line must be that of the four benchmarks in it."""
    for line in lines:
        cells = {_benchmark(heading): _printed(cell) for heading, cell in line.cells.items()}
        average = next((_printed(c) for h, c in line.cells.items() if AVERAGES.match(h)), None)
        known = [cells.get(name) for name in BENCHMARKS]
        if average is None or any(k is None for k in known):
            continue
        numbers = [k for k in known if k is not None]
        mean = math.fsum(n for n, _ in numbers) / len(numbers)
        slack = 0.5 * 10.0 ** -average[1] + math.fsum(0.5 * 10.0**-d for _, d in numbers) / len(
            numbers
        )
        if abs(mean - average[0]) > slack * 1.001:
            result.matches = False
            result.add(
                "count_mismatch",
                "error",
                f"{line.path.name}, line {line.number}: an average of {average[0]:g} is given, and "
                f"that of its four benchmarks is {mean:.{average[1]}f}",
                {"quote": short(line.text), "given": average[0], "mean": mean},
            )


def _check_claims(runs: Sequence[tuple[Result, Run]], lines: Sequence[Line]) -> None:
    """Where a table's line or column is named as a run's model is: its numbers against the run's."""
    for result, run in runs:
        name = _letters(run.model.rstrip("/").rpartition("/")[2])
        if len(name) < 3:
            continue
        scores = {
            t.benchmark: main_score(t)[1]
            for t in run.tasks.values() if t.benchmark in BENCHMARKS and t.benchmark != MMLU
        }  # fmt: skip
        for group in ("by tasks", "by questions"):
            mean = result.metrics.get(f"mmlu acc {group}")
            if mean is not None:
                scores[f"{MMLU} {group}"] = mean
        for line in lines:
            first = next(iter(line.cells.values()), "")
            for heading, cell in line.cells.items():
                printed = _printed(cell)
                if printed is None:
                    continue
                if _letters(first) == name:
                    benchmark = _benchmark(heading)
                elif _letters(heading) == name:
                    benchmark = _benchmark(first)
                else:
                    continue
                ours = [100 * v for n, v in scores.items() if benchmark and n.startswith(benchmark)]
                if ours:
                    _claimed(result, line, str(benchmark), printed, ours)


def _claimed(
    result: Result, line: Line, name: str, printed: tuple[float, int], ours: Sequence[float]
) -> None:
    value, decimals = printed
    near = min(ours, key=lambda v: abs(v - value))
    told = f"{name} in {line.path.name} (percent)"
    result.published[told], result.metrics[told] = value, near
    result.digits[told] = agreeing_digits(value, near)
    fits = result.digits[told] >= decimals
    result.matches = fits and result.matches is not False


def _benchmark(heading: str) -> str | None:
    return COLUMNS.get(_letters(re.sub(r"\(.*?\)|\d+[- ]shots?", "", heading, flags=re.IGNORECASE)))


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _printed(cell: str) -> tuple[float, int] | None:
    """A cell's number and its decimals."""
    found = _CELL.match(cell.strip())
    return (float(found[1]), len(found[2] or "")) if found else None
