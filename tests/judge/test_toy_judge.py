"""A kind of judge that no module of harness knows of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import pytest

from harness.answer.prompts import Prompt
from harness.artefact.call import StageCall, StageResult
from harness.artefact.keys import Files
from harness.artefact.manifest import MetricValue
from harness.artefact.needs import Needs
from harness.errors import InputError
from harness.judge.judge import BaseJudge, prompts_of, with_sets
from harness.llm.estimate import Estimate
from harness.results.matrix import deviations
from harness.results.verdict.evidence import bounds_of
from harness.row.load import LoadedRow, load_rows
from harness.row.twin import scaled
from harness.run import ready
from harness.run.executors import gpus_of
from harness.run.plan import RowPlan, dump
from harness.spec.base import Endpoint
from harness.spec.prompts import PromptSet
from tests.helpers import evaluation, planner, write_row


class ToyJudge(BaseJudge):
    """Counts words."""

    code_version = 7
    kind: Literal["toy"] = "toy"
    most: int = 10

    def metrics(self, prompts: PromptSet | None) -> list[str]:
        return with_sets(["words"], prompts)

    def range_of(self, metric: str) -> tuple[int, int] | None:
        return (0, self.most) if metric == "words" else None

    def deviations(self) -> list[str]:
        return ["words are counted"]

    def needs(self) -> Needs:
        return Needs(endpoints=[Endpoint(model="counter")], gpus=3)

    def estimate(
        self, prompts: PromptSet | None, files: Files, answer: int | None = None
    ) -> Estimate:
        return Estimate(calls=11)

    def check(self, prompts: Sequence[Prompt], snapshots: Mapping[str, str]) -> None:
        if len(prompts) > self.most:
            raise InputError(f"{len(prompts)} prompts are too many")

    def twin(self, smoke: Path) -> Self:
        return self.model_copy(update={"most": 20})

    def replaced_in_twin(self) -> Iterator[str]:
        yield "other words"

    def run(self, call: StageCall) -> StageResult:
        assert prompts_of(call).file is not None
        return StageResult(keep=[], metrics={"words": MetricValue(value=3.0)})


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedRow:
    """A row judged by the toy, which is in no union."""
    (loaded,) = load_rows([write_row(tmp_path, eval=evaluation(tmp_path))])
    assert loaded.row.eval is not None
    judged = loaded.row.eval.model_copy(update={"judge": ToyJudge(most=0)})
    return replace(loaded, row=loaded.row.model_copy(update={"eval": judged}))


def plan(loaded: LoadedRow) -> RowPlan:
    planned: RowPlan = planner(loaded.path.parent / "runs").plan(loaded)
    return planned


def test_a_row_gives_the_metrics_bounds_and_deviations_of_its_judge(loaded: LoadedRow) -> None:
    assert loaded.row.metrics()[0] == "words"
    assert bounds_of(loaded.row, "words/koala") == (0, 0)
    assert deviations(loaded.row)[-1] == "words are counted"


def test_a_plan_has_the_code_version_endpoint_calls_and_gpus_of_its_judge(
    loaded: LoadedRow,
) -> None:
    (stage,) = plan(loaded).final()
    assert stage.document["code_version"] == 7
    assert stage.endpoints == [Endpoint(model="counter")]
    assert stage.estimate.calls == 11
    assert gpus_of(stage.stage, stage.params) == 3


def test_a_check_beforehand_is_the_judges_own(loaded: LoadedRow) -> None:
    with pytest.raises(InputError, match="row one: 1 prompts are too many"):
        ready.check(plan(loaded), Files(None, None))


def test_a_twin_is_the_judges_own_and_says_what_it_replaces(loaded: LoadedRow) -> None:
    twin = scaled(loaded).row
    assert twin.eval is not None
    assert twin.eval.judge == ToyJudge(most=20)
    assert "other words" in twin.deviations[-1]


def test_a_planned_stage_runs_the_judges_own_code(loaded: LoadedRow, tmp_path: Path) -> None:
    (stage,) = plan(loaded).final()
    params = dump(stage.params, lambda data: data.path)
    call = StageCall("judge", stage.key, params, inputs={}, work=str(tmp_path))
    assert stage.params["judge"].run(call).metrics == {"words": MetricValue(value=3.0)}
