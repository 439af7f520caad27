"""The judge stage: scores a model's outputs, or the model itself."""

import importlib
from collections.abc import Callable

from pydantic import TypeAdapter

from harness.artefact.call import StageCall, StageResult
from harness.judge.kinds.union import Judge, ModelJudge
from harness.spec.prompts import PromptSet

MODULES = {
    "preference": "harness.judge.kinds.preference.judge",
    "alpaca_eval": "harness.judge.kinds.alpaca_eval.judge",
    "grading": "harness.judge.kinds.grading.judge",
    "flow_judge": "harness.judge.kinds.flow_judge.judge",
    "lm_eval": "harness.judge.kinds.lm_eval.judge",
    "held_out_loss": "harness.judge.kinds.held_out_loss.judge",
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
