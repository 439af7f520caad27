"""lm-eval's tasks."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails

from harness.answer.engine import BaseWeights
from harness.artefact.call import StageCall, StageResult
from harness.artefact.needs import Needs
from harness.errors import InputError
from harness.judge.judge import ModelJudge
from harness.judge.kinds.lm_eval import catalogue
from harness.judge.kinds.lm_eval.benchmarks import AVERAGE, BENCHMARKS
from harness.spec.base import Count, Data, DataPath, Name, Spec
from harness.spec.hub import HubData
from harness.spec.prompts import PromptSet
from harness.spec.twin import PROMPTS, at_most, smoke_data

if TYPE_CHECKING:
    from harness.answer.prompts import Prompt

ISSUES = {"unsafe_code": "runs the code that a model writes", "class": "is Python of its own",
          "doc_to_image": "shows images", "doc_to_audio": "plays sounds"}  # fmt: skip
"""What a task's file says of what is not done here, in words."""
SMOKE_FOLDERS = {"truthfulqa_mc2": "truthfulqa", "arc_easy": "arc_challenge"}
"""Of tasks whose folder in specs/smoke/tasks has another name."""
SMOKE_TASKS = ("arc_challenge", "arc_easy", "gsm8k", "hellaswag", "truthfulqa_mc2")
"""Tasks of the package with made-up questions there."""
FILE_KEYS = {"path", "url", "sha256"}
"""Of a mapping that says where one file is; another's keys are names of splits."""
STAND_IN = "gsm8k"
"""The twin's where none of a row's tasks has made-up questions."""


def check_packages(entry: catalogue.Entry) -> None:
    """Raises InputError where a task needs a package that is not installed."""
    for task in catalogue.tasks_of(entry):
        if lacking := task.lacking():
            raise InputError(
                f"lm-eval's task {task.name} needs {' and '.join(lacking)}, which "
                f"{'is' if len(lacking) == 1 else 'are'} not installed",
                f"pip install {' '.join(lacking)}",
            )


class TaskData(Spec):
    """Where a task's questions come from: exactly one of these."""

    folder: Data | None = None
    """A local folder of the data set's files, as on the hub."""
    hub: HubData | None = None
    """The data set on the hub, at a fixed revision."""

    @model_validator(mode="after")
    def _one_place(self) -> "TaskData":
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give exactly one of folder, hub")
        return self


def _files_kind(value: Any) -> str:
    return "splits" if isinstance(value, dict) and not value.keys() & FILE_KEYS else "file"


TaskFiles = Annotated[
    Annotated[Data, Tag("file")] | Annotated[dict[Name, Data], Tag("splits")],
    Discriminator(_files_kind),
]


class PackageTask(Spec):
    """Any task or group of the installed package, as the package defines it, with what is another here.
    Its questions are in `data`, `folder` or on the `hub`; left open, in `data:NAME` (of `--inputs`)."""

    data: TaskFiles | None = None
    """The file of the questions; or a file for each split by name: {test: ..., train: ...}."""
    folder: Data | None = None
    """A local folder of the data set's files, as on the hub. Of a group one data set for all."""
    hub: HubData | None = None
    """The data set on the hub, at a fixed revision. Of a group one data set for all."""
    shots: Annotated[int, Field(ge=0)] | None = None
    """Left open: the package's, which of most tasks is none."""
    metric: str | None = None
    """The only one to be told: `acc_norm`, `exact_match` or `exact_match/flexible-extract`."""
    limit: Count | None = None
    """Only the first so many questions, of each task of a group."""
    chat_template: bool = False
    """Whether questions are put as chats by the tokenizer's template (--apply_chat_template)."""
    max_new_tokens: Count | None = None
    """Of an answer, where the task leaves it open; left open here too: the package's 256."""

    @property
    def place(self) -> Data | None:
        data = self.data if isinstance(self.data, DataPath) else None
        return self.folder if self.folder is not None else data

    @property
    def files(self) -> dict[str, Data] | None:
        return self.data if isinstance(self.data, dict) else None

    @model_validator(mode="after")
    def _one_place(self) -> "PackageTask":
        if sum(place is not None for place in (self.data, self.folder, self.hub)) > 1:
            raise ValueError("give one of data, folder, hub")
        return self


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return "place" if value and value.keys() <= {"folder", "hub"} else "task"
    return "place" if isinstance(value, TaskData) else "task"


Task = Annotated[
    Annotated[TaskData, Tag("place")] | Annotated[PackageTask, Tag("task")], Discriminator(_kind_of)
]


