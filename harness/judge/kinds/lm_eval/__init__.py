"""lm-eval's tasks."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.answer.engine import BaseWeights
from harness.spec.base import Count, Data, Spec
from harness.spec.hub import HubData


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


class TasksJudge(Spec):
    """Open LLM Leaderboard's tasks by lm-eval, with the leaderboard's shots and metrics. It needs no
    outputs: the model itself is scored."""

    kind: Literal["lm_eval"] = "lm_eval"
    tasks: Annotated[dict[Task, TaskData], Field(min_length=1)]
    first: Count | None = None
    """Only the first so many questions of each task (of each subject of mmlu)."""
    batch_size: Count = 16
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count | None = None
    quantization: BaseWeights = "as_trained"
    """Of a QLoRA row's base, as eval.answer.quantization."""
