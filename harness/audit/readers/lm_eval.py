"""lm-eval's results: means, errors and groups recomputed, from the questions where they are kept, and
questions, shots and claimed averages checked. Scores are shares of 1, as lm-eval writes them."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import PurePath

from harness.artefact.keys import file_digest
from harness.audit.checks.judged import NO_BOUNDS
from harness.audit.model import (
    EXAMPLES,
    MOST_DIGITS,
    UNFORESEEN,
    Reader,
    Result,
    agreeing_digits,
    guarded_result,
    short,
)
from harness.audit.parse.contents import RESULTS, of_kind
from harness.audit.parse.files import AuditSource, JsonObject, Unreadable, read_json
from harness.audit.parse.lm_eval_files import (
    MEANS,
    LmEvalRun,
    LmEvalTask,
    find_samples,
    is_results,
    main_score,
    name_filters,
    read_run,
    read_samples,
    recomputed_score,
    repeated,
    stored_values,
    wrong_answers,
)
from harness.audit.parse.lm_eval_own import audit_own, is_own
from harness.audit.parse.lm_eval_tables import check_readmes, compare_runs
from harness.judge.kinds.lm_eval.benchmarks import MMLU, SUBJECTS
from harness.judge.kinds.lm_eval.scores import pooled
from harness.judge.scores import mean_and_error

KIND = "lm_eval"
DIGITS = 8
"""Decimals of a share of 1 to which a recomputed number must agree."""
SIZES = {
    "arc_challenge": 1172,
    "hellaswag": 10042,
    "truthfulqa_mc2": 817,
    "winogrande": 1267,
    "gsm8k": 1319,
}
"""Questions of the leaderboard's sets: ARC (Challenge, test), HellaSwag (validation), TruthfulQA
(validation), WinoGrande (xl, validation), GSM8K (test)."""
RIGHT_OR_WRONG = ("arc_challenge", "hellaswag", MMLU, "winogrande", "gsm8k")
"""Tasks whose acc, acc_norm and exact_match are 1 or 0 for each question."""


def find(source: AuditSource) -> list[Result]:
    """A result for each results file below the path."""
    runs: list[tuple[Result, LmEvalRun]] = []
    own_results = []
    results = of_kind(source, RESULTS)
    json_paths = [p for p in source.files if p.suffix.lower() == ".json"]
    by_name = [p for p in json_paths if "results" in p.name.lower()]
    for path in dict.fromkeys([*by_name, *results]):
        try:
            value = read_json(path)
            if is_own(value):
                own_results.append(audit_own(path, JsonObject(value), KIND))
                source.claim(path.parent)
                continue
            if not is_results(value):
                continue
            run = read_run(path, JsonObject(value))
        except Unreadable as e:
            if path.name.lower().startswith("results"):
                source.skip(path, str(e))
            continue
        except UNFORESEEN:
            source.skip(path, "it has values of other types than lm-eval writes there")
            continue
        find_samples(run, source.files, results)
        runs.append((guarded_result(path, KIND, partial(_audit, run, source)), run))
        source.claim(path, *run.samples.values())
    compare_runs(runs)
    check_readmes(runs, source)
    return [*own_results, *(result for result, _ in runs)]


def _audit(run: LmEvalRun, source: AuditSource) -> Result:
    result = Result(str(run.path), KIND)
    for task in run.leaves:
        _check_task(result, run, task, source)
    for key, stored in run.absent.items():
        result.published[_name(*key)] = stored
        stored_text = "null" if stored is None else str(stored).replace("nan", "NaN")
        result.notes.append(f"{_name(*key)} is {stored_text} in the file, and no number")
    if run.empty:
        result.notes.append(f"no metric is stored of {short(', '.join(run.empty))}")
    _check_numbers(result, run)
    _check_groups(result, run)
    _check_shares(result, run)
    counted = [t for t in run.leaves if t.judged is not None]
    result.metrics["n_judged"] = sum(t.judged or 0 for t in counted) or None
    # Of the others nothing says how many were asked, and so not that any are missing.
    result.metrics["n_expected"] = sum(t.expected or t.judged or 0 for t in counted) or None
    unknown = [t.name for t in run.leaves if t.judged is None]
    if unknown:
        result.notes.append(
            f"how many questions were asked is not in the files: {short(', '.join(unknown))}"
        )
    _match(result)
    return result


def _check_task(result: Result, run: LmEvalRun, task: LmEvalTask, source: AuditSource) -> None:
    rows = _rows(result, run, task, source)
    for (metric, filter_name), score in task.scores.items():
        name = _name(task.name, metric, filter_name)
        result.published[name] = score
        error = task.errors.get((metric, filter_name))
        if error is not None:
            result.published[f"{name}_stderr"] = error
        values, questions = stored_values(rows, metric, filter_name)
        recomputed = recomputed_score(values, task, metric, filter_name) if values else None
        is_each = recomputed is not None and all(isinstance(value, float) for value in values)
        if is_each and task.judged is None:
            task.judged = questions
        if recomputed is not None and len(values) < questions:
            _check_lacking(result, task, (metric, filter_name), recomputed, len(values), questions)
            continue
        if recomputed is not None:
            result.metrics[name] = recomputed
        if is_each and metric in task.means:
            _, spread = mean_and_error(values)
            if spread is not None and error is not None:
                result.metrics[f"{name}_stderr"] = spread
        elif recomputed is None and metric in MEANS and task.benchmark in RIGHT_OR_WRONG:
            _check_sums(result, task, name, score, error)


def _check_lacking(
    result: Result,
    task: LmEvalTask,
    key: tuple[str, str],
    recomputed: float,
    having: int,
    questions: int,
) -> None:
    """Of some questions no value of a metric is stored: a mean over the others, and what it may be
    over all."""
    name, score, metric = _name(task.name, *key), task.scores[key], key[0]
    lacking = questions - having
    message = f"{name}: {lacking:,} of the {questions:,} questions have no {metric}"
    if agreeing_digits(score, recomputed) >= DIGITS:
        result.metrics[name] = recomputed
        result.notes.append(f"{message}; what is given is over the other {having:,}")
        return
    low, high = recomputed * having / questions, (recomputed * having + lacking) / questions
    may_be = metric not in MEANS or low - 1e-9 <= score <= high + 1e-9
    result.metrics[f"{name} over {having} questions"] = recomputed
    if not may_be:
        result.matches = False
    result.mismatch(
        f"{message}; over the other {having:,} it is {recomputed:.6g}, "
        + (f"over all between {low:.6g} and {high:.6g}, " if metric in MEANS else "")
        + f"given is {score:.6g}",
        {"task": task.name, "metric": metric, "questions": questions, "lacking": lacking,
         "given": score, "recomputed": recomputed},
        "warning" if may_be else "error",
    )  # fmt: skip


def _name(task: str, metric: str, filter_name: str) -> str:
    return f"{task} {metric}" + ("" if filter_name == "none" else f" ({filter_name})")


def _rows(
    result: Result, run: LmEvalRun, task: LmEvalTask, source: AuditSource
) -> list[JsonObject]:
    """The questions that were kept of a task, after a look at whether they are all and each once."""
    path = run.samples.get(task.name)
    if path is None:
        return []
    rows = source.read(read_samples, path)
    if rows is None:
        return []
    result.material.files[path.name] = file_digest(path)
    is_named = any("filter" in row for row in rows)
    if not name_filters(rows, task.filters):
        result.notes.append(
            f"{task.name} is not recomputed: the lines of its {len(task.filters)} filters "
            f"({short(', '.join(task.filters))}) do not name them in {path.name}, and are not "
            f"{len(task.filters)} of each question"
        )
        return []
    if not is_named and len(task.filters) > 1:
        result.notes.append(
            f"{task.name}: {path.name} does not name the filter of its lines; they are taken "
            f"to be, of each question, {short(', '.join(task.filters))}"
        )
    metric = main_score(task)[0]
    scored = [(f"{task.name}/{row.get('doc_id')}", row.get(metric)) for row in rows]
    result.material.judgements += scored
    twice = repeated(rows)
    questions = len({str(row.get("doc_id")) for row in rows}) if "doc_id" in rows[0] else len(rows)
    if twice:
        result.mismatch(
            f"{task.name}: {twice:,} of the {len(rows):,} lines of {path.name} are about a question "
            "that another line is about",
            {"task": task.name, "lines": len(rows), "repeated": twice},
            "warning",
        )
    elif task.judged is not None and questions != task.judged:
        result.mismatch(
            f"{task.name}: {path.name} has {questions:,} questions, and the results are of "
            f"{task.judged:,}",
            {"task": task.name, "questions": questions, "judged": task.judged},
            "warning",
        )
    wrong = wrong_answers(rows)
    if wrong:
        result.refute(
            f"{task.name}: of {len(wrong):,} of {len(rows):,} questions the stored acc is not what "
            "their log-likelihoods say",
            {
                "task": task.name,
                "questions": len(rows),
                "wrong": len(wrong),
                "examples": wrong[:3],
                "effect": len(wrong) / len(rows),
            },
        )
    return rows


def _check_sums(
    result: Result, task: LmEvalTask, name: str, score: float, error: float | None
) -> None:
    """Without the questions: right answers must be whole, and an error tells of how many it is."""
    implied = None
    if error is not None and error > 1e-9 and 0 < score < 1:
        implied = score * (1 - score) / error**2 + 1
        if task.judged is None and implied < 1e7 and abs(implied - round(implied)) < 0.01:
            task.judged = round(implied)
    if task.judged is None:
        return
    right = score * task.judged
    # Printed in full, a share of right answers is a whole number of them.
    if len(repr(score).partition(".")[2]) > DIGITS and abs(right - round(right)) > 1e-4:
        result.refute(
            f"{name} of {score:.6f} is no whole number of right answers of {task.judged:,}: "
            f"{right:.3f}",
            {"task": task.name, "score": score, "judged": task.judged, "right": right},
        )
    elif implied is not None and abs(implied - task.judged) > max(0.01 * task.judged, 1):
        result.mismatch(
            f"{name}: its standard error of {error:.5f} is that of {round(implied):,} questions, and "
            f"{task.judged:,} are said to have been asked",
            {"task": task.name, "implied": round(implied), "judged": task.judged},
        )


def _check_numbers(result: Result, run: LmEvalRun) -> None:
    """dropped_rows: fewer questions asked than there are; MMLU's subjects together."""
    parts: dict[str, list[LmEvalTask]] = {}
    for task in run.leaves:
        if task.expected is None and task.benchmark in SIZES:
            task.expected = SIZES[task.benchmark]
        if task.judged is None and task.expected is not None and run.limit is not None:
            # lm-eval's limit is a number of questions, or below 1 a share of them.
            most = run.limit if run.limit >= 1 else math.ceil(task.expected * run.limit)
            task.judged = min(int(most), task.expected)
        parts.setdefault(task.benchmark, []).append(task)
    for name, tasks in parts.items():
        sized_tasks = [t for t in tasks if t.judged is not None and t.expected is not None]
        if sum(t.judged or 0 for t in sized_tasks) < sum(t.expected or 0 for t in sized_tasks):
            _dropped(result, name, sized_tasks, run.limit)
        elif run.limit is not None and not sized_tasks:
            result.notes.append(
                f"{name} was run with a limit of {run.limit:g}; how many questions there are is not in "
                "the file"
            )


