"""What the row's model answered in the run that is replayed."""

from collections.abc import Sequence
from pathlib import Path

from harness.answer.answer import Answer
from harness.answer.engine import Answered
from harness.answer.outputs import read_recorded
from harness.answer.prompts import Prompt, read_prompts
from harness.answer.row_model import base_of
from harness.artefact.call import StageCall


def recorded_answers(call: StageCall, params: Answer, prompts: Sequence[Prompt]) -> Answered:
    """Raises HarnessError where the recorded ones are of other prompts."""
    first_turns = read_prompts(params.prompts, call.inputs.get("prompts"))
    every, recorded = read_recorded(Path(call.inputs["recorded"]), first_turns)
    outputs = {prompt.key: output for prompt, output in zip(every, recorded, strict=True)}
    return Answered([outputs[p.key] for p in prompts], deviations=base_of(call).deviations)
