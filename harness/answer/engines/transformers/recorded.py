"""What the row's model answered in the run that is replayed."""

from pathlib import Path

from harness.answer.engine import Answered, AnswerTask
from harness.answer.outputs import read_recorded
from harness.answer.prompts import read_prompts
from harness.answer.row_model import base_of


def recorded_answers(task: AnswerTask) -> Answered:
    """Raises HarnessError where the recorded ones are of other prompts."""
    call = task.call
    first_turns = read_prompts(task.params.prompts, call.inputs.get("prompts"))
    every, recorded = read_recorded(Path(call.inputs["recorded"]), first_turns)
    outputs = {prompt.key: output for prompt, output in zip(every, recorded, strict=True)}
    return Answered([outputs[p.key] for p in task.prompts], deviations=base_of(call).deviations)
