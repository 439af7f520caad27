"""Flow Judge: each output scored on a rubric, by a local judge model, vLLM or an endpoint.

- `rubric`: one of the package's, or one of your own. `fields`: where its inputs come from. A prompt
  one of whose inputs is empty is not asked about: a judge that sees less than it should scores all the
  same.
- `engine`: as for answers. An `endpoint` is sent the judge's prompt as a chat; the others are given the
  tokens that `template` makes of it.
- `sampling`, `seed`: how the judge decodes. A replicate has the next seed.
- `asks`: a reply without both tags, or with a score that is not the rubric's, is asked again so often;
  a local judge then has another seed, and where it decodes greedily is not asked again at all. What
  stays unread is listed and has no score; the bounds count it with the lowest and the highest one.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.answer.engines.endpoint import EndpointEngine
from harness.answer.prompts import Prompt, read_prompts
from harness.artefact.call import TRANSCRIPT, StageCall, StageResult
from harness.artefact.events import Progress
from harness.errors import HarnessError
from harness.judge.judge import prompts_of, replicate_of
from harness.judge.kinds.flow_judge import Rubric, RubricJudge
from harness.judge.kinds.flow_judge.rubrics import (
    Scored,
    inputs_for,
    load_rubric,
    missing,
    prompt_of,
    read_reply,
)
from harness.judge.pairs import (
    ANNOTATIONS,
    UNJUDGED,
    MatchedOutput,
    read_outputs,
    sampling_of,
    write_rows,
)
from harness.judge.scores import bounds, mean_and_error
from harness.llm.asking import ServedModels, ask_until_read
from harness.llm.client import open_client
from harness.llm.reply import Reply

METRIC = "rubric_score"


@dataclass(frozen=True)
class JudgeReply:
    """A judge's reply, whatever engine made it."""

    text: str
    finish_reason: str | None
    why: str | None = None
    """What a server declined the prompt for."""


@dataclass
class Replies:
    """One for each prompt that was asked, in their order, and what is to be told of the engine."""

    in_order: list[JudgeReply]
    keep: list[str]
    used: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    simulated: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)


def run(call: StageCall, judge: RubricJudge) -> StageResult:
    """Score the outputs and write the artefact's files into the call's work folder.

    Raises:
        InputError: the outputs do not fit the prompts, an input of the rubric is nowhere to be found,
            or the judge cannot be asked.
        HarnessError: a call failed for good, or no reply could be read.
    """
    prompts, replicate = prompts_of(call), replicate_of(call)
    rubric = load_rubric(judge.rubric)
    records = read_prompts(prompts, call.inputs.get("prompts"))
    outputs = read_outputs(call, records)
    inputs = inputs_for(rubric, records, judge.fields)
    complete = [index for index, prompt_inputs in enumerate(inputs) if not missing(prompt_inputs)]
    texts = [prompt_of(rubric, inputs[i], outputs[i].output) for i in complete]
    replies = _replies(call, judge, rubric, texts, replicate)
    by_prompt = dict(zip(complete, replies.in_order, strict=True))
    rows = [
        _annotate(rubric, records[i], outputs[i], inputs[i], by_prompt.get(i))
        for i in range(len(records))
    ]
    unjudged = [
        _unjudged(row, by_prompt.get(i)) for i, row in enumerate(rows) if row["score"] is None
    ]
    write_rows(call.folder / UNJUDGED, unjudged)
    if len(unjudged) == len(rows):
        first = replies.in_order[0]
        raise HarnessError(
            f"none of the judge's {len(texts)} replies holds a feedback and a score of the rubric "
            f"{rubric.name}; the first is {(first.why or first.text)[:200]!r}",
            hint=f"see {call.folder / UNJUDGED}; is it a model that was made for rubrics? The same "
            f"command finds the same replies in {' and '.join(replies.keep)}: change the judge in "
            f"the spec, or remove the work folder {call.folder} to ask again",
        )
    (call.folder / ANNOTATIONS).write_text(json.dumps(rows, indent=2) + "\n", encoding="ascii")
    metrics, notes = _metrics(rubric, rows, list(prompts.files or {}))
    without = len(rows) - len(complete)
    return StageResult(
        keep=[ANNOTATIONS, UNJUDGED, *replies.keep],
        metrics=metrics,
        counts={
            "prompts": len(rows),
            "empty_outputs": sum(not output.output.strip() for output in outputs),
            "cut_outputs": sum(output.cut for output in outputs),
            "judged": len(rows) - len(unjudged),
            "unparsed": len(unjudged) - without,
            "missing_context": without,
            "cut_replies": sum(reply.finish_reason == "length" for reply in replies.in_order),
        },
        used={"rubric": rubric.model_dump(), **replies.used},
        seeds={"replicate": replicate, **replies.seeds},
        cost=replies.cost,
        simulated=replies.simulated,
        notes=[*replies.notes, *notes],
        findings=[*replies.findings, *_missing_findings(rows)],
    )


