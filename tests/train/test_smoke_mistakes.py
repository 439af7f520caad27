"""The smoke row learns from its data, and a mistake in the template or the loss mask breaks it.

Trains the row's own model with the row's own parameters, through the real stages: three times in
all, a quarter of a minute each on one core.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.answer import run as answer
from harness.artefact.call import StageCall
from harness.row.load import load_rows
from harness.row.row import Row
from harness.sim.grammar import draw, held_out_tasks, is_right, teachable_tasks
from harness.train import data
from harness.train import run as train
from tests.helpers import read_jsonl
from tests.modeling.calls import outputs, write_jsonl

ROW = Path(__file__).parents[2] / "specs" / "smoke" / "sft.yaml"
ENOUGH, BROKEN = 90, 50
"""Right answers of 100. The row claims a win rate over 80."""


@pytest.fixture(scope="module")
def row() -> Row:
    return load_rows([ROW])[0].row


@pytest.fixture(scope="module")
def trained(row: Row, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_row(row, tmp_path_factory.mktemp("trained"))


def train_row(row: Row, folder: Path) -> Path:
    assert row.gen is not None
    assert row.train is not None
    tasks = draw(teachable_tasks(), row.gen[0].examples, "smoke mistakes")
    fields = ("instruction", "input", "output")
    write_jsonl(folder / "data" / "data.jsonl", [{f: getattr(t, f) for f in fields} for t in tasks])
    (folder / "work").mkdir()
    params = {
        "train": row.train.model_dump(mode="json"),
        "model": row.model.model_dump(mode="json"),
        "template": row.template.model_dump(mode="json"),
    }
    train.run(
        StageCall("train", "0" * 64, params, {"data": str(folder / "data")}, str(folder / "work"))
    )
    return folder / "work"


def right_answers(row: Row, model: Path, folder: Path, template: str | None = None) -> int:
    """How many of the row's evaluation prompts the model answers rightly."""
    assert row.eval is not None
    params = row.eval.answer.model_dump(mode="json")
    params["template"] = row.template.model_dump(mode="json")
    if template is not None:
        params["template"]["prompt"]["text"] = template
    folder.mkdir(exist_ok=True)
    assert row.model is not None
    given = {"answer": params, "model": row.model.model_dump(mode="json")}
    call = StageCall("answer", "0" * 64, given, {"model": str(model)}, str(folder))
    answer.run(call)
    tasks = {task.text: task for task in held_out_tasks()}
    rows = outputs(call)
    assert len(rows) == 100
    return sum(is_right(tasks[row["instruction"]], row["output"]) for row in rows)


def test_the_trained_row_answers_held_out_prompts(row: Row, trained: Path, tmp_path: Path) -> None:
    assert right_answers(row, trained, tmp_path / "work") >= ENOUGH


@pytest.mark.parametrize(
    "mistaken",
    ["{instruction}", "Q: {instruction}\n", "Q: {instruction}\nA: ", "### {instruction}\n### "],
)
def test_another_template_than_in_training_breaks_the_row(
    row: Row, trained: Path, tmp_path: Path, mistaken: str
) -> None:
    assert right_answers(row, trained, tmp_path / "work", mistaken) < BROKEN


def end_left_out(marks: Any) -> None:
    marks[-1] = 0


def first_token_left_out(marks: Any) -> None:
    marks[np.flatnonzero(marks)[0]] = 0


@pytest.mark.parametrize("mistake", [end_left_out, first_token_left_out])
def test_a_mistake_in_the_loss_mask_breaks_the_row(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Any
) -> None:
    real = data._marked

    def mistaken(*given: Any) -> Any:
        ids, marks = real(*given)
        mistake(marks)
        return ids, marks

    monkeypatch.setattr(data, "_marked", mistaken)
    model = train_row(row, tmp_path)
    logged = read_jsonl(model / "trainer_log.jsonl")
    assert logged[-1]["loss"] < 0.5, "the mistake must be one that the loss does not show"
    assert right_answers(row, model, tmp_path / "answers") < BROKEN
