"""The judge `lm_eval`: tasks by lm-eval's own definitions, on local data.

Of Open LLM Leaderboard's four each question's log-likelihoods are kept (samples_TASK.jsonl, a file for
each of lm-eval's tasks, so of each of MMLU's subjects), and every score is computed from them;
lm-eval's own scores must be the same. Of any other task what is kept is said in package_tasks.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.answer.row_model import account_of, base_of, load_row_model
from harness.artefact import events
from harness.artefact.call import StageCall, StageResult
from harness.artefact.events import Progress
from harness.artefact.manifest import Finding, MetricValue
from harness.common.device_faults import memory_for, smaller_batch
from harness.common.text_files import read_lines
from harness.data.dataset import write_rows
from harness.errors import InputError
from harness.judge.kinds.lm_eval import PackageTask, TasksJudge, catalogue, check_packages
from harness.judge.kinds.lm_eval.benchmarks import (
    AVERAGE,
    BENCHMARKS,
    MMLU,
    SUBJECTS,
    benchmark_of,
)
from harness.judge.kinds.lm_eval.data import Questions, read_package_task, read_task
from harness.judge.kinds.lm_eval.scores import (
    Sample,
    metrics_of,
    rescored,
    underflows,
    unit_results,
)
from harness.modeling.load import available_device, load_tokenizer
from harness.spec.model_source import ModelSource

if TYPE_CHECKING:
    from harness.judge.kinds.lm_eval.package import Scorer

RESULTS = "results.json"
LEADERBOARD = "EleutherAI/lm-evaluation-harness b281b092"
"""What the first leaderboard's page says it ran; its task definitions were written anew since."""
MANY = 1000
"""Questions whose prompts take lm-eval so long to write that it is said."""
SETTINGS = ("lm_eval", "shots_seed", "tasks")
"""What results.json holds beside scores: facts of the run, which no score is computed from."""
PACKAGE_TASKS = "package_tasks"
"""The like of the package's own tasks, where a row has any."""


def run(call: StageCall, judge: TasksJudge) -> StageResult:
    """Score the model of the call on every task that the judge names.

    Raises:
        InputError: a task's data or the model cannot be used as it stands.
        HarnessError: the model gives no number, or lm-eval's scores and ours differ.
    """
    if call.replay:
        result = _replayed(call, judge)
        result.deviations += base_of(call).deviations
        return result
    import torch

    if judge.threads is not None:
        torch.set_num_threads(judge.threads)
    from harness.judge.kinds.lm_eval import package

    subjects = package.mmlu_subjects() if MMLU in judge.leaderboard else []
    questions = [
        each
        for name, data in judge.leaderboard.items()
        for each in read_task(name, data, call.inputs, subjects)
    ]
    tasks = package.load_tasks(questions) if questions else {}
    package_runs = [
        _PackageRun.of(name, task, judge, call) for name, task in judge.package_tasks.items()
    ]
    count = sum(each.asked(judge.first) for each in questions)
    progress = Progress("judge", count + sum(run.asked for run in package_runs), "questions")
    progress.show(0)  # before the model is loaded and the prompts are written
    source = ModelSource.model_validate(call.params["model"])
    device = available_device()
    tokenizer = load_tokenizer(source, call.inputs)
    model, base = load_row_model(call, source, tokenizer, judge.precision, device)
    lm = package.Scorer(model, tokenizer, judge.batch_size)

    started = time.monotonic()
    samples = _score_all(call.folder, lm, tasks, questions, judge, progress)
    for package_run in package_runs:
        package_run.score(call.folder, lm, judge, progress, count)
        count += package_run.asked
    seconds = time.monotonic() - started
    settings = {
        "lm_eval": version("lm-eval"),
        "shots_seed": package.SHOTS_SEED,
        "tasks": {
            each.unit: {
                "version": tasks[each.unit].VERSION,
                "shots": each.benchmark.shots,
                "metric": each.benchmark.metric,
                "questions": len(each.splits[each.benchmark.split]),
            }
            for each in questions
        },
    }
    result = _result(call.folder, samples, settings, package_runs)
    result.add(base)
    result.add(account_of(call, source, model, device, seconds))
    result.used["context"] = lm.max_length
    return result


def _score_all(
    folder: Path,
    lm: "Scorer",
    tasks: dict[str, Any],
    questions: list[Questions],
    judge: TasksJudge,
    progress: Progress,
) -> dict[str, list[Sample]]:
    """The samples of every task; what an interrupted run finished is read, not computed."""
    from harness.judge.kinds.lm_eval import package

    first = judge.first
    way_out = smaller_batch("eval.judge.batch_size", judge.batch_size, judge.precision)
    samples: dict[str, list[Sample]] = {}
    for each in questions:
        unit = each.unit
        before = sum(map(len, samples.values()))
        done = 0

        def count(scored: int, before: int = before, unit: str = unit) -> None:
            nonlocal done
            done += scored
            progress.show(before + done, at=unit)

        path = folder / _samples_file(unit)
        if path.exists():
            samples[unit] = _read_samples(path)
        else:
            if each.asked(first) > MANY:
                events.note(f"{unit}: lm-eval writes the prompts of {each.asked(first)} questions")
            lm.kept, lm.on_done = folder / f"{unit}.jsonl", count
            with memory_for(f"scoring a batch of task {unit}", way_out):
                samples[unit] = package.evaluate_task(lm, unit, tasks[unit], first)
            write_rows(path, samples[unit])
        if done < len(samples[unit]):
            progress.show(before + len(samples[unit]), at=unit)
    return samples