def rubric_metric(rubric: Rubric, scores: Sequence[int | None]) -> dict[str, Any] | None:
    """The mean score of those that are judged, its standard error (sample standard deviation, ddof 1,
    / sqrt(judged)), and how often each score was given; None where nothing was judged.

    The bounds give every unjudged prompt the rubric's lowest and its highest score.
    """
    judged_scores = [score for score in scores if score is not None]
    if not judged_scores:
        return None
    possible = sorted(line.score for line in rubric.scores)
    judged, expected = len(judged_scores), len(scores)
    mean, error = mean_and_error(judged_scores)
    return {
        "value": mean,
        "standard_error": error,
        "judged": judged,
        "expected": expected,
        **bounds(sum(judged_scores), judged, expected, possible[0], possible[-1]),
        **{f"score_{score}": judged_scores.count(score) for score in possible},
    }


def _replies(
    call: StageCall, judge: RubricJudge, rubric: Rubric, texts: list[str], replicate: int
) -> Replies:
    def is_read(text: str) -> bool:
        return read_reply(rubric, text) is not None

    if isinstance(judge.engine, EndpointEngine):
        return asyncio.run(_served(call, judge, judge.engine, rubric, texts, replicate))
    from harness.judge.kinds.flow_judge.local import local_replies

    return local_replies(call, judge, texts, replicate, is_read)


async def _served(
    call: StageCall,
    judge: RubricJudge,
    engine: EndpointEngine,
    rubric: Rubric,
    texts: list[str],
    replicate: int,
) -> Replies:
    bodies = [_body(judge, engine, text, replicate) for text in texts]
    served = ServedModels(judge.on_model_change, call.folder)
    progress = Progress("judge", len(bodies), "prompts")
    done = unparsed = 0

    def read(reply: Reply) -> Scored | None:
        return read_reply(rubric, reply.text)

    def count(index: int, reply: Reply) -> None:
        nonlocal done, unparsed
        done += 1
        unparsed += read(reply) is None
        progress.show(done, unparsed=unparsed)

    async with open_client(call, engine.endpoint, engine.transcript) as client:
        replies = await ask_until_read(client, bodies, read, judge.asks, count, served=served)
    return Replies(
        [JudgeReply(reply.text, reply.finish_reason, reply.why) for reply in replies],
        keep=[TRANSCRIPT],
        used={"served_models": sorted(served.counts)},
        cost=client.cost(),
        simulated=["judge"] if client.simulated else [],
        notes=served.notes(),
        findings=[finding.to_json() for finding in served.findings()],
    )


def _body(judge: RubricJudge, engine: EndpointEngine, text: str, replicate: int) -> dict[str, Any]:
    sampling = sampling_of(judge.sampling, replicate)
    system = [{"role": "system", "content": engine.system}] if engine.system else []
    return {"messages": [*system, {"role": "user", "content": text}], **sampling}


def _annotate(
    rubric: Rubric,
    prompt: Prompt,
    output: MatchedOutput,
    inputs: dict[str, str],
    reply: JudgeReply | None,
) -> dict[str, Any]:
    """One row of annotations.json. `inputs` is what the judge was shown beside the output."""
    scored = None if reply is None else read_reply(rubric, reply.text)
    return {
        "instruction": prompt.instruction,
        **({"input": prompt.input} if prompt.input else {}),
        "dataset": prompt.dataset,
        "output_2": output.output,
        "generator_2": output.generator,
        "inputs": inputs,
        "score": None if scored is None else scored.score,
        "feedback": None if scored is None else scored.feedback,
        "raw_completion": None if reply is None else reply.text,
    }


def _unjudged(row: dict[str, Any], reply: JudgeReply | None) -> dict[str, Any]:
    fields: dict[str, Any] = {n: row[n] for n in ("instruction", "input", "dataset") if n in row}
    if reply is None:
        return {**fields, "why": "missing_context", "missing": missing(row["inputs"])}
    raw = {"reply": reply.text, "finish_reason": reply.finish_reason}
    return {**fields, "why": reply.why or "unparsed", **raw}


def _metrics(
    rubric: Rubric, rows: Sequence[dict[str, Any]], sets: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Over all prompts and over each of several sets; a note for a set without a judgement."""
    metrics, notes = {}, []
    for name in (None, *sets):
        part = [row["score"] for row in rows if name is None or row["dataset"] == name]
        metric = rubric_metric(rubric, part)
        if metric is None:
            notes.append(f"none of the {len(part)} prompts of {name} could be judged")
        else:
            metrics[METRIC if name is None else f"{METRIC}/{name}"] = metric
    return metrics, notes


def _missing_findings(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    without = [row for row in rows if missing(row["inputs"])]
    if not without:
        return []
    count = Counter(name for row in without for name in missing(row["inputs"]))
    counts = ", ".join(f"{name} ({number})" for name, number in sorted(count.items()))
    return [
        {
            "kind": "missing_context",
            "severity": "warning",
            "message": f"{len(without)} of {len(rows)} prompts have no text for what the judge must be "
            f"shown, {counts}: they were not judged",
            "evidence": {
                "prompts": len(without),
                "inputs": dict(sorted(count.items())),
                "examples": [row["instruction"][:200] for row in without[:3]],
            },
        }
    ]
