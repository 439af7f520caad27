"""lm-eval's results side by side: runs in other ways, and what a README's tables say of them."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.audit.model import Result, agreeing_digits, short
from harness.audit.parse.files import AuditSource
from harness.audit.parse.leaderboards import ABSENT
from harness.audit.parse.lm_eval_files import LmEvalRun, leaderboard_score
from harness.audit.parse.readme import ReadmeLine, read_claims
from harness.judge.kinds.lm_eval.benchmarks import BENCHMARKS, MMLU

AVERAGES = re.compile(
    r"^\W*(?!.*(?:weight|micro|harmonic|geo|median|trimmed))"
    r"(?:average|avg\.?|mean|overall)(?:\s+score)?\W*(?:\(.*\))?\W*$",
    re.IGNORECASE,
)
"""Not those that say that they are another mean than the plain one."""
COLUMNS = {
    "arc": "arc_challenge", "arcc": "arc_challenge", "arcchallenge": "arc_challenge",
    "hellaswag": "hellaswag", "mmlu": MMLU, "truthfulqa": "truthfulqa_mc2",
    "truthfulqamc2": "truthfulqa_mc2", "tqa": "truthfulqa_mc2",
}  # fmt: skip
"""How tables call the leaderboard's benchmarks, in letters and figures alone."""
KNOWN_BENCHMARKS = frozenset(COLUMNS) | frozenset(
    """
    agieval arce arceasy bbh boolq codex commonsenseqa copa csqa drop gpqa gsm8k humaneval ifeval
    lambada math mathlvl5 mbpp mmlupro mmlustem musr naturalquestions nq obqa openbookqa piqa race
    rte sciq siqa squad toxigen triviaqa truthfulqamc1 winogrande
    """.split()  # noqa: SIM905
)
"""Headings that are surely a benchmark's."""
NO_SCORES = re.compile(
    r"\b(?:batch|cost|date|epochs?|examples|hours?|layers?|likes|lr|n|params?|parameters|rank|rows|"
    r"samples|seed|shots?|size|steps?|time|tokens?|version|year)\b|#",
    re.IGNORECASE,
)
EMPTY = ABSENT | {"?", "\u2013", "\u2014", "tbd", "nan"}
_CELL = re.compile(r"^[*_` ]*(\d{1,3}(?:(?:\.|,(?!\d{3}))(\d+))?)\s*%?(?:\s*(?:±|\+/-).*)?[*_` ]*$")
_SHOTS = re.compile(r"\b(\d+)[- ]?shots?\b", re.IGNORECASE)
_METRIC = re.compile(
    r"\((?:.*[,;] *)?(acc|acc[_ ]?norm|mc[12]|em|exact[_ ]match|f1|bleu|rouge\w*)\W*\)", re.I
)
"""Of a heading: which of a benchmark's metrics it is of."""
_BOARD = re.compile(r"open\s+llm\s+leader\s?board", re.IGNORECASE)


def compare_runs(runs: Sequence[tuple[Result, LmEvalRun]]) -> None:
    """confounded: different models on the same task, run in different ways."""
    differing: dict[tuple[str, str], dict[str, list[int]]] = {}
    names = [short(run.model or str(run.path), 60) for _, run in runs]
    for place, (_, run) in enumerate(runs):
        settings: dict[tuple[str, str], object] = {}
        for task in run.leaves:
            settings |= {
                (task.name, "shots"): task.shots,
                (task.name, "task version"): task.version,
            }
        settings |= {("", what): setting for what, setting in run.settings.items()}
        for key, setting in settings.items():
            if setting is not None:
                differing.setdefault(key, {}).setdefault(str(setting), []).append(place)
    for (task_name, what), values in differing.items():
        if len(values) < 2:
            continue
        # One model run in two ways is a study of the ways.
        models = {frozenset(runs[p][1].model for p in places) for places in values.values()}
        if len(models) == 1:
            continue
        details = "; ".join(
            f"{value}: {', '.join(sorted(names[p] for p in places))}"
            for value, places in sorted(values.items())
        )
        for place in sorted({p for places in values.values() for p in places}):
            of = f"of {task_name} " if task_name else ""
            runs[place][0].add(
                "confounded",
                "warning",
                f"the {what} {of}differ between the models that stand side by side: {details}",
                {"setting": what, "task": task_name or None,
                 "values": {v: sorted(str(runs[p][1].path) for p in ps) for v, ps in values.items()}},
            )  # fmt: skip


