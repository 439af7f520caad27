import pytest

from harness.artefact.metrics import METRICS, metric_of
from harness.judge.kinds.lm_eval.benchmarks import BENCHMARKS
from harness.row.load import load_rows
from tests.helpers import ROOT


def test_every_task_of_the_leaderboard_is_a_percentage_from_0_to_100() -> None:
    for task in BENCHMARKS:
        metric = METRICS[task]
        assert (metric.is_percentage, metric.lowest, metric.highest) == (True, 0, 100)


def test_every_metric_that_a_row_of_the_smoke_specs_gives_is_in_the_table() -> None:
    names = {name for row in load_rows([ROOT / "specs" / "smoke"]) for name in row.row.metrics()}
    assert names
    of_tasks = {name for name in names if metric_of(name).name in ("arc_easy", "gsm8k")}
    assert all("/" in name and metric_of(name).is_percentage for name in of_tasks)
    assert {name.partition("/")[0] for name in names - of_tasks} <= set(METRICS)


@pytest.mark.parametrize(
    ("name", "is_loss", "is_percentage", "digits"),
    [
        ("win_rate/koala", False, True, 2),
        ("held_out_loss/koala", True, False, 4),
        ("rubric_score", False, False, 2),
        ("a_name_that_no_stage_gives", False, False, 2),
        ("", False, False, 2),
    ],
)
def test_a_metric_of_one_prompt_set_is_written_as_that_of_all(
    name: str, is_loss: bool, is_percentage: bool, digits: int
) -> None:
    metric = metric_of(name)
    assert (metric.is_loss, metric.is_percentage, metric.digits) == (is_loss, is_percentage, digits)