def _replayed(call: StageCall, judge: TasksJudge) -> StageResult:
    """The scores again, from the recorded log-likelihoods."""
    recorded = Path(call.inputs["recorded"])
    settings = json.loads((recorded / RESULTS).read_text(encoding="utf-8"))
    samples = {
        unit: [rescored(s) for s in _read_samples(recorded / _samples_file(unit))]
        for unit in settings["tasks"]
    }
    for unit, rows in samples.items():
        write_rows(call.folder / _samples_file(unit), rows)
    runs = [
        _PackageRun.replayed(name, task, recorded, settings[PACKAGE_TASKS][name])
        for name, task in judge.package_tasks.items()
    ]
    return _result(call.folder, samples, {name: settings[name] for name in SETTINGS}, runs)


@dataclass
class _PackageRun:
    """One of the package's own tasks, or a group of them. `facts`: what results.json says of it."""

    name: str
    task: PackageTask
    entry: catalogue.Entry
    facts: dict[str, Any]
    loaded: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, task: PackageTask, judge: TasksJudge, call: StageCall) -> "_PackageRun":
        """Raises InputError where its data are not what it needs."""
        from harness.judge.kinds.lm_eval import package_tasks

        entry = catalogue.find(name)
        if entry is None:
            raise InputError(f"lm-eval has no task {name!r}")
        check_packages(entry)
        limited = task.model_copy(update={"limit": judge.limit(task)})
        questions = read_package_task(entry, limited, call.inputs)
        loaded = package_tasks.load(entry, limited, questions)
        units = {
            unit: {
                "version": made.VERSION,
                "shots": made.get_config("num_fewshot"),
                "questions": len(made.eval_docs),
            }
            for unit, made in loaded["tasks"].items()
        }
        return cls(name, limited, entry, {"limit": limited.limit, "units": units}, loaded)

    @classmethod
    def replayed(
        cls, name: str, task: PackageTask, recorded: Path, facts: dict[str, Any]
    ) -> "_PackageRun":
        from harness.judge.kinds.lm_eval import package_tasks

        entry = catalogue.find(name)
        if entry is None:
            raise InputError(f"lm-eval has no task {name!r}: its scores cannot be made again")
        rows = {u: _read_samples(recorded / catalogue.responses_file(u)) for u in facts["units"]}
        results, rows = package_tasks.replayed(entry, rows)
        return cls(name, task, entry, facts, {}, results, rows)

    @property
    def asked(self) -> int:
        limit = self.facts["limit"]
        totals = [unit["questions"] for unit in self.facts["units"].values()]
        return sum(total if limit is None else min(limit, total) for total in totals)

    def score(
        self, folder: Path, lm: "Scorer", judge: TasksJudge, progress: Progress, before: int
    ) -> None:
        """Raises HarnessError where the model gives no number."""
        from harness.judge.kinds.lm_eval import package_tasks

        if self.task.chat_template and not lm.tokenizer.chat_template:
            raise InputError(
                f"task {self.name}: the model's tokenizer brings no chat template",
                "Leave chat_template out: the questions are then put as plain text.",
            )
        done = 0

        def count(scored: int) -> None:
            nonlocal done
            done += scored
            share = min(1.0, done / max(1, lm.groups))
            progress.show(before + round(share * self.asked), at=self.name)

        lm.kept, lm.on_done, lm.cut = folder / f"package_{self.name}.jsonl", count, []
        way_out = smaller_batch("eval.judge.batch_size", judge.batch_size, judge.precision)
        with memory_for(f"scoring a batch of task {self.name}", way_out):
            self.results = package_tasks.evaluated(
                lm, self.loaded, self.task.limit, self.task.chat_template
            )
        self.facts["cut"] = sum(lm.cut)
        self.rows = {u: package_tasks.rows_of(s) for u, s in self.results["samples"].items()}
        progress.show(before + self.asked, at=self.name)

    def add_to(self, folder: Path, result: StageResult) -> dict[str, Any]:
        """Write its responses, and add its scores; returns those that results.json has."""
        from harness.judge.kinds.lm_eval import package_tasks

        for unit, rows in self.rows.items():
            package_tasks.write_rows(folder / catalogue.responses_file(unit), rows)
            result.keep.append(catalogue.responses_file(unit))
        metrics, notes = package_tasks.metrics_of(
            self.name, self.entry, self.task.metric, self.results
        )
        result.metrics |= {n: MetricValue.from_json(metric) for n, metric in metrics.items()}
        result.notes += notes
        result.counts["questions"] += self.asked
        result.used["tasks"][self.name] = self.facts["units"]
        total = sum(unit["questions"] for unit in self.facts["units"].values())
        if self.asked < total:
            result.deviations.append(
                f"{self.name}: only the first {self.asked} of the {total} questions were asked"
            )
        if self.facts["cut"]:
            prompts = sum(len(row["responses"]) for rows in self.rows.values() for row in rows)
            a_choice = " (one for each choice)" if prompts > self.asked else ""
            result.findings.append(
                Finding(
                    "empty_or_truncated",
                    "warning",
                    f"{self.name}: {self.facts['cut']} of the {prompts} prompts of {self.asked} "
                    f"questions{a_choice} are longer than the model takes with an answer; their "
                    "beginning was cut off, as lm-eval does",
                    {"task": self.name, "cut": self.facts["cut"], "questions": self.asked},
                )
            )
        scores = {unit: self.results["results"][unit] for unit in self.facts["units"]}
        return {**self.facts, "metrics": metrics, "results": scores}


