"""What the judge stage is told: every way in which the studies scored their models."""

from typing import Annotated, get_args

from pydantic import Field

from harness.judge.judge import BaseJudge
from harness.judge.kinds.alpaca_eval import AlpacaEvalJudge
from harness.judge.kinds.flow_judge import RubricJudge
from harness.judge.kinds.grading import GradingJudge
from harness.judge.kinds.held_out_loss import LossJudge
from harness.judge.kinds.lm_eval import TasksJudge
from harness.judge.kinds.preference import PreferenceJudge
from harness.judge.kinds.single_grading import SingleGradingJudge

_Kind = (
    PreferenceJudge
    | AlpacaEvalJudge
    | GradingJudge
    | SingleGradingJudge
    | RubricJudge
    | TasksJudge
    | LossJudge
)
Judge = Annotated[_Kind, Field(discriminator="kind")]
KINDS: dict[str, type[BaseJudge]] = {
    kind.model_fields["kind"].default: kind for kind in get_args(_Kind)
}
