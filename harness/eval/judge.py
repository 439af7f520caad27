"""The judge stage: scores a model's outputs, or the model itself."""

import importlib
from collections.abc import Callable

from pydantic import TypeAdapter

from harness.call import StageCall, StageResult
from harness.spec.answer import PromptSet
from harness.spec.judges import Judge, ModelJudge

MODULES = {
    "preference": "harness.eval.judge_preference",
    "alpaca_eval": "harness.eval.judge_alpaca_eval",
    "grading": "harness.eval.judge_grading",
    "flow_judge": "harness.eval.judge_rubric",
    "lm_eval": "harness.eval.judge_tasks",
    "held_out_loss": "harness.eval.judge_loss",
}
"""Kind of judge -> its module."""


def run(call: StageCall) -> StageResult:
    """Judge as `call.params["judge"]` says.

    Raises:
        InputError: outputs and baseline do not fit the prompts, or the judge cannot be asked.
        HarnessError: a call failed for good, or no judgement could be read.
    """
    judge: Judge = TypeAdapter(Judge).validate_python(call.params["judge"])
    run_judge: Callable[..., StageResult] = importlib.import_module(MODULES[judge.kind]).run
    if isinstance(judge, ModelJudge):
        return run_judge(call, judge)
    prompts = PromptSet.model_validate(call.params["prompts"])
    return run_judge(call, judge, prompts, int(call.params.get("replicate", 0)))