def _result(
    folder: Path,
    samples: dict[str, list[Sample]],
    settings: dict[str, Any],
    package_runs: Sequence[_PackageRun] = (),
) -> StageResult:
    results = unit_results(samples)
    result = _leaderboard_result(samples, settings, results)
    content = {**settings, "scores": metrics_of(results), "results": results}
    if package_runs:
        content[PACKAGE_TASKS] = {run.name: run.add_to(folder, result) for run in package_runs}
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    (folder / RESULTS).write_text(text, encoding="utf-8")
    return result


def _leaderboard_result(
    samples: dict[str, list[Sample]], settings: dict[str, Any], results: dict[str, dict[str, Any]]
) -> StageResult:
    metrics = metrics_of(results)
    rows = [row for each in samples.values() for row in each]
    return StageResult(
        keep=[RESULTS, *map(_samples_file, samples)],
        metrics={name: MetricValue.from_json(metric) for name, metric in metrics.items()},
        counts={
            "questions": len(rows),
            "choices": sum(len(row["log_likelihoods"]) for row in rows),
            "cut_choices": sum(row["cut"] for row in rows),
            "cut_questions": sum(row["cut"] > 0 for row in rows),
        },
        used={
            "lm_eval": settings["lm_eval"],
            "tasks": {
                name: {"version": _versions(name, settings), **BENCHMARKS[name]._asdict()}
                for name in metrics
                if name != AVERAGE
            },
        },
        seeds={"shots": settings["shots_seed"]},
        deviations=_deviations(samples, settings, metrics),
        findings=_findings(samples, metrics),
    )


def _versions(name: str, settings: dict[str, Any]) -> Any:
    """lm-eval's version of a task; of MMLU that of its subjects."""
    versions = {t["version"] for unit, t in settings["tasks"].items() if benchmark_of(unit) == name}
    return versions.pop() if len(versions) == 1 else sorted(versions)


def _deviations(
    samples: dict[str, list[Sample]], settings: dict[str, Any], metrics: dict[str, Any]
) -> list[str]:
    deviations = []
    if samples:
        deviations.append(
            f"tasks as lm-eval {settings['lm_eval']} has them; the leaderboard ran {LEADERBOARD}"
        )
    for name in BENCHMARKS:
        units = [unit for unit in samples if benchmark_of(unit) == name]
        count = sum(len(samples[unit]) for unit in units)
        total = sum(settings["tasks"][unit]["questions"] for unit in units)
        if count < total:
            deviations.append(f"{name}: only the first {count} of the {total} questions were asked")
    subjects = metrics.get(MMLU, {}).get("subjects", SUBJECTS)
    if subjects < SUBJECTS:
        deviations.append(
            f"mmlu is over {subjects} of the {SUBJECTS} subjects: it is not MMLU's score"
        )
    return deviations


def _findings(samples: dict[str, list[Sample]], metrics: dict[str, Any]) -> list[Finding]:
    findings = []
    cut: dict[str, int] = {}
    for unit, rows in samples.items():
        name = benchmark_of(unit)
        cut[name] = cut.get(name, 0) + sum(row["cut"] > 0 for row in rows)
    for name, count in cut.items():
        if count:
            questions = metrics[name]["judged"]
            findings.append(
                Finding(
                    "empty_or_truncated",
                    "warning",
                    f"{name}: of {count} of {questions} questions the prompt with its "
                    f"{BENCHMARKS[name].shots} shots is longer than the model takes; its beginning "
                    "was cut off, as lm-eval does",
                    {"task": name, "cut": count, "questions": questions},
                )
            )
    unlikely = sum(underflows(row) for rows in samples.values() for row in rows)
    if unlikely:
        findings.append(
            Finding(
                "underflow",
                "info",
                f"truthfulqa_mc2: to all choices of {unlikely} questions the model gives "
                "so little probability that lm-eval's own formula has no number for them; the same "
                "formula with a common factor taken out was used",
                {"task": "truthfulqa_mc2", "questions": unlikely},
            )
        )
    return findings


def _samples_file(unit: str) -> str:
    return f"samples_{unit}.jsonl"


def _read_samples(path: Path) -> list[Sample]:
    return [json.loads(line) for line in read_lines(path)]