def check_readmes(runs: Sequence[tuple[Result, LmEvalRun]], source: AuditSource) -> None:
    """Averages that do not follow from their line, and shots that are not the leaderboard's where a
    README puts the scores beside the leaderboard's."""
    speaks = None
    lines: list[ReadmeLine] = []
    for path in (p for p in source.files if p.name.lower() == "readme.md"):
        table_lines, text = read_claims(path, source)
        lines += table_lines
        if _BOARD.search(text):
            speaks = speaks or path
    for result, run in runs:
        _check_shots(result, run, speaks)
    if runs:
        _check_averages(runs[0][0], lines)
        _check_claims(runs, lines)


def _check_shots(result: Result, run: LmEvalRun, readme: Path | None) -> None:
    deviations: dict[str, tuple[int, int]] = {}
    for task in run.leaves:
        benchmark = BENCHMARKS.get(task.benchmark)
        if benchmark and task.shots not in (None, benchmark.shots):
            deviations.setdefault(task.benchmark, (task.shots, benchmark.shots))
    if not deviations:
        return
    details = ", ".join(
        f"{name} with {had} shots, not {expected}" for name, (had, expected) in deviations.items()
    )
    if readme is None:
        result.notes.append(f"{details}, as the Open LLM Leaderboard (v1) has them")
        return
    result.add(
        "confounded",
        "warning",
        f"{readme.name} speaks of the Open LLM Leaderboard, and these are other settings: {details}",
        {"tasks": {n: {"shots": h, "leaderboard": w} for n, (h, w) in deviations.items()}},
    )


def _check_averages(result: Result, lines: Sequence[ReadmeLine]) -> None:
    """An average in a table's line must be that of columns in it: of all scores, of the benchmarks, or
    of those on one side of it; and of no fewer where one of them is empty."""
    tables: list[list[ReadmeLine]] = []
    for line in lines:
        last = tables[-1][-1] if tables else None
        above = (line.path, line.number - 1, list(line.cells))
        if last and (last.path, last.number, list(last.cells)) == above:
            tables[-1].append(line)
        else:
            tables.append([line])
    for table in tables:
        column = next((h for h in table[0].cells if AVERAGES.match(h)), None)
        if column is not None:
            _check_table(result, table, column, [t for t in tables if t is not table])
        elif (place := _line_of_averages(table)) is not None:
            _check_table(result, _transposed(table, place), table[place].first)


def _line_of_averages(table: Sequence[ReadmeLine]) -> int | None:
    """Where benchmarks are lines and models are columns: the line with the averages."""
    firsts = [line.first for line in table]
    if len(set(firsts)) < len(firsts) or len(firsts) < 3:
        return None
    return next((place for place, text in enumerate(firsts) if AVERAGES.match(text)), None)


def _transposed(table: Sequence[ReadmeLine], place: int) -> list[ReadmeLine]:
    """Its columns as lines, each at the number of the line with the averages."""
    first, *headings = table[0].cells
    columns = [{first: h} | {line.first: line.cells.get(h, "") for line in table} for h in headings]
    return [replace(table[place], cells=column) for column in columns]


