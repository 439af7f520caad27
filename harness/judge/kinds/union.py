"""What the judge stage is told: every way in which the studies scored their models."""

from typing import Annotated

from pydantic import Field

from harness.judge.kinds.alpaca_eval import AlpacaEvalJudge
from harness.judge.kinds.flow_judge import RubricJudge
from harness.judge.kinds.grading import GradingJudge
from harness.judge.kinds.held_out_loss import LossJudge
from harness.judge.kinds.lm_eval import TasksJudge
from harness.judge.kinds.preference import PreferenceJudge

OutputJudge = PreferenceJudge | AlpacaEvalJudge | GradingJudge | RubricJudge
"""Judges of outputs."""


ModelJudge = TasksJudge | LossJudge
"""Judges of a model itself."""


Judge = Annotated[OutputJudge | ModelJudge, Field(discriminator="kind")]
