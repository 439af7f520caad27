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

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.answer.prompts import Prompt, read_prompts
from harness.artefact.call import Account, StageCall, StageResult
from harness.artefact.manifest import Finding, MetricValue
from harness.judge.judge import prompts_of, replicate_of
from harness.judge.kinds.flow_judge import Rubric, RubricJudge
from harness.judge.kinds.flow_judge.rubrics import (
    inputs_for,
    load_rubric,
    missing,
    prompt_of,
    read_reply,
)
from harness.judge.pairs import MatchedOutput, read_outputs
from harness.judge.pairwise import (
    ANNOTATIONS,
    UNJUDGED,
    PromptFields,
    account_of,
    ask_all,
    nothing_judged,
    output_counts,
    prompt_fields,
    sampling_of,
    write_annotations,
    write_rows,
)
from harness.judge.scores import bounds, mean_and_error
from harness.llm.asking import ServedModels
from harness.llm.body import ChatBody, Message
from harness.llm.client import open_client

METRIC = "rubric_score"


class ScoredOutput(PromptFields):
    """A row of annotations.json."""

    dataset: str | None
    output_2: str
    generator_2: str
    inputs: dict[str, str]
    """What the judge was shown beside the output."""
    score: int | None
    feedback: str | None
    raw_completion: str | None


class UnscoredOutput(PromptFields):
    """A line of unjudged.jsonl."""

    dataset: str | None
    why: str


class OutputNotAsked(UnscoredOutput):
    missing: list[str]
    """Inputs."""


class UnreadOutput(UnscoredOutput):
    reply: str
    finish_reason: str | None


@dataclass(frozen=True)
class JudgeReply:
    """A judge's reply, whatever engine made it."""

    text: str
    finish_reason: str | None
    why: str | None = None
    """What a server declined the prompt for."""


@dataclass
class JudgeReplies(Account):
    """One for each prompt that was asked, in their order, and what is to be told of the engine."""

    in_order: list[JudgeReply]


def run(call: StageCall, judge: RubricJudge) -> StageResult:
    """Score the outputs and write the artefact's files into the call's work folder; raises as
    `BaseJudge.run`, and InputError where an input of the rubric is nowhere to be found."""
    prompts, replicate = prompts_of(call), replicate_of(call)
    rubric = load_rubric(judge.rubric)
    records = read_prompts(prompts, call.inputs.get("prompts"))
    outputs = read_outputs(call, records)
    inputs = inputs_for(rubric, records, judge.fields, judge.empty)
    lacking = [missing(prompt_inputs, judge.empty) for prompt_inputs in inputs]
    complete = [index for index, names in enumerate(lacking) if not names]
    texts = [prompt_of(rubric, inputs[i], outputs[i].output) for i in complete]
    replies = _replies(call, judge, rubric, texts, replicate)
    by_prompt = dict(zip(complete, replies.in_order, strict=True))
    rows = [
        _annotate(rubric, records[i], outputs[i], inputs[i], by_prompt.get(i))
        for i in range(len(records))
    ]
    unjudged = [
        _unjudged(records[i], lacking[i], by_prompt.get(i))
        for i, row in enumerate(rows)
        if row["score"] is None
    ]
    write_rows(call.folder / UNJUDGED, unjudged)
    if len(unjudged) == len(rows):
        first = replies.in_order[0]
        raise nothing_judged(
            call,
            f"none of the judge's {len(texts)} replies holds a feedback and a score of the rubric "
            f"{rubric.name}; the first",
            "is it a model that was made for rubrics?",
            first.why or first.text,
            kept=" and ".join(replies.keep),
        )
    write_annotations(call, rows)
    metrics, notes = _metrics(rubric, rows, list(prompts.files or {}))
    without = len(rows) - len(complete)
    result = StageResult(
        keep=[ANNOTATIONS, UNJUDGED],
        metrics=metrics,
        counts={
            "prompts": len(rows),
            **output_counts(outputs),
            "judged": len(rows) - len(unjudged),
            "unparsed": len(unjudged) - without,
            "missing_context": without,
            "cut_replies": sum(reply.finish_reason == "length" for reply in replies.in_order),
        },
        used={"rubric": rubric.model_dump()},
        seeds={"replicate": replicate},
    )
    result.add(replies)
    result.notes += notes
    result.findings += _missing_findings(rows, lacking)
    result.findings += _empty_findings(judge.empty, len(rows))
    return result


