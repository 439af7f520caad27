"""Which metrics a row can give: the names that `reported` and `margins` may use."""

from harness.judge.kinds.alpaca_eval import AlpacaEvalJudge
from harness.judge.kinds.flow_judge import RubricJudge
from harness.judge.kinds.grading import GradingJudge
from harness.judge.kinds.held_out_loss import LossJudge
from harness.judge.kinds.lm_eval import TasksJudge
from harness.judge.kinds.union import Judge
from harness.row.row import Row
from harness.spec.prompts import PromptSet

TASKS = 4
"""Of Open LLM Leaderboard; their average is given only where all are there."""


def metrics_of(row: Row) -> list[str]:
    """The names of a row's metrics; NAME/SET is that of one of several prompt sets."""
    judge = row.eval.judge if row.eval else None
    names = _of_judge(row, judge) if judge is not None else []
    if row.train is not None and not isinstance(judge, LossJudge):
        held_out = ["held_out_loss", "bits_per_byte"] if row.train.validation is not None else []
        names += [*held_out, "train_loss"]
    return names


def _of_judge(row: Row, judge: Judge) -> list[str]:
    if isinstance(judge, TasksJudge):
        return [*judge.tasks, *["average"] * (len(judge.tasks) == TASKS)]
    if isinstance(judge, LossJudge):
        return _and_sets(["held_out_loss", "bits_per_byte"], judge.examples)
    assert row.eval is not None
    assert row.eval.answer is not None
    prompts = row.eval.answer.prompts
    if isinstance(judge, RubricJudge):
        return _and_sets(["rubric_score"], prompts)
    names = _and_sets(["win_rate"], prompts)
    if isinstance(judge, GradingJudge):
        names.append("winning_score")
    if isinstance(judge, AlpacaEvalJudge) and judge.length_control is not None:
        names.append("length_controlled_win_rate")
    return names


def _and_sets(names: list[str], prompts: PromptSet) -> list[str]:
    return [*names, *(f"{name}/{part}" for part in prompts.files or {} for name in names)]


def without(row: Row) -> str:
    """What else the row would have to say to give more, in words; empty where nothing would."""
    if row.train is None or row.train.validation is not None:
        return ""
    return "held_out_loss and bits_per_byte need train.validation"
