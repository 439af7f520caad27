"""Pairwise grading as in AlpaGasus: a judge scores two answers, each pair in both orders.

- `sampling`, `system`, `prompt`: what is sent. Both orders of a prompt are asked side by side.
- `lowest`, `highest`: a score outside of them is none. A reply without two scores on its first line is
  asked again, up to `asks` times in all; a prompt one of whose orders stays unread is unjudged: it is
  listed, and the bounds count it as lost and as won.
- Identical answers are a tie without a call: both orders would be the same request. A prompt that is
  in the set more than once is asked about once.
- A replicate asks anew: the request's `seed` is its number added to `sampling.seed` (0 if left open).
- `reviews_model_first.json` and `reviews_baseline_first.json` hold the same prompts in the form that
  AlpaGasus's tools read, without those that were not asked; a score that could not be read is null,
  which those tools refuse, where theirs, [-1, -1], would count as a tie.
"""

import json
from collections.abc import Sequence
from typing import Any

from harness.artefact.call import StageCall, StageResult
from harness.errors import HarnessError
from harness.judge.grades import (
    Scores,
    bias_notes,
    position_bias,
    preference,
    read_scores,
    verdicts,
    winning_score,
)
from harness.judge.judge import replicate_of
from harness.judge.kinds.grading import GradingJudge
from harness.judge.pairs import (
    UNJUDGED,
    Pair,
    annotation,
    ask,
    ask_again,
    pairwise_result,
    prompt_fields,
    read_pairs,
    sampling_of,
    write_judgements,
    write_rows,
)
from harness.judge.scores import DRAW, describe
from harness.llm.calls import fill
from harness.llm.reply import Reply

SCORE = "winning_score"
REVIEWS = ("reviews_model_first.json", "reviews_baseline_first.json")


def run(call: StageCall, judge: GradingJudge) -> StageResult:
    """Grade the outputs and write the artefact's files into the call's work folder.

    Raises:
        InputError: outputs and baseline do not fit the prompts, or the judge cannot be asked.
        HarnessError: a call failed for good, or no prompt could be judged.
    """
    pairs, replicate = read_pairs(call, judge.reference), replicate_of(call)
    asked_about = ask(
        call,
        judge,
        pairs,
        lambda pair: [_body(judge, pair, replicate, model_first) for model_first in (True, False)],
        lambda reply: _read(judge, reply) is not None,
        "gradings",
    )
    replies = asked_about.replies
    rows = [_annotate(judge, *parts) for parts in zip(pairs, replies, strict=True)]
    unjudged = [
        _unjudged(row, pair_replies)
        for row, pair_replies in zip(rows, replies, strict=True)
        if pair_replies is not None and row["preference"] is None
    ]
    write_rows(call.folder / UNJUDGED, unjudged)
    preferences = [row["preference"] for row in rows]
    described = describe(preferences)
    if described["n_total"] == 0:
        first = next(pair_replies for pair_replies in replies if pair_replies)[0]
        raise HarnessError(
            f"for none of the {len(pairs)} prompts could both gradings be read; the first reply is "
            f"{(first.why or first.text)[:200]!r}",
            hint=f"see {call.folder / UNJUDGED}; does {judge.prompt.path} ask for two scores from "
            f"{judge.lowest:g} to {judge.highest:g} on the first line? {ask_again(call.folder)}",
        )
    write_judgements(call, pairs, rows)
    _write_reviews(call, rows)
    bias = position_bias([row["scores"] for row in rows if row["verdicts"] is not None])
    result = pairwise_result(
        call,
        asked_about.client,
        asked_about.served,
        pairs,
        preferences,
        described,
        len(unjudged),
        bias,
        bias_notes(bias),
    )
    result.keep += REVIEWS
    # A set's winning score is its win rate on another scale.
    result.metrics[SCORE] = winning_score(result.metrics["win_rate"])
    result.counts["unread_replies"] = sum((row["scores"] or []).count(None) for row in rows)
    return result


def question(instruction: str, prompt_input: str) -> str:
    """What the judge is shown as the question; an input follows it as in the published code."""
    return f"{instruction} Input: {prompt_input}" if prompt_input else instruction


def _body(judge: GradingJudge, pair: Pair, replicate: int, model_first: bool) -> dict[str, Any]:
    answers = (pair.output, pair.baseline) if model_first else (pair.baseline, pair.output)
    parts = {
        "question": question(pair.instruction, pair.input),
        "answer_1": answers[0],
        "answer_2": answers[1],
    }
    messages = [
        {"role": "system", "content": judge.system.text.removesuffix("\n")},
        {"role": "user", "content": fill(judge.prompt.text, parts)},
    ]
    return {"messages": messages, **sampling_of(judge.sampling, replicate)}


def _read(judge: GradingJudge, reply: Reply) -> Scores | None:
    return read_scores(reply.text, judge.lowest, judge.highest)


def _annotate(judge: GradingJudge, pair: Pair, replies: Sequence[Reply] | None) -> dict[str, Any]:
    """One row of annotations.json. `scores` as they were given: (model, baseline), then (baseline,
    model); null for an order that could not be read. `verdicts` are the model's, of both orders."""
    judgement: dict[str, Any] = {"scores": None, "verdicts": None, "preference": DRAW}
    if replies is not None:
        first, second = (_read(judge, reply) for reply in replies)
        judgement = {"scores": [first, second], "verdicts": None, "preference": None}
        if first is not None and second is not None:
            orders = (first, second)
            judgement |= {"verdicts": verdicts(orders), "preference": preference(orders)}
    return {
        **annotation(pair, judge.judge.model, dataset_first=True),
        **judgement,
        "raw_completion": None if replies is None else [reply.text for reply in replies],
    }


def _unjudged(row: dict[str, Any], replies: Sequence[Reply]) -> dict[str, Any]:
    return {
        **prompt_fields(row),
        "dataset": row["dataset"],
        "replies": row["raw_completion"],
        "finish_reasons": [reply.finish_reason for reply in replies],
        **({"why": [r.why for r in replies]} if any(r.is_declined for r in replies) else {}),
    }


def _write_reviews(call: StageCall, rows: Sequence[dict[str, Any]]) -> None:
    for order, name in enumerate(REVIEWS):
        reviews = [
            {
                "question_id": f"{row['dataset'] or 'prompt'}_{index}",
                "text": question(row["instruction"], row.get("input", "")),
                "model": row["output_2"],
                "baseline": row["output_1"],
                "review": row["raw_completion"][order],
                "score": row["scores"][order],
            }
            for index, row in enumerate(rows)
            if row["scores"] is not None
        ]
        text = json.dumps(reviews, indent=4) + "\n"
        (call.folder / name).write_text(text, encoding="ascii")
