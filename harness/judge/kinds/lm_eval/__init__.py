"""lm-eval's tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness.answer.engine import BaseWeights
from harness.artefact.call import StageCall, StageResult
from harness.artefact.needs import Needs
from harness.judge.judge import ModelJudge
from harness.spec.base import Count, Data, Spec
from harness.spec.hub import HubData
from harness.spec.prompts import PromptSet
from harness.spec.twin import PROMPTS, at_most, smoke_data

if TYPE_CHECKING:
    from harness.answer.prompts import Prompt

TASKS = 4
"""Of Open LLM Leaderboard; their average is given only where all are there."""
SMOKE_FOLDERS = {"truthfulqa_mc2": "truthfulqa"}
"""Of tasks whose folder in specs/smoke/tasks has another name."""


class TaskData(Spec):
    """Where a task's questions come from: exactly one of these."""

    folder: Data | None = None
    """A local folder of the data set's files, as on the hub."""
    hub: HubData | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "TaskData":
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give exactly one of folder, hub")
        return self


Task = Literal["arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2"]


class TasksJudge(ModelJudge):
    """Open LLM Leaderboard's tasks by lm-eval, with the leaderboard's shots and metrics. It needs no
    outputs: the model itself is scored."""

    code_version = 2
    packages: ClassVar[tuple[str, ...]] = ("lm-eval", "torch", "transformers")
    few = "few questions of each task"
    kind: Literal["lm_eval"] = "lm_eval"
    tasks: Annotated[dict[Task, TaskData], Field(min_length=1)]
    first: Count | None = None
    """Only the first so many questions of each task (of each subject of mmlu)."""
    batch_size: Count = 16
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count | None = None
    quantization: BaseWeights = "as_trained"
    """Of a QLoRA row's base, as eval.answer.quantization."""

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        return [*self.tasks, *["average"] * (len(self.tasks) == TASKS)]

    def prompts(self, answered: PromptSet | None) -> None:
        return None

    def deviations(self) -> list[str]:
        return ["only a part of each task's questions"] * (self.first is not None)

    def needs(self) -> Needs:
        hubs = {f"task-{name}": data.hub for name, data in self.tasks.items() if data.hub}
        return replace(super().needs(), hub=hubs)

    def check(self, prompts: "Sequence[Prompt]", snapshots: Mapping[str, str]) -> None:
        from harness.judge.kinds.lm_eval.benchmarks import MMLU
        from harness.judge.kinds.lm_eval.data import read_task

        for name, data in self.tasks.items():
            # Which subjects MMLU has, only lm-eval knows, and importing it takes long.
            if name != MMLU and (data.folder is not None or f"task-{name}" in snapshots):
                read_task(name, data, snapshots, ())

    def twin(self, smoke: Path) -> Self:
        folders = {name: smoke / "tasks" / SMOKE_FOLDERS.get(name, name) for name in self.tasks}
        tasks = {name: TaskData(folder=smoke_data(folder)) for name, folder in folders.items()}
        few = {"tasks": tasks, "first": at_most(self.first, PROMPTS)}
        return super().twin(smoke).model_copy(update=few)

    def run(self, call: StageCall) -> StageResult:
        from harness.judge.kinds.lm_eval.judge import run

        return run(call, self)
