"""The `answer` stage: a model's outputs for a set of prompts, in alpaca_eval's format.

What answers is the spec's `engine`: the row's model in this process
(harness.answer.engines.transformers), a server (harness.answer.engines.endpoint), or a control:
`null`, the same answer always, and `reference`, a baseline's own. A prompt that stands more than
once in the set is answered once. An interrupted run goes on from the answers that it finds. A
replay makes the file again from the recorded answers or calls.
"""

from dataclasses import replace

from harness.answer import hygiene, prompt_mismatch
from harness.answer.answer import Answer
from harness.answer.engine import NO_ANSWER, AnswerTask
from harness.answer.outputs import OUTPUTS, as_judged, count, write_outputs
from harness.answer.prompts import once, read_prompts, system_notes
from harness.artefact.call import StageCall, StageResult
from harness.spec.model_source import ModelSource


def run(call: StageCall) -> StageResult:
    """Answer every prompt, or those that an interrupted run of the same call left.

    Raises InputError for a prompt set, a template, a model or a server that cannot be used as it
    stands, and HarnessError where a server fails, a budget is used up or a device is too small.
    """
    params = Answer.model_validate(call.params["answer"])
    model = call.params.get("model")
    source = None if model is None else ModelSource.model_validate(model)
    prompts = read_prompts(params.prompts, call.inputs.get("prompts"))
    firsts = once(prompt.key for prompt in prompts)
    numbers = sorted(set(firsts))

    answered = params.engine.answer(AnswerTask(call, params, [prompts[n] for n in numbers], source))
    place = {number: at for at, number in enumerate(numbers)}
    outputs = [
        replace(answered.outputs[place[first]], index=index) for index, first in enumerate(firsts)
    ]
    outputs = [as_judged(output, params.is_stripped, params.reasoning) for output in outputs]
    flagged = [hygiene.flags(o.output, o.finish_reason, o.generated) for o in outputs]
    write_outputs(call.folder / OUTPUTS, prompts, outputs, flagged)

    notes = [*answered.notes, *system_notes(prompts)]
    if len(numbers) < len(prompts):
        notes.append(
            f"{len(prompts) - len(numbers)} of {len(prompts)} prompts stand in the set before: each "
            "was answered once, and the answer stands in all of its places"
        )
    counts = count(outputs, flagged)
    if counts["stripped"]:
        gone = [
            *(["white space at their ends"] if params.is_stripped else []),
            *(["reasoning"] if params.reasoning == "strip" else []),
        ]
        notes.append(
            f"{counts['stripped']} of {len(outputs)} answers are judged without {' and '.join(gone)}: "
            f"`generated` in {OUTPUTS} is all that was made"
        )
    if answered.without_text is not None:
        counts[NO_ANSWER] = sum(place[first] in answered.without_text for first in firsts)
    seeds = dict(answered.seeds)
    if params.is_sampled:
        seeds["sampling"] = params.decoding.seed
    return StageResult(
        keep=[OUTPUTS, *answered.keep],
        counts=counts,
        used={"engine": params.engine.kind, **answered.used},
        seeds=seeds,
        cost=answered.cost,
        simulated=answered.simulated,
        notes=notes,
        deviations=answered.deviations,
        findings=prompt_mismatch.findings(call, params, source)
        + answered.findings
        + hygiene.findings(flagged, params.reasoning == "strip"),
    )
