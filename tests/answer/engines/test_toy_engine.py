"""An engine from outside the harness: nothing but its own class has to know of it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from harness.answer import run as answer_run
from harness.answer.answer import Answer
from harness.answer.engine import Answered, AnswerTask, BaseEngine
from harness.answer.outputs import Output
from harness.answer.prompts import Prompt
from harness.artefact.call import StageCall
from harness.artefact.keys import Files
from harness.artefact.needs import Needs
from harness.errors import InputError
from harness.llm.estimate import Estimate
from harness.results.settings import settings_of
from harness.row.load import LoadedRow, load_rows
from harness.row.twin import scaled
from harness.run import ready
from harness.run.executors import gpus_of
from harness.run.plan import RowPlan, StagePlan
from harness.spec.base import Endpoint
from harness.spec.twin import simulated
from tests.helpers import evaluation, planner, write_row


class EchoEngine(BaseEngine):
    """Says what it was asked, in capital letters, and pays for it."""

    code_version: ClassVar[int] = 7
    packages: ClassVar[tuple[str, ...]] = ("echo-lib",)
    kind: Literal["echo"] = "echo"
    endpoint: Endpoint = Endpoint(model="echo-1")
    loudness: int = 3

    def needs(self) -> Needs:
        return Needs(endpoints=[self.endpoint], gpus=2)

    def estimate(self, answer: Answer, files: Files) -> Estimate:
        return Estimate(calls=self.loudness)

    def check(self, prompts: Sequence[Prompt]) -> None:
        if any("?" in prompt.instruction for prompt in prompts):
            raise InputError("an echo answers no questions")

    def twin(self, smoke: Path) -> BaseEngine:
        return EchoEngine(endpoint=simulated(self.endpoint), loudness=1)

    def replaced(self) -> Iterator[str]:
        yield "a whisper for the echo"

    def answer(self, task: AnswerTask) -> Answered:
        texts = [prompt.instruction.upper() + "!" * self.loudness for prompt in task.prompts]
        outputs = [Output(i, text, "stop", len(text), None) for i, text in enumerate(texts)]
        return Answered(outputs, used={"walls": 2}, notes=["the cave was empty"])


class EchoAnswer(Answer):
    """As if the union had one line more."""

    engine: EchoEngine = EchoEngine()


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedRow:
    """A row that the engine answers for."""
    for module in (answer_run, ready):
        monkeypatch.setattr(module, "Answer", EchoAnswer)
    (row,) = load_rows([write_row(tmp_path, eval=evaluation(tmp_path))])
    assert row.row.eval is not None
    assert row.row.eval.answer is not None
    answer = EchoAnswer(prompts=row.row.eval.answer.prompts)
    changed = row.row.eval.model_copy(update={"answer": answer})
    return LoadedRow(row.row.model_copy(update={"eval": changed}), row.path, row.is_named)


def plan_of(loaded: LoadedRow, folder: Path) -> tuple[RowPlan, StagePlan]:
    plan = planner(folder / "runs").plan(loaded)
    return plan, next(stage for stage in plan.stages if stage.stage == "answer")


def test_a_plan_has_its_code_version_endpoint_estimate_and_gpus(
    loaded: LoadedRow, tmp_path: Path
) -> None:
    _, stage = plan_of(loaded, tmp_path)
    assert stage.document["code_version"] == 7
    assert stage.document["params"]["answer"]["engine"]["loudness"] == 3
    assert stage.endpoints == [Endpoint(model="echo-1")]
    assert stage.pays
    assert stage.served is None
    assert stage.estimate == Estimate(calls=3)
    assert gpus_of("answer", stage.params) == 2


def test_what_it_cannot_answer_is_refused_before_anything_runs(
    loaded: LoadedRow, tmp_path: Path
) -> None:
    plan, stage = plan_of(loaded, tmp_path)
    ready.check(plan, Files(None, None), ["answer"])
    path = Path(stage.params["answer"].prompts.file.path)
    path.write_text(json.dumps({"instruction": "Who is there?", "output": "x"}) + "\n")
    plan, _ = plan_of(loaded, tmp_path)
    with pytest.raises(InputError, match="row one: an echo answers no questions"):
        ready.check(plan, Files(None, None), ["answer"])


def test_its_twin_is_its_own_and_its_words_stand_in_the_deviation(loaded: LoadedRow) -> None:
    twin = scaled(loaded).row
    assert twin.eval is not None
    assert twin.eval.answer is not None
    whisper = EchoEngine(endpoint=simulated(Endpoint(model="echo-1")), loudness=1)
    assert twin.eval.answer.engine == whisper
    assert "a whisper for the echo" in twin.deviations[-1]


def test_its_settings_are_compared_between_rows(loaded: LoadedRow, tmp_path: Path) -> None:
    plan, _ = plan_of(loaded, tmp_path)
    settings = settings_of(plan, every_setting=False)
    assert settings["eval.answer.engine.kind"].value == "echo"
    assert settings["eval.answer.engine.echo.loudness"].value == 3


def test_the_stage_answers_with_it(loaded: LoadedRow, tmp_path: Path) -> None:
    asked = [
        {"instruction": "hello"},
        {"instruction": "you", "id": 1},
        {"instruction": "you", "id": 2},
    ]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in asked))
    params = EchoAnswer.model_validate({"prompts": {"file": str(path)}}).model_dump()
    (tmp_path / "work").mkdir()
    call = StageCall("answer", "0" * 64, {"answer": params}, {}, str(tmp_path / "work"))
    result = answer_run.run(call)
    rows = json.loads((tmp_path / "work" / "model_outputs.json").read_text())
    assert [row["output"] for row in rows] == ["HELLO!!!", "YOU!!!", "YOU!!!"]
    assert result.used == {"engine": "echo", "walls": 2}
    assert "the cave was empty" in result.notes