def _dropped(result: Result, name: str, tasks: list[LmEvalTask], limit: float | None) -> None:
    judged, expected = sum(t.judged or 0 for t in tasks), sum(t.expected or 0 for t in tasks)
    metric = main_score(tasks[0])[0]
    right = math.fsum(main_score(t)[1] * (t.judged or 0) for t in tasks)
    score, low, high = right / judged, right / expected, (right + expected - judged) / expected
    evidence = {
        "task": name,
        "judged": judged,
        "expected": expected,
        "limit": limit,
        "score": score,
    }
    limits: Mapping[str, float | None] = NO_BOUNDS
    message = f"{name}: {judged:,} of the {expected:,} questions were asked"
    if limit is not None:
        message += f" (limit {limit:g})"
    if all(0 <= main_score(t)[1] <= 1 for t in tasks):
        message += (
            f"; over all of them {metric} lies between {low:.3f} and {high:.3f}, over those it is "
            f"{score:.3f}"
        )
        limits = {"lower_bound": low, "upper_bound": high}
    result.add("dropped_rows", "warning", message, {**evidence, **limits})


def _check_groups(result: Result, run: LmEvalRun) -> None:
    """A group's mean, over questions and over tasks; MMLU also where only its subjects are there."""
    groups = dict(run.groups)
    subjects = [name for name, t in run.tasks.items() if t.benchmark == MMLU and name not in groups]
    if subjects and MMLU not in groups:
        groups[MMLU] = subjects
    for group, names in groups.items():
        members = [run.tasks[n] for n in names if n in run.tasks and n not in run.groups]
        group_task = run.tasks.get(group)
        printed_scores = {("acc", "none"): math.nan} if group == MMLU else {}
        for key, printed in (group_task.scores if group_task else printed_scores).items():
            name = _name(group, *key)
            if math.isfinite(printed):
                result.published[name] = printed
            parts = [t for t in members if key in t.scores]
            if len(parts) < 2 or key[0] not in MEANS:
                continue
            values = [result.metrics.get(_name(t.name, *key), t.scores[key]) for t in parts]
            means = [math.fsum(values) / len(values)]
            sizes = [t.judged for t in parts if t.judged]
            if len(sizes) == len(parts):
                weighted = math.fsum(v * n for v, n in zip(values, sizes, strict=True))
                means.insert(0, weighted / sum(sizes))
                result.metrics[f"{name} by questions"] = means[0]
                if len(sizes) < sum(sizes):
                    errors = [t.errors.get(key) for t in parts]
                    result.metrics[f"{name} by questions_stderr"] = pooled(errors, sizes)
            result.metrics[f"{name} by tasks"] = means[-1]
            if math.isfinite(printed):
                result.metrics[name] = min(means, key=lambda v: abs(v - printed))
        # A file that lists no subjects does not say over how many its score is.
        if group == MMLU and 0 < len(names) < SUBJECTS and group_task is not None:
            result.mismatch(
                f"mmlu is over {len(names)} of the {SUBJECTS} subjects: it is not MMLU's score",
                {"subjects": len(names), "expected": SUBJECTS},
                "warning",
            )


