"""The judge stage: scores a model's outputs, or the model itself."""

from pydantic import TypeAdapter

from harness.artefact.call import StageCall, StageResult
from harness.judge.kinds.union import Judge


def run(call: StageCall) -> StageResult:
    """Judge as `call.params["judge"]` says; raises as `BaseJudge.run`."""
    judge: Judge = TypeAdapter(Judge).validate_python(call.params["judge"])
    return judge.run(call)
