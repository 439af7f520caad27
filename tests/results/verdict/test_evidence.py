"""What a verdict is given: the runs of a row in their places, and grades in the score's own units."""

import json
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.artefact.manifest import MetricValue
from harness.artefact.store import Damaged
from harness.judge.kinds.flow_judge import RubricJudge
from harness.judge.kinds.grading import GradingJudge
from harness.results.verdict.evidence import (
    bounds_of,
    gather,
    grades_of,
    is_graded,
    item_of,
    strata_of,
)
from harness.row.row import Eval, Row
from tests.helpers import planned
from tests.results.scored_rows import scored_row, wins


class Kept:
    """An artefact of whose files a test says what is in them."""

    def __init__(self, folder: Path, **files: str) -> None:
        self.folder = folder
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)

    def keeps(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def check(self) -> None:
        pass


def annotations(*rows: dict[str, Any]) -> str:
    return json.dumps([{"instruction": f"prompt {n}", **row} for n, row in enumerate(rows)])


def test_a_preference_is_a_grade_in_percent_or_points_and_an_old_draw_is_a_draw(
    tmp_path: Path,
) -> None:
    text = annotations(*({"preference": p} for p in (1.0, 2.0, 1.5, 0.0, 1.25, None, -1)))
    kept: Any = Kept(tmp_path, annotations__json=text)
    assert list(grades_of(kept, "win_rate").values()) == [0, 100, 50, 50, 25, None, None]
    assert list(grades_of(kept, "winning_score").values()) == [0, 2, 1, 1, 0.5, None, None]


def test_grades_that_were_removed_are_not_taken_for_none_that_were_kept(tmp_path: Path) -> None:
    (plan,) = planned(tmp_path / "runs", scored_row(tmp_path, wins(3)))
    judged = plan.final()[0].made
    (judged.folder / "annotations.json").unlink()
    with pytest.raises(Damaged, match=r"annotations\.json is missing"):
        grades_of(judged, "win_rate")


def test_a_rubrics_score_is_its_grade(tmp_path: Path) -> None:
    text = annotations({"score": 5}, {"score": 1}, {"score": None})
    kept: Any = Kept(tmp_path, annotations__json=text)
    assert list(grades_of(kept, "rubric_score").values()) == [5, 1, None]


def test_a_questions_grade_is_what_its_task_is_scored_by(tmp_path: Path) -> None:
    def samples(*scores: float, metric: str) -> str:
        other = {"acc": "acc_norm", "acc_norm": "acc"}[metric]
        rows = [{"doc_id": n, metric: s, other: 0.25} for n, s in enumerate(scores)]
        return "".join(json.dumps(row) + "\n" for row in rows)

    kept: Any = Kept(
        tmp_path,
        samples_arc_challenge__jsonl=samples(1.0, 0.0, metric="acc_norm"),
        samples_mmlu_anatomy__jsonl=samples(1.0, 1.0, metric="acc"),
        samples_mmlu_virology__jsonl=samples(0.0, metric="acc"),
    )
    assert list(grades_of(kept, "arc_challenge").values()) == [100, 0]
    found = grades_of(kept, "mmlu")
    assert list(found.values()) == [100, 100, 0]
    assert strata_of("mmlu", list(found)) == ["mmlu_anatomy", "mmlu_anatomy", "mmlu_virology"]
    assert strata_of("arc_challenge", []) is None


def test_a_question_of_any_of_the_packages_tasks_has_a_grade_where_the_score_is_their_mean(
    tmp_path: Path,
) -> None:
    rows = [{"doc_id": n, "scores": {"acc": s, "f1": [s, 1]}} for n, s in enumerate([1, 0, 1, 1])]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    kept: Any = Kept(tmp_path, responses_arc_easy__jsonl=text)
    kept.manifest = SimpleNamespace(
        metrics={
            "arc_easy/acc": MetricValue(value=75.0),
            "arc_easy/f1": MetricValue(value=75.0),
            "ai2_arc/acc": MetricValue(value=75.0),
        }
    )
    grades = grades_of(kept, "arc_easy/acc")
    assert grades == {("arc_easy", n): grade for n, grade in enumerate([100, 0, 100, 100])}
    assert grades_of(kept, "arc_easy/f1") == grades_of(kept, "ai2_arc/acc") == {}
    kept.manifest.metrics["arc_easy/acc"] = MetricValue(value=60.0)
    assert grades_of(kept, "arc_easy/acc") == {}
    assert is_graded("arc_easy/acc")
    assert is_graded("win_rate/koala")
    assert not is_graded("average/koala")


def test_a_ratings_part_has_the_grades_of_its_own_answers(tmp_path: Path) -> None:
    text = annotations(
        {"score": 8, "turn": 1, "category": "maths"}, {"score": 5, "turn": 2, "category": "maths"},
        {"score": None, "turn": 1, "category": "words"},
    )  # fmt: skip
    kept: Any = Kept(tmp_path, annotations__json=text)
    assert list(grades_of(kept, "rating/turn_1").values()) == [8, None]
    assert list(grades_of(kept, "rating/maths").values()) == [8, 5]
    assert list(grades_of(kept, "rating").values()) == [8, 5, None]
    assert is_graded("rating/turn_1")


def test_an_artefact_without_grades_has_none(tmp_path: Path) -> None:
    kept: Any = Kept(tmp_path)
    assert grades_of(kept, "win_rate") == {}
    assert grades_of(kept, "hellaswag") == {}


def test_runs_stand_by_training_and_judging_and_their_grades_give_their_scores(
    tmp_path: Path,
) -> None:
    judgings = [wins(10 * n, 100) for n in range(6)]
    spec = scored_row(
        tmp_path, *judgings, trained=True, replicates={"train_seeds": [1, 2, 3], "judge": 2}
    )
    (plan,) = planned(tmp_path / "runs", spec)
    found = gather(plan.row, "win_rate", plan.final())
    assert found is not None
    assert list(found.runs) == [(a, 0, c) for a in range(3) for c in range(2)]
    assert (found.count(0), found.count(1), found.count(2)) == (3, 3, 6)
    assert len(found.trainings) == 3
    for index, run in found.runs.items():
        assert statistics.fmean(found.grades[index].values()) == run.value
    assert gather(plan.row, "rubric_score", plan.final()) is None


def test_one_run_is_not_read_for_its_grades_unless_they_are_asked_for(tmp_path: Path) -> None:
    (plan,) = planned(tmp_path / "runs", scored_row(tmp_path, wins(10)))
    found = gather(plan.row, "win_rate", plan.final())
    assert found is not None
    assert found.grades == {}
    assert not found.trains
    asked = gather(plan.row, "win_rate", plan.final(), every_grade=True)
    assert asked is not None
    assert len(asked.grades[0, 0, 0]) == 100


@pytest.mark.parametrize(
    ("metric", "item"),
    [("win_rate/koala", "prompt"), ("rating", "prompt"), ("hellaswag", "question"),
     ("gsm8k/exact_match/strict-match", "question"), ("bits_per_byte/koala", "example")],
)  # fmt: skip
def test_what_a_score_is_a_mean_over_has_a_word(metric: str, item: str) -> None:
    assert item_of(metric) == item


@pytest.mark.parametrize(
    ("metric", "bounds"),
    [
        ("win_rate", (0, 100)),
        ("win_rate/koala", (0, 100)),
        ("hellaswag", (0, 100)),
        ("winning_score", (0, 2)),
        ("rubric_score", None),
        ("held_out_loss", None),
    ],
)
def test_the_range_of_a_score_is_known_by_its_name(metric: str, bounds: Any) -> None:
    row = Row.model_validate({"row": "one", "table": "t", "title": "T"})
    assert bounds_of(row, metric) == bounds


@pytest.mark.parametrize(
    ("judge", "metric", "bounds"),
    [
        (GradingJudge.model_construct(), "winning_score", (0, 2)),
        (
            RubricJudge.model_construct(rubric="response_faithfulness_5point"),
            "rubric_score",
            (1, 5),
        ),
        (GradingJudge.model_construct(), "rubric_score", None),
    ],
)
def test_the_range_of_points_is_the_judges(judge: Any, metric: str, bounds: Any) -> None:
    row = Row.model_construct(eval=Eval.model_construct(judge=judge))
    assert bounds_of(row, metric) == bounds