def _check_shares(result: Result, run: LmEvalRun) -> None:
    """count_mismatch: an accuracy that is no share of 1."""
    for task in run.tasks.values():
        for (metric, filter_name), score in task.scores.items():
            if metric in MEANS and not 0 <= score <= 1:
                result.refute(
                    f"{_name(task.name, metric, filter_name)} of {score:g} is no share of 1, as "
                    "lm-eval writes it",
                    {"task": task.name, "metric": metric, "given": score},
                )


def _match(result: Result) -> None:
    """Set matches and digits, and count_mismatch where they are not the same; an already found
    contradiction stays."""
    differing = {}
    same = [] if result.matches is None else [result.matches]
    for name, published in result.published.items():
        recomputed = result.metrics.get(name)
        if isinstance(recomputed, float) and isinstance(published, float):
            agree = agreeing_digits(published, recomputed)
            result.digits[name] = agree
            text = repr(published)
            printed = MOST_DIGITS if "e" in text else len(text.partition(".")[2])
            same.append(agree >= min(DIGITS, printed))
            if not same[-1]:
                differing[name] = {"published": published, "recomputed": recomputed}
    result.matches = all(same) if same else None
    if differing:
        parts = [f"{n} {v['published']:.6g} / {v['recomputed']:.6g}" for n, v in differing.items()]
        result.mismatch(
            f"{PurePath(result.path).name} does not follow from what is stored (published / "
            f"recomputed): {', '.join(parts[:EXAMPLES])}"
            + (f" and {len(parts) - EXAMPLES} more" if len(parts) > EXAMPLES else ""),
            {"figures": differing},
        )


READER = Reader(
    "lm_eval",
    looks_for="lm-eval's results (results_*.json, with samples_*.jsonl)",
    findings=frozenset({"confounded", "count_mismatch", "dropped_rows", "empty_or_truncated"}),
    find=find,
)
