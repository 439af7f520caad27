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

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from harness.artefact.call import StageCall, StageResult
from harness.artefact.events import Progress
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
from harness.judge.kinds.grading import GradingJudge
from harness.judge.pairs import (
    ANNOTATIONS,
    KEPT_FILES,
    LEADERBOARD,
    UNJUDGED,
    Pair,
    ask_again,
    firsts,
    identical_notes,
    output_counts,
    read_pairs,
    write_rows,
)
from harness.judge.scores import (
    DRAW,
    describe,
    metrics_of_sets,
    position_findings,
    win_rate_metric,
    write_leaderboard,
)
from harness.llm.asking import ServedModels, ask_until_read
from harness.llm.calls import fill
from harness.llm.client import Client, open_client
from harness.llm.reply import Reply
from harness.spec.prompts import PromptSet

SCORE = "winning_score"
REVIEWS = ("reviews_model_first.json", "reviews_baseline_first.json")

Replies = tuple[Reply, Reply] | None
"""To both orders of a prompt; None where nothing was asked."""


def run(
    call: StageCall, judge: GradingJudge, prompts: PromptSet, replicate: int = 0
) -> StageResult:
    """Grade the outputs and write the artefact's files into the call's work folder.

    Raises:
        InputError: outputs and baseline do not fit the prompts, or the judge cannot be asked.
        HarnessError: a call failed for good, or no prompt could be judged.
    """
    pairs = read_pairs(call, prompts, judge.reference)
    served = ServedModels(judge.on_model_change, call.folder)
    client, replies = asyncio.run(_ask(call, judge, pairs, replicate, served))
    rows = [_annotate(judge, *parts) for parts in zip(pairs, replies, strict=True)]
    unjudged = [
        _unjudged(row, both)
        for row, both in zip(rows, replies, strict=True)
        if both is not None and row["preference"] is None
    ]
    write_rows(call.folder / UNJUDGED, unjudged)
    described = describe([row["preference"] for row in rows])
    if described["n_total"] == 0:
        first = next(pair_replies for pair_replies in replies if pair_replies)[0]
        raise HarnessError(
            f"for none of the {len(pairs)} prompts could both gradings be read; the first reply is "
            f"{(first.why or first.text)[:200]!r}",
            hint=f"see {call.folder / UNJUDGED}; does {judge.prompt.path} ask for two scores from "
            f"{judge.lowest:g} to {judge.highest:g} on the first line? {ask_again(call.folder)}",
        )
    (call.folder / ANNOTATIONS).write_text(json.dumps(rows, indent=2) + "\n", encoding="ascii")
    outputs = [pair.output for pair in pairs]
    write_leaderboard(call.folder / LEADERBOARD, pairs[0].generator, outputs, described)
    _write_reviews(call, rows)
    bias = position_bias([row["scores"] for row in rows if row["verdicts"] is not None])
    preferences = [row["preference"] for row in rows]
    rates = {"win_rate": win_rate_metric(described, len(pairs))}
    rates |= metrics_of_sets([pair.set for pair in pairs], preferences)
    return StageResult(
        keep=[*KEPT_FILES, *REVIEWS],
        # A set's winning score is its win rate on another scale.
        metrics=rates | {SCORE: winning_score(rates["win_rate"])},
        counts={
            **output_counts(pairs),
            "judged": described["n_total"],
            "unjudged": len(unjudged),
            "unread_replies": sum((row["scores"] or []).count(None) for row in rows),
        },
        used={"served_models": sorted(served.counts), "position_bias": bias},
        seeds={"replicate": replicate},
        cost=client.cost(),
        simulated=["judge"] if client.simulated else [],
        notes=[*served.notes(), *identical_notes(pairs), *bias_notes(bias)],
        findings=[*served.findings(), *position_findings(bias)],
    )


def question(instruction: str, given: str) -> str:
    """What the judge is shown as the question; an input follows it as in the published code."""
    return f"{instruction} Input: {given}" if given else instruction


async def _ask(
    call: StageCall,
    judge: GradingJudge,
    pairs: Sequence[Pair],
    replicate: int,
    served: ServedModels,
) -> tuple[Client, list[Replies]]:
    first = firsts(pairs)
    asked = [i for i, pair in enumerate(pairs) if first[i] == i and pair.output != pair.baseline]
    bodies = [
        _body(judge, pairs[index], replicate, model_first)
        for index in asked
        for model_first in (True, False)
    ]
    progress = Progress("judge", len(bodies), "gradings")
    done = unread = 0

    def count(index: int, reply: Reply) -> None:
        nonlocal done, unread
        done += 1
        unread += _read(judge, reply) is None
        progress.show(done, unread=unread)

    async with open_client(call, judge.judge, judge.transcript) as client:
        replies = await ask_until_read(
            client, bodies, lambda r: _read(judge, r), judge.asks, count, served=served
        )
    both = dict(zip(asked, zip(replies[::2], replies[1::2], strict=True), strict=True))
    return client, [both.get(index) for index in first]


def _body(judge: GradingJudge, pair: Pair, replicate: int, model_first: bool) -> dict[str, Any]:
    shown = (pair.output, pair.baseline) if model_first else (pair.baseline, pair.output)
    asked = {
        "question": question(pair.instruction, pair.input),
        "answer_1": shown[0],
        "answer_2": shown[1],
    }
    messages = [
        {"role": "system", "content": judge.system.text.removesuffix("\n")},
        {"role": "user", "content": fill(judge.prompt.text, asked)},
    ]
    sampling = judge.sampling.model_dump(exclude_none=True)
    if replicate > 0:
        sampling["seed"] = sampling.get("seed", 0) + replicate
    return {"messages": messages, **sampling}


def _read(judge: GradingJudge, reply: Reply) -> Scores | None:
    return read_scores(reply.text, judge.lowest, judge.highest)


def _annotate(judge: GradingJudge, pair: Pair, replies: Replies) -> dict[str, Any]:
    """One row of annotations.json. `scores` as they were given: (model, baseline), then (baseline,
    model); null for an order that could not be read. `verdicts` are the model's, of both orders."""
    told: dict[str, Any] = {"scores": None, "verdicts": None, "preference": DRAW}
    if replies is not None:
        first, second = (_read(judge, reply) for reply in replies)
        told = {"scores": [first, second], "verdicts": None, "preference": None}
        if first is not None and second is not None:
            orders = (first, second)
            told |= {"verdicts": verdicts(orders), "preference": preference(orders)}
    return {
        "instruction": pair.instruction,
        **({"input": pair.input} if pair.input else {}),
        "dataset": pair.dataset,
        "output_1": pair.baseline,
        "generator_1": pair.baseline_generator,
        "output_2": pair.output,
        "generator_2": pair.generator,
        "annotator": judge.judge.model,
        **told,
        "raw_completion": None if replies is None else [reply.text for reply in replies],
    }


def _unjudged(row: dict[str, Any], replies: tuple[Reply, Reply]) -> dict[str, Any]:
    told: dict[str, Any] = {n: row[n] for n in ("instruction", "input", "dataset") if n in row}
    return {
        **told,
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