def _is_over_tables(
    line: ReadmeLine, average: str, scores: Sequence[str], tables: Sequence[Sequence[ReadmeLine]]
) -> bool:
    """Whether an average is over its line and those of the same name in other tables of the file."""
    own_cells = {h: line.cells[h] for h in scores}
    cells = dict(own_cells)
    for table in tables:
        twin = next((t for t in table if _letters(t.first) == _letters(line.first)), None)
        if twin is None or twin.path != line.path:
            continue
        more = {
            f"{twin.number} {h}": twin.cells[h] for h in list(twin.cells)[1:] if _holds_scores(table, h)
        }  # fmt: skip
        cells |= more
        for averaged in (cells, more, own_cells | more):
            joined = replace(line, cells={average: line.cells[average], **averaged})
            if _fits(joined, average, [*averaged]):
                return True
    return False


def _check_table(
    result: Result,
    table: Sequence[ReadmeLine],
    average: str,
    tables: Sequence[Sequence[ReadmeLine]] = (),
) -> None:
    scores = [h for h in list(table[0].cells)[1:] if h != average and _holds_scores(table, h)]
    place = list(table[0].cells).index(average)
    four = [h for h in scores if _benchmark(h)]
    four = four if len(four) == len(BENCHMARKS) == len({*map(_benchmark, four)}) else []
    sets = [
        scores,
        four,
        [h for h in scores if _is_known(h)],
        [h for h in scores if h in list(table[0].cells)[:place]],
        [h for h in scores if h in list(table[0].cells)[place:]],
    ]
    sets = [columns for columns in sets if len(columns) > 1]
    fitting = {
        tuple(columns) for line in table for columns in sets if _fits(line, average, columns)
    }
    for line in table:
        printed = _printed(line.cells[average])
        if printed is None or any(_fits(line, average, columns) for columns in sets):
            continue
        empty = [h for h in scores if _printed(line.cells[h]) is None]
        filled = [h for h in scores if h not in empty]
        # Elsewhere in the table an average has them in, or they are surely benchmarks.
        missed = [h for h in empty if any(h in columns for columns in fitting) or _is_known(h)]
        evidence = {"quote": short(line.text), "given": printed[0]}
        where = f"{line.where}: an average of {printed[0]:g} is given, and "
        if missed and _fits(line, average, filled):
            fault = f"leaves out what is empty ({', '.join(missed)}): it is over {len(filled)} of " \
                    f"{len(filled) + len(missed)} columns"  # fmt: skip
            evidence |= {"empty": missed, "columns": filled}
            result.refute(where + fault, evidence)
            continue
        full = [columns for columns in sets if not set(columns) & set(empty)]
        are_averaged = tuple(scores) in fitting or all(map(_is_known, scores))
        is_sure = four in full or (not empty and are_averaged)
        if not full or not is_sure or _is_over_tables(line, average, scores, tables):
            continue
        # What the table's other averages are of; else all of its columns.
        columns = next((columns for columns in full if tuple(columns) in fitting), full[0])
        mean = _mean(line, columns, printed[0])[0]
        words = "its four benchmarks" if columns == four else f"its {len(columns)} columns"
        result.refute(f"{where}that of {words} is {mean:.{printed[1]}f}", evidence | {"mean": mean})


def _holds_scores(table: Sequence[ReadmeLine], heading: str) -> bool:
    """Whether a column has numbers, and nothing else but empty cells, and is no size or count."""
    cells = [line.cells[heading].strip("*_` ") for line in table]
    filled = [cell for cell in cells if cell and cell.lower() not in EMPTY]
    is_size = NO_SCORES.search(_plain_heading(heading))
    return bool(filled) and all(map(_printed, filled)) and not is_size


def _mean(line: ReadmeLine, columns: Sequence[str], average: float) -> tuple[float, float]:
    """The mean of some cells, all numbers, and by how much rounding may have moved it; in percent or
    as a share of 1, as the average is."""
    numbers = [number for h in columns if (number := _printed(line.cells[h]))]
    slack = math.fsum(0.5 * 10.0**-d for _, d in numbers) / len(numbers)
    scale = 1.0
    if all(n <= 1 for n, _ in numbers) and average > 1:
        scale = 100.0
    elif all(n > 1 for n, _ in numbers) and average <= 1:
        scale = 0.01
    return scale * math.fsum(n for n, _ in numbers) / len(numbers), scale * slack


