"""A judge model that this stage runs itself, or that vLLM serves: asked by the code that asks a row's
model in the answer stage.

`replies-1.jsonl` holds the replies to the first asking, `replies-2.jsonl` those to what was asked
again, and so on: a replay takes every reply out of them. An interrupted run goes on from them, and
within an asking from what the engine left in `asking-1` and so on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from harness.answer.answer import Answer, Decoding
from harness.answer.engine import AnswerTask
from harness.answer.outputs import Output, outputs_by_index
from harness.answer.prompts import Prompt
from harness.artefact.call import Account, StageCall
from harness.errors import HarnessError, InputError
from harness.judge.kinds.flow_judge import RubricJudge
from harness.judge.kinds.flow_judge.judge import JudgeReplies, JudgeReply
from harness.spec.base import Sampling
from harness.spec.prompts import PromptSet
from harness.spec.template import TOKENIZER, Template, load_template

ANOTHER_SEED = 1_000_003
"""Between the seeds of one asking and the next; those of replicates lie side by side."""
TOO_LONG = "too_long"
"""`finish_reason` where the judge's prompt leaves no room for a reply; nothing was asked."""


def local_replies(
    call: StageCall,
    judge: RubricJudge,
    texts: Sequence[str],
    replicate: int,
    is_read: Callable[[str], bool],
) -> JudgeReplies:
    """The replies to `texts`: of each the first that can be read, or else the last.

    Raises:
        InputError: a model or template that cannot be used as it stands, or what is for endpoints.
        HarnessError: in a replay, a reply that was not recorded; and what the engine raises.
    """
    _check_sampling(judge.sampling)
    is_sampled = bool(judge.sampling.temperature)
    prompts = [Prompt(text, "") for text in texts]
    engines = Account()
    replies: dict[int, Output] = {}
    waiting = list(range(len(prompts)))
    keep = []
    for asking in range(1, (judge.asks if is_sampled else 1) + 1):
        if not waiting:
            break
        path = call.folder / f"replies-{asking}.jsonl"
        keep.append(path.name)
        outputs = _read(Path(call.inputs["recorded"]) / path.name if call.replay else path)
        if outputs is None and call.replay:
            raise HarnessError(f"the recorded artefact has no {path.name} with the judge's replies")
        if outputs is None:
            seed = (judge.seed + replicate + (asking - 1) * ANOTHER_SEED) % 2**32
            folder = call.folder / f"asking-{asking}"
            outputs = _ask(call, judge, prompts, waiting, seed, folder, engines)
        if sorted(outputs) != waiting:
            raise HarnessError(
                f"{path.name} holds the replies to other prompts than were asked about"
            )
        _write(path, outputs)
        replies |= outputs
        waiting = [index for index in waiting if not is_read(replies[index].output)]
    seeds = {"sampling": judge.seed + replicate} if is_sampled else {}
    return JudgeReplies(
        [JudgeReply(replies[i].output, replies[i].finish_reason) for i in range(len(prompts))],
        keep=keep,
        used={"engine": judge.engine.kind, **engines.used},
        seeds={**{f"judge_{name}": seed for name, seed in engines.seeds.items()}, **seeds},
        cost=engines.cost,
        simulated=["judge with random weights"] if judge.model and judge.model.random else [],
        notes=[f"judge: {note}" for note in dict.fromkeys(engines.notes)],
    )


def _check_sampling(sampling: Sampling) -> None:
    for name in ("presence_penalty", "frequency_penalty", "seed"):
        if getattr(sampling, name) is not None:
            raise InputError(
                f"judge.sampling.{name} is for endpoints alone",
                "A judge model of the harness's own takes its seed from judge.seed, and has no "
                "penalties.",
            )


def _ask(
    call: StageCall,
    judge: RubricJudge,
    prompts: Sequence[Prompt],
    numbers: Sequence[int],
    seed: int,
    folder: Path,
    engines: Account,
) -> dict[int, Output]:
    """The replies to the prompts with these numbers; `folder` is the engine's own to work in."""
    # The judge's model goes under the name that a row's own has.
    hub = call.inputs.get("judge_hub")
    folder.mkdir(exist_ok=True)
    engine_call = replace(call, work=str(folder), inputs={} if hub is None else {"hub": hub})
    template = judge.template or load_template(TOKENIZER)
    lengths = _too_long(engine_call, judge, template, [prompts[index] for index in numbers])
    fitting = [index for at, index in enumerate(numbers) if at not in lengths]
    outputs = {
        numbers[at]: Output(numbers[at], "", TOO_LONG, 0, length) for at, length in lengths.items()
    }
    if not fitting:
        return outputs
    params = Answer.model_construct(
        # No engine reads it: the prompts are the judge's own, and at hand.
        prompts=PromptSet.model_construct(),
        template=template,
        engine=judge.engine,
        decoding=_decoding(judge.sampling, seed),
    )
    task = AnswerTask(engine_call, params, [prompts[index] for index in fitting], judge.model)
    answered = judge.engine.answer(task)
    engines.add(answered)
    for index, output in zip(fitting, answered.outputs, strict=True):
        outputs[index] = replace(output, index=index)
    return outputs


def _too_long(
    engine_call: StageCall, judge: RubricJudge, template: Template, prompts: Sequence[Prompt]
) -> dict[int, int]:
    """Place -> tokens of the prompts that leave the judge no room for a reply."""
    from harness.answer.encode import encode, least, positions_in
    from harness.modeling.load import load_tokenizer

    assert judge.model is not None
    limit = least(positions_in(judge.model, engine_call.inputs), judge.engine.longest_text)
    if limit is None:
        return {}
    ids = encode(prompts, template, load_tokenizer(judge.model, engine_call.inputs)).ids
    return {at: len(tokens) for at, tokens in enumerate(ids) if len(tokens) >= limit}


def _decoding(sampling: Sampling, seed: int) -> Decoding:
    options = {"top_p": sampling.top_p, "stop": sampling.stop}
    return Decoding(
        max_new_tokens=sampling.max_tokens,
        temperature=sampling.temperature or 0.0,
        seed=seed,
        **{name: value for name, value in options.items() if value is not None},
    )


def _read(path: Path) -> dict[int, Output] | None:
    """The replies of one asking by number; None where there is no such file."""
    if not path.exists():
        return None
    return outputs_by_index(path.read_text(encoding="ascii").splitlines())


def _write(path: Path, outputs: dict[int, Output]) -> None:
    part = path.with_name(path.name + ".part")
    lines = [json.dumps(asdict(outputs[index])) + "\n" for index in sorted(outputs)]
    part.write_text("".join(lines), encoding="ascii")
    part.replace(path)