def _null_as_empty(value: Any) -> Any:
    """YAML reads `ifeval:` as null."""
    if not isinstance(value, dict):
        return value
    return {name: {} if task is None else task for name, task in value.items()}


def _by_name(tasks: "dict[str, TaskData | PackageTask]") -> "dict[str, TaskData | PackageTask]":
    """The leaderboard's four with nothing but their data are its; all others the package's own."""
    checked = {}
    faults: list[InitErrorDetails] = []
    for name, task in tasks.items():
        try:
            checked[name] = _checked(name, task)
        except ValueError as e:
            faults.append(
                {"type": "value_error", "loc": (name,), "input": name, "ctx": {"error": e}}
            )
    if faults:  # each in its own place
        raise ValidationError.from_exception_data("tasks", faults)
    _check_overlap([name for name, task in checked.items() if isinstance(task, PackageTask)])
    return checked


def _check_overlap(names: list[str]) -> None:
    """Raises ValueError where a task of the package would be run twice: its files have its name."""
    first: dict[str, str] = {}
    for name in names:
        entry = catalogue.find(name)
        for unit in dict.fromkeys(t.name for t in catalogue.tasks_of(entry)) if entry else ():
            if first.setdefault(unit, name) != name:
                raise ValueError(
                    f"lm-eval's task {unit} is asked for twice, by {first[unit]} and by {name}, and "
                    "its scores would have one name: leave one of the two out, or to another row"
                )


def _checked(name: str, task: "TaskData | PackageTask") -> "TaskData | PackageTask":
    if isinstance(task, TaskData):
        if name in BENCHMARKS:
            return task
        task = PackageTask(folder=task.folder, hub=task.hub)
    if task.place is None and task.files is None and task.hub is None:
        task = task.model_copy(update={"data": DataPath(path=f"data:{name}")})
    if catalogue.package_folder() is not None:
        _check_name(name, task)
    return task


def _check_name(name: str, task: PackageTask) -> None:
    entry = catalogue.find(name)
    if entry is None:
        near = catalogue.nearest(name)
        advice = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"lm-eval has no task {name!r}{advice}")
    for each in catalogue.tasks_of(entry):
        for issue, words in ISSUES.items():
            if each.config.get(issue):
                raise ValueError(f"{name} cannot be run: lm-eval's task {each.name} {words}")
        if task.shots and each.config.get("num_fewshot") == 0:
            raise ValueError(f"{name}: lm-eval sets {each.name} to no shots, whatever is asked for")
    if task.max_new_tokens and not _writes(entry):
        raise ValueError(
            f"{name}: max_new_tokens is of answers that the model writes, and this task of lm-eval's "
            "scores what is given"
        )
    names = _given(name, entry)
    if task.metric is not None and names is not None and not _chosen(names, task.metric):
        plain = list(dict.fromkeys(n.partition("/")[2] for n in names))
        near = difflib.get_close_matches(task.metric, plain, n=1)
        advice = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(
            f"{name}: lm-eval's task gives no metric {task.metric!r}{advice} It gives: "
            f"{', '.join(plain)}"
        )


def _writes(entry: catalogue.Entry) -> bool:
    """Whether the model writes an answer to any of the questions."""
    kinds = (each.config.get("output_type") for each in catalogue.tasks_of(entry))
    return any(kind in (None, "generate_until") for kind in kinds)


def _given(name: str, entry: catalogue.Entry) -> list[str] | None:
    """The names of a task's metrics, `TASK/METRIC`; of a group without a score its members'. None where
    only a run shows them."""
    metrics = entry.metrics()
    if metrics is None:
        return None
    if metrics or entry.is_task:
        return [f"{name}/{metric}" for metric in metrics]
    members = [(member, catalogue.find(member)) for member in entry.members]
    parts = [_given(member, found) for member, found in members if found is not None]
    return None if None in parts else [metric for part in parts for metric in part or []]


def _chosen(names: list[str], metric: str | None) -> list[str]:
    """Those of the metric; `exact_match` is that of every filter."""
    if metric is None:
        return names
    return [n for n in names if f"{n.partition('/')[2]}/".startswith(f"{metric}/")]


