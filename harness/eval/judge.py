"""The judge stage: compares a model's outputs with a baseline's and computes the win rate."""

from pydantic import TypeAdapter

from harness.call import StageCall, StageResult
from harness.eval.judge_pairs import read_pairs
from harness.spec.models import Judge, PreferenceJudge, PromptSet


def run(call: StageCall) -> StageResult:
    """Judge the outputs in `call.inputs["outputs"]` as `call.params["judge"]` says.

    Raises:
        InputError: outputs and baseline do not fit the prompts, or the judge cannot be asked.
        HarnessError: a call failed for good, or no judgement could be read.
    """
    judge: Judge = TypeAdapter(Judge).validate_python(call.params["judge"])
    prompts = PromptSet.model_validate(call.params["prompts"])
    replicate = int(call.params.get("replicate", 0))
    pairs = read_pairs(call.inputs["outputs"], prompts, judge.reference.path)
    if isinstance(judge, PreferenceJudge):
        from harness.eval import judge_preference

        return judge_preference.run(call, judge, pairs, replicate)
    from harness.eval import judge_alpaca_eval

    return judge_alpaca_eval.run(call, judge, pairs, replicate)