def _fits(line: ReadmeLine, average: str, columns: Sequence[str]) -> bool:
    """Whether the line's average is that of these columns, of which none is empty."""
    printed = _printed(line.cells[average])
    if printed is None or not columns or any(_printed(line.cells[h]) is None for h in columns):
        return False
    mean, slack = _mean(line, columns, printed[0])
    return abs(mean - printed[0]) <= (0.5 * 10.0 ** -printed[1] + slack) * 1.001


def _check_claims(runs: Sequence[tuple[Result, LmEvalRun]], lines: Sequence[ReadmeLine]) -> None:
    """Where a table's line or column is named as a run's model is: its numbers against the run's."""
    for result, run in runs:
        name = _letters(run.model.rstrip("/").rpartition("/")[2])
        if len(name) < 3:
            continue
        for line in lines:
            for heading, cell in line.cells.items():
                printed = _printed(cell)
                if printed is None or name not in (_letters(line.first), _letters(heading)):
                    continue
                column = heading if _letters(line.first) == name else line.first
                scores = _scores_of(result, run, column)
                if scores:
                    _claimed(result, line, str(_benchmark(column)), printed, scores)


def _scores_of(result: Result, run: LmEvalRun, heading: str) -> list[float]:
    """What a run has of the benchmark, the metric and the shots that a heading names."""
    benchmark, metric, shots = _benchmark(heading), _METRIC.search(heading), _SHOTS.search(heading)
    if benchmark is None:
        return []
    tasks = [t for t in run.tasks.values() if t.benchmark == benchmark]
    if shots and any(t.shots not in (None, int(shots[1])) for t in tasks):
        return []
    letters = _letters(metric[1]) if metric else ""
    is_usual = letters in ("", _letters(BENCHMARKS[benchmark].metric))
    if benchmark == MMLU:
        names = (f"{MMLU} acc by tasks", f"{MMLU} acc by questions") if is_usual else ()
        return [mean for n in names if (mean := result.metrics.get(n)) is not None]
    if not is_usual:
        return [v for t in tasks for (m, _), v in t.scores.items() if _letters(m) == letters]
    return [metric_score[1] for t in tasks if (metric_score := leaderboard_score(t)) is not None]


def _claimed(
    result: Result, line: ReadmeLine, name: str, printed: tuple[float, int], scores: Sequence[float]
) -> None:
    value, decimals = printed
    scales = (100.0, 1.0) if value <= 1 and decimals > 1 else (100.0,)
    near, scale = min(((s * v, s) for v in scores for s in scales), key=lambda n: abs(n[0] - value))
    label = f"{name} in {line.path.name}" + (" (percent)" if scale > 1 else "")
    result.published[label], result.metrics[label] = value, near
    result.digits[label] = agreeing_digits(value, near)
    fits = result.digits[label] >= decimals
    result.matches = fits and result.matches is not False
    if not fits:
        result.mismatch(
            f"{line.where}: {name} of {value:.{decimals}f} is given, and the results say "
            f"{near:.{decimals}f}",
            {"quote": short(line.text), "given": value, "results": near},
        )


def _benchmark(heading: str) -> str | None:
    return COLUMNS.get(_letters(_plain_heading(heading)))


def _is_known(heading: str) -> bool:
    return _letters(_plain_heading(heading)) in KNOWN_BENCHMARKS


def _plain_heading(heading: str) -> str:
    return re.sub(r"\(.*?\)|\d+[- ]shots?", "", heading, flags=re.IGNORECASE)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _printed(cell: str) -> tuple[float, int] | None:
    """A cell's number and its decimals."""
    match = _CELL.match(cell.strip())
    return (float(match[1].replace(",", ".")), len(match[2] or "")) if match else None