class TasksJudge(ModelJudge):
    """lm-eval's tasks: Open LLM Leaderboard's four with its shots and metrics, and any other of the
    package as the package has it. It needs no outputs: the model itself is scored."""

    code_version = 2
    packages: ClassVar[tuple[str, ...]] = ("lm-eval", "torch", "transformers")
    few = "few questions of each task"
    kind: Literal["lm_eval"] = "lm_eval"
    tasks: Annotated[
        dict[Name, Task],
        Field(min_length=1),
        BeforeValidator(_null_as_empty),
        AfterValidator(_by_name),
    ]
    """Task's name -> its settings; none: as the package has it."""
    first: Count | None = None
    """Only the first so many questions of each task (of each subject of mmlu) without a limit."""
    batch_size: Count = 16
    """Requests that go through the model at a time."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the weights and of the arithmetic."""
    threads: Count | None = None
    """On a CPU: threads of one operation. Left open: as many as the stage's share of the machine
    has."""
    quantization: BaseWeights = "as_trained"
    """Of a QLoRA row's base, as eval.answer.quantization."""

    @property
    def leaderboard(self) -> dict[str, TaskData]:
        return {name: task for name, task in self.tasks.items() if isinstance(task, TaskData)}

    @property
    def package_tasks(self) -> dict[str, PackageTask]:
        return {name: task for name, task in self.tasks.items() if isinstance(task, PackageTask)}

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        names = [*self.leaderboard, *[AVERAGE] * (self.leaderboard.keys() == BENCHMARKS.keys())]
        for name, task in self.package_tasks.items():
            entry = catalogue.find(name)
            given = _given(name, entry) if entry is not None else None
            names += _chosen(given or [f"{name}/{task.metric}"] * bool(task.metric), task.metric)
        return names

    def may_give(self, metric: str) -> bool:
        """Whether only a run, or the package where it is installed, shows it."""
        for name in self.package_tasks:
            entry = catalogue.find(name)
            if entry is None and metric.startswith(f"{name}/"):
                return True
            if entry is not None and _given(name, entry) is None:
                return metric.partition("/")[0] in {
                    name,
                    *(t.name for t in catalogue.tasks_of(entry)),
                }
        return False

    def limit(self, task: PackageTask) -> int | None:
        return task.limit if task.limit is not None else self.first

    def prompts(self, answered: PromptSet | None) -> None:
        return None

    def deviations(self) -> list[str]:
        limits = [self.first, *(task.limit for task in self.package_tasks.values())]
        return ["only a part of each task's questions"] * any(limits)

    def needs(self) -> Needs:
        hubs = {f"task-{name}": data.hub for name, data in self.tasks.items() if data.hub}
        return replace(super().needs(), hub=hubs)

    def check(self, prompts: "Sequence[Prompt]", snapshots: Mapping[str, str]) -> None:
        from harness.judge.kinds.lm_eval.benchmarks import MMLU
        from harness.judge.kinds.lm_eval.data import read_package_task, read_task

        for name, data in self.leaderboard.items():
            # Which subjects MMLU has, only lm-eval knows, and importing it takes long.
            if name != MMLU and (data.folder is not None or f"task-{name}" in snapshots):
                read_task(name, data, snapshots, ())
        for name, task in self.package_tasks.items():
            entry = catalogue.find(name)
            if entry is None:
                continue
            check_packages(entry)
            if task.hub is None or f"task-{name}" in snapshots:
                limited = task.model_copy(update={"limit": self.limit(task)})
                read_package_task(entry, limited, snapshots)

    def twin(self, smoke: Path) -> Self:
        tasks: dict[str, TaskData | PackageTask] = {}
        for name, task in self.tasks.items():
            folder = smoke / "tasks" / SMOKE_FOLDERS.get(name, name)
            if isinstance(task, TaskData):
                tasks[name] = TaskData(folder=smoke_data(folder))
            elif name in SMOKE_TASKS:
                small = {
                    "data": None,
                    "hub": None,
                    "folder": smoke_data(folder),
                    "max_new_tokens": 8 if name == STAND_IN else None,
                }
                tasks[name] = task.model_copy(update=small)
        if not tasks:
            tasks = {STAND_IN: PackageTask(folder=smoke_data(smoke / "tasks" / STAND_IN))}
        few = {"tasks": tasks, "first": at_most(self.first, PROMPTS)}
        return super().twin(smoke).model_copy(update=few)

    def replaced_in_twin(self) -> Iterator[str]:
        yield from super().replaced_in_twin()
        if left_out := [name for name in self.package_tasks if name not in SMOKE_TASKS]:
            yield f"tasks without made-up questions are left out: {', '.join(left_out)}"

    def run(self, call: StageCall) -> StageResult:
        from harness.judge.kinds.lm_eval.judge import run

        return run(call, self)
