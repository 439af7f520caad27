"""A recipe that stands nowhere but here is planned, estimated, checked, scaled down and run: what is
known of a recipe stands in its class, and nothing else has to know of it."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import pytest

from harness import stage as stage_module
from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.artefact.needs import Needs
from harness.data import dataset
from harness.data.dataset import DatasetExample
from harness.data.dropped import Tally
from harness.errors import InputError
from harness.gen import run as gen_stage
from harness.gen.recipe import Recipe, RecipeResult, ReplySource
from harness.gen.recipes.choose import RandomGen
from harness.llm.estimate import Estimate
from harness.row.load import LoadedRow, load_rows
from harness.row.twin import scaled
from harness.run import ready
from harness.run.plan import RowPlan, StagePlan, dump
from harness.spec.base import Data, Endpoint
from harness.spec.hub import HubData
from harness.spec.twin import smoke_data
from tests.helpers import planner, write_row

LINES = HubData(id="toys/lines", revision="a" * 40)


class LinesGen(Recipe):
    """Each line of a file, translated by a judge."""

    code_version: ClassVar[int] = 7
    makes_examples: ClassVar[bool] = True
    estimates_limit: ClassVar[bool] = True
    recipe: Literal["lines"] = "lines"
    file: Data
    judge: Endpoint

    @property
    def lines(self) -> list[str]:
        return Path(self.file.path).read_text().split()

    @property
    def reply_source(self) -> ReplySource:
        return ReplySource("judge", self.judge, None)

    def make(self, call: StageCall, input_examples: list[DatasetExample]) -> RecipeResult:
        examples = [DatasetExample(line, line, output=line) for line in self.lines]
        step = Tally("lines", "lines", len(examples))
        return RecipeResult(examples, [step], client=Client())

    def estimate(self, files: Files, examples: int) -> Estimate:
        return Estimate(calls=len(self.lines), examples=len(self.lines))

    def check(self, snapshots: dict[str, str]) -> None:
        if "bad" in self.lines:
            raise InputError("a bad line")

    def needs(self) -> Needs:
        return replace(super().needs(), hub={"lines": LINES})

    def twin(self, smoke: Path) -> Self:
        return super().twin(smoke).model_copy(update={"file": smoke_data(smoke / "seeds.jsonl")})


class Client:
    served_models: ClassVar[list[str]] = ["toy"]
    simulated = True

    def cost(self) -> dict[str, float]:
        return {"calls": 2}


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedRow:
    """A row that makes two lines with the recipe and draws two of them."""
    [row] = load_rows([write_row(tmp_path, train=None)])
    (tmp_path / "lines.txt").write_text("one two")
    lines = LinesGen(file=smoke_data(tmp_path / "lines.txt"), judge=Endpoint(model="toy"))
    return replace(row, row=row.row.model_copy(update={"gen": [lines, RandomGen(k=2)]}))


def plan(loaded: LoadedRow, tmp_path: Path) -> RowPlan:
    result: RowPlan = planner(tmp_path / "runs").plan(loaded)
    return result


def first(loaded: LoadedRow, tmp_path: Path) -> StagePlan:
    return plan(loaded, tmp_path).stages[0]


def test_its_code_version_and_its_fields_are_in_its_key(
    loaded: LoadedRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = first(loaded, tmp_path)
    assert before.document["code_version"] == 7
    assert before.document["params"]["gen"]["recipe"] == "lines"
    monkeypatch.setattr(LinesGen, "code_version", 8)
    assert first(loaded, tmp_path).key != before.key


def test_its_calls_its_endpoint_and_its_hub_data_are_planned(
    loaded: LoadedRow, tmp_path: Path
) -> None:
    planned = first(loaded, tmp_path)
    assert planned.estimate == Estimate(calls=2, examples=2)
    assert planned.endpoints == [Endpoint(model="toy")]
    assert planned.pays
    assert planned.hub_sets() == {"lines": LINES}


def test_its_faults_are_told_before_it_runs(loaded: LoadedRow, tmp_path: Path) -> None:
    files = Files(None, None)
    ready.check(plan(loaded, tmp_path), files)
    (tmp_path / "lines.txt").write_text("one bad")
    with pytest.raises(InputError, match="row one: a bad line"):
        ready.check(plan(loaded, tmp_path), files)
    (tmp_path / "lines.txt").write_text("one")
    with pytest.raises(InputError, match="random_k asks for 2 examples, and the data set holds 1"):
        ready.check(plan(loaded, tmp_path), files)


def test_its_twin_is_its_own(loaded: LoadedRow, tmp_path: Path) -> None:
    twin = scaled(loaded).row
    assert twin.gen is not None
    lines = twin.gen[0]
    assert isinstance(lines, LinesGen)
    assert lines.judge.simulated is not None
    assert lines.file.path.endswith("smoke/seeds.jsonl")
    assert "a simulated rater for toy" in twin.deviations[-1]


def test_it_runs_as_a_stage(
    loaded: LoadedRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gen_stage, "Gen", LinesGen)
    monkeypatch.setitem(stage_module.MODELS, "gen", LinesGen)
    planned = first(loaded, tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    params = dump(planned.params, lambda data: data.path)
    call = StageCall("gen", planned.key, params, {}, str(work), code_version=6)
    with pytest.raises(InputError, match="version 7 of the gen/lines stage's code"):
        stage_module._check_environment(call)
    result = gen_stage.run(call)
    assert result.simulated == ["judge"]
    assert [example.output for example in dataset.read(work / dataset.DATA)] == ["one", "two"]
