"""The `answer` stage: a model's outputs for a set of prompts, in alpaca_eval's format.

What answers is the spec's `engine`: the row's model in this process
(harness.answer.engines.transformers), a server (harness.answer.engines.endpoint), or a control:
`null`, the same answer always, and `reference`, a baseline's own. A prompt that stands more than
once in the set is answered once; a question of several turns is answered turn by turn. An
interrupted run goes on from the answers that it finds. A replay makes the file again from the
recorded answers or calls.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.answer import hygiene, prompt_mismatch
from harness.answer.answer import Answer
from harness.answer.engine import NO_ANSWER, Answered, AnswerTask
from harness.answer.outputs import OUTPUTS, Output, as_judged, count, write_outputs
from harness.answer.prompts import Prompt, once, read_prompts, system_notes
from harness.answer.turns import every_turn
from harness.artefact.call import TRANSCRIPT, StageCall, StageResult
from harness.spec.model_source import ModelSource


def run(call: StageCall) -> StageResult:
    """Answer every prompt, or those that an interrupted run of the same call left.

    Raises InputError for a prompt set, a template, a model or a server that cannot be used as it
    stands, and HarnessError where a server fails, a budget is used up or a device is too small.
    """
    params = Answer.model_validate(call.params["answer"])
    model = call.params.get("model")
    source = None if model is None else ModelSource.model_validate(model)
    asked = read_prompts(params.prompts, call.inputs.get("prompts"))
    parts: list[Answered] = []

    def answer(turn: Sequence[Prompt]) -> list[Output]:
        parts.append(_answer_once(call, params, turn, source))
        return [as_judged(o, params.is_stripped, params.reasoning) for o in parts[-1].outputs]

    prompts, of_turns = every_turn(asked, answer, lambda output: output.output)
    outputs = [replace(output, index=index) for index, output in enumerate(of_turns)]
    answered = _together(parts)
    repeated = len(asked) - len(set(once(prompt.key for prompt in asked)))
    flagged = [hygiene.flags(o.output, o.finish_reason, o.generated) for o in outputs]
    write_outputs(call.folder / OUTPUTS, prompts, outputs, flagged)

    notes = [*answered.notes, *system_notes(asked)]
    if repeated:
        notes.append(
            f"{repeated} of {len(asked)} prompts stand in the set before: each "
            "was answered once, and the answer stands in all of its places"
        )
    if len(prompts) > len(asked):
        notes.append(f"{len(asked)} questions of several turns: {len(prompts)} answers")
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
        counts[NO_ANSWER] = len(answered.without_text)
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


def _answer_once(
    call: StageCall, params: Answer, prompts: Sequence[Prompt], source: ModelSource | None
) -> Answered:
    """An output for each prompt; those that are the same are asked once."""
    firsts = once(prompt.key for prompt in prompts)
    numbers = sorted(set(firsts))
    answered = params.engine.answer(AnswerTask(call, params, [prompts[n] for n in numbers], source))
    place = {number: at for at, number in enumerate(numbers)}
    without = answered.without_text
    return replace(
        answered,
        outputs=[
            replace(answered.outputs[place[first]], index=index)
            for index, first in enumerate(firsts)
        ],
        without_text=None
        if without is None
        else {i for i, f in enumerate(firsts) if place[f] in without},
    )


def _together(parts: Sequence[Answered]) -> Answered:
    """What is to be said of all turns; `used` is the first's."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return first
    cost = {name: sum(part.cost.get(name, 0) for part in parts) for name in last.cost}
    if TRANSCRIPT in last.keep:
        # Its calls are those of the turns before too.
        cost = last.cost | {n: c for n, c in cost.items() if n == "replayed_calls"}
    without: set[int] | None = None
    if first.without_text is not None:
        places = [sum(len(p.outputs) for p in parts[:number]) for number in range(len(parts))]
        without = {
            at + n for at, part in zip(places, parts, strict=True) for n in part.without_text or ()
        }
    return replace(
        first,
        cost=cost,
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        deviations=list(dict.fromkeys(d for part in parts for d in part.deviations)),
        findings=[finding for part in parts for finding in part.findings],
        without_text=without,
    )