def rubric_metric(rubric: Rubric, scores: Sequence[int | None]) -> MetricValue | None:
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
    return MetricValue(
        value=mean,
        standard_error=error,
        judged=judged,
        expected=expected,
        **bounds(sum(judged_scores), judged, expected, possible[0], possible[-1]),
        further={f"score_{score}": judged_scores.count(score) for score in possible},
    )


def _replies(
    call: StageCall, judge: RubricJudge, rubric: Rubric, texts: list[str], replicate: int
) -> JudgeReplies:
    def is_read(text: str) -> bool:
        return read_reply(rubric, text) is not None

    engine = judge.endpoint
    if engine is None:
        from harness.judge.kinds.flow_judge.local import local_replies

        return local_replies(call, judge, texts, replicate, is_read)
    system: list[Message] = [{"role": "system", "content": engine.system}] if engine.system else []
    sampling = sampling_of(judge.sampling, replicate)
    bodies: list[ChatBody] = [
        {"messages": [*system, {"role": "user", "content": text}], **sampling} for text in texts
    ]
    served = ServedModels(judge.on_model_change, call.folder)
    client = open_client(call, engine.endpoint, engine.transcript)
    replies = ask_all(
        client, served, bodies, lambda r: is_read(r.text), judge.asks, "prompts", "unparsed"
    )
    in_order = [JudgeReply(reply.text, reply.finish_reason, reply.why) for reply in replies]
    return JudgeReplies(in_order, **vars(account_of(client, served)))


def _annotate(
    rubric: Rubric,
    prompt: Prompt,
    output: MatchedOutput,
    inputs: dict[str, str],
    reply: JudgeReply | None,
) -> ScoredOutput:
    scored = None if reply is None else read_reply(rubric, reply.text)
    return {
        **prompt_fields(prompt.key),
        "dataset": prompt.dataset,
        "output_2": output.output,
        "generator_2": output.generator,
        "inputs": inputs,
        "score": None if scored is None else scored.score,
        "feedback": None if scored is None else scored.feedback,
        "raw_completion": None if reply is None else reply.text,
    }


def _unjudged(
    prompt: Prompt, lacking: list[str], reply: JudgeReply | None
) -> OutputNotAsked | UnreadOutput:
    row: UnscoredOutput = {
        **prompt_fields(prompt.key),
        "dataset": prompt.dataset,
        "why": "missing_context" if reply is None else reply.why or "unparsed",
    }
    if reply is None:
        return {**row, "missing": lacking}
    return {**row, "reply": reply.text, "finish_reason": reply.finish_reason}


def _metrics(
    rubric: Rubric, rows: Sequence[ScoredOutput], sets: Sequence[str]
) -> tuple[dict[str, MetricValue], list[str]]:
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


def _missing_findings(rows: Sequence[ScoredOutput], lacking: Sequence[list[str]]) -> list[Finding]:
    without = [(row, names) for row, names in zip(rows, lacking, strict=True) if names]
    if not without:
        return []
    count = Counter(name for _, names in without for name in names)
    counts = ", ".join(f"{name} ({number})" for name, number in sorted(count.items()))
    message = (
        f"{len(without)} of {len(rows)} prompts have no text for what the judge must be shown, "
        f"{counts}: they were not judged"
    )
    evidence = {
        "prompts": len(without),
        "inputs": dict(sorted(count.items())),
        "examples": [row["instruction"][:200] for row, _ in without[:3]],
    }
    return [Finding("missing_context", "warning", message, evidence)]


def _empty_findings(empty: Sequence[str], prompts: int) -> list[Finding]:
    if not empty:
        return []
    message = (
        f"the judge was shown no text as {' and '.join(empty)}, as the spec asks: its scores are not "
        "those of what the rubric says"
    )
    return [
        Finding("missing_context", "warning", message, {"prompts": prompts, "inputs": [*empty]})
    ]
