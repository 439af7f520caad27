"""The `answer` stage: a model's outputs for a set of prompts, in alpaca_eval's format.

What answers is the spec's `engine`: the row's model in this process
(harness.answer.engines.transformers), a server (harness.answer.engines.endpoint), or a control:
`null`, the same answer always, and `reference`, a baseline's own. A prompt that stands more than
once in the set is answered once. An interrupted run goes on from the answers that it finds. A
replay makes the file again from the recorded answers or calls.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.answer import hygiene, prompt_mismatch
from harness.answer.answer import Answer
from harness.answer.engine import (
    EndpointEngine,
    NullEngine,
    ReferenceEngine,
    TransformersEngine,
    VllmEngine,
)
from harness.answer.outputs import (
    OUTPUTS,
    Output,
    as_judged,
    count,
    given_outputs,
    read_recorded,
    write_outputs,
)
from harness.answer.prompts import Prompt, once, read_prompts, system_notes
from harness.answer.row_model import base_of
from harness.artefact.call import StageCall, StageResult
from harness.errors import InputError
from harness.spec.model_source import ModelSource

NO_ANSWER = "no_answer"
"""The count, and the finding, of replies without any text; an empty text is an answer."""


@dataclass
class Answered:
    """What an engine gives back: an output for each prompt it was given, and what is to be told."""

    outputs: list[Output]
    used: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    simulated: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    without_text: set[int] | None = None
    """Of a server's replies, those that hold no text at all; their outputs are empty."""


def run(call: StageCall) -> StageResult:
    """Answer every prompt, or those that an interrupted run of the same call left.

    Raises InputError for a prompt set, a template, a model or a server that cannot be used as it
    stands, and HarnessError where a server fails, a budget is used up or a device is too small.
    """
    params = Answer.model_validate(call.params["answer"])
    given = call.params.get("model")
    source = None if given is None else ModelSource.model_validate(given)
    prompts = read_prompts(params.prompts, call.inputs.get("prompts"))
    firsts = once(prompts)
    wanted = sorted(set(firsts))

    answered = _answer(call, params, source, [prompts[number] for number in wanted], prompts)
    place = {number: at for at, number in enumerate(wanted)}
    outputs = [
        replace(answered.outputs[place[first]], index=index) for index, first in enumerate(firsts)
    ]
    outputs = [as_judged(output, params.is_stripped, params.reasoning) for output in outputs]
    flagged = [hygiene.flags(o.output, o.finish_reason, o.generated) for o in outputs]
    write_outputs(call.folder / OUTPUTS, prompts, outputs, flagged)

    notes = [*answered.notes, *system_notes(prompts)]
    if len(wanted) < len(prompts):
        notes.append(
            f"{len(prompts) - len(wanted)} of {len(prompts)} prompts stand in the set before: each "
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


def _answer(
    call: StageCall,
    params: Answer,
    source: ModelSource | None,
    prompts: list[Prompt],
    every: list[Prompt],
) -> Answered:
    """By the engine that the spec names. `every`: the whole set, with what stands there twice."""
    match params.engine:
        case NullEngine(output=output):
            return Answered(
                [Output(i, output, "stop", None, None) for i in range(len(prompts))],
                notes=["a control: the same constant answer to every prompt"],
            )
        case ReferenceEngine(outputs=data):
            return Answered(
                given_outputs(data, prompts),
                notes=["the answers are given outputs, and no model's of this row"],
            )
        case TransformersEngine() if call.replay:
            recorded = read_recorded(Path(call.inputs["recorded"]), every)
            by_prompt = {p.key: output for p, output in zip(every, recorded, strict=True)}
            return Answered(
                [by_prompt[prompt.key] for prompt in prompts], deviations=base_of(call).deviations
            )
        case TransformersEngine() as engine:
            from harness.answer.engines.transformers import answer_here

            return answer_here(call, params, engine, _needed(source), prompts)
        case EndpointEngine() as engine:
            from harness.answer.engines.endpoint import answer_by_endpoint

            return answer_by_endpoint(call, params, engine, source, prompts)
        case VllmEngine() as engine:
            from harness.answer.engines.endpoint import answer_by_vllm

            return answer_by_vllm(call, params, engine, _needed(source), prompts)


def _needed(source: ModelSource | None) -> ModelSource:
    if source is None:
        raise InputError(
            "the row has no model that could answer",
            "Name one in the spec (model), or an engine that needs none (endpoint).",
        )
    return source
