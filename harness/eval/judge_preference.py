"""The harness's own pairwise judge: one call a prompt, which output is better, a or b.

- The model's output is shown as a or as b, drawn for each instruction and replicate, so that a
  judge that prefers a place cannot favour a model.
- Identical outputs are a draw without a call.
- A reply that does not begin with a verdict is asked for again, `asks` times at most; after that its
  prompt is unjudged, which is counted.
- A prompt that is in several prompt sets is judged once.
- A replicate asks anew: besides the order, the request's `seed` is the replicate's number added to
  `sampling.seed` (0 when left open), so that no request of one replicate is another one's.
"""

import asyncio
import json
import random
import re
from typing import Any, Literal

from harness.call import StageCall, StageResult
from harness.errors import HarnessError
from harness.eval.asking import ServedModels, ask_until_read
from harness.eval.judge_pairs import (
    ANNOTATIONS,
    KEPT_FILES,
    LEADERBOARD,
    UNJUDGED,
    Pair,
    ask_again,
    firsts,
    output_counts,
    read_pairs,
    write_rows,
)
from harness.eval.judge_scores import (
    BASELINE,
    DRAW,
    MODEL,
    describe,
    metrics_of_sets,
    position_bias,
    position_findings,
    position_note,
    win_rate_metric,
    write_leaderboard,
)
from harness.llm.client import Client
from harness.llm.progress import Progress
from harness.llm.prompt import fill
from harness.llm.reply import Reply
from harness.llm.stage_calls import open_client
from harness.spec.answer import PromptSet
from harness.spec.judges import PreferenceJudge

Verdict = Literal["a", "b", "tie"]

_VERDICT = re.compile(
    r"""
    [\W_]* (?: output [\W_]* )? (?P<verdict> a | b | tie )
    (?= [\W_]* (?: $ | \n )                 # alone on its line
      | [*_"”]* [)\].,:;!?]                 # a) or a. or a: ...
      | [*_"”]* \s+ (?: is\b | [-–—:] \s )  # a is ... or a - ...
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_VERDICTS: dict[str, Verdict] = {"a": "a", "b": "b", "tie": "tie"}


def run(call: StageCall, judge: PreferenceJudge, prompts: PromptSet, replicate: int) -> StageResult:
    """Judge the outputs and write the artefact's files into the call's work folder.

    Raises:
        InputError: outputs and baseline do not fit the prompts, or the judge cannot be asked.
        HarnessError: a call failed for good, or no reply has a verdict.
    """
    pairs = read_pairs(call, prompts, judge.reference)
    served = ServedModels(judge.on_model_change)
    client = open_client(call, judge.judge, judge.transcript)
    replies = asyncio.run(_ask(client, judge, pairs, replicate, served))
    rows = [
        _annotate(pair, reply, replicate, judge.judge.model)
        for pair, reply in zip(pairs, replies, strict=True)
    ]
    unjudged = [
        {
            "instruction": row["instruction"],
            **({"input": row["input"]} if "input" in row else {}),
            "reply": reply.text,
            "finish_reason": reply.finish_reason,
        }
        for row, reply in zip(rows, replies, strict=True)
        if row["preference"] is None and reply is not None
    ]
    write_rows(call.folder / UNJUDGED, unjudged)
    preferences = [row["preference"] for row in rows]
    described = describe(preferences)
    if described["n_total"] == 0:
        raise HarnessError(
            f"none of the judge's {len(pairs)} replies begins with a, b or tie; the first is "
            f"{unjudged[0]['reply'][:80]!r}",
            hint=f"see {call.folder / UNJUDGED}; does the prompt {judge.prompt.path} ask for it? "
            + ask_again(call.folder),
        )
    (call.folder / ANNOTATIONS).write_text(json.dumps(rows, indent=2) + "\n", encoding="ascii")
    outputs = [pair.output for pair in pairs]
    write_leaderboard(call.folder / LEADERBOARD, pairs[0].generator, outputs, described)
    bias = position_bias(
        (row["is_switched"], row["preference"])
        for row, reply in zip(rows, replies, strict=True)
        if reply is not None
    )
    return StageResult(
        keep=KEPT_FILES,
        metrics={
            "win_rate": win_rate_metric(described, len(pairs)),
            **metrics_of_sets([pair.set for pair in pairs], preferences),
        },
        counts={
            **output_counts(pairs),
            "judged": described["n_total"],
            "unjudged": len(unjudged),
            "shown_first": sum(row["is_switched"] for row in rows),
        },
        used={"served_models": sorted(served.counts), "position_bias": bias},
        seeds={"replicate": replicate},
        cost=client.cost(),
        simulated=["judge"] if client.simulated else [],
        notes=[*served.notes(), *filter(None, [position_note(bias)])],
        findings=[*served.findings(), *position_findings(bias)],
    )


def is_switched(instruction: str, replicate: int) -> bool:
    """Whether the model's output is shown as a, and the baseline's as b."""
    return random.Random(f"order{instruction}{replicate}").choice([False, True])


def read_verdict(reply: str) -> Verdict | None:
    """The verdict that a reply begins with, None where it does not.

    `b`, `**B.**`, `Output (a)`, `"tie", as ...` and `A is better` are verdicts. `A better answer
    would ...` is not: punctuation or `is` has to follow, or nothing on that line. The same holds
    for b, lest the two be read differently.
    """
    found = _VERDICT.match(reply)
    return None if found is None else _VERDICTS[found["verdict"].lower()]


async def _ask(
    client: Client,
    judge: PreferenceJudge,
    pairs: list[Pair],
    replicate: int,
    served: ServedModels,
) -> list[Reply | None]:
    """The replies in the order of the pairs, None for identical outputs."""
    progress = Progress("judge", len(pairs), "prompts")
    first = firsts(pairs)
    asked = [i for i, p in enumerate(pairs) if first[i] == i and p.output != p.baseline]
    done, unread = len(pairs) - len(asked), 0

    def count(index: int, reply: Reply) -> None:
        nonlocal done, unread
        done += 1
        unread += read_verdict(reply.text) is None
        progress.show(done, unjudged=unread)

    async with client:
        bodies = [_body(judge, pairs[index], replicate) for index in asked]
        replies = await ask_until_read(
            client,
            bodies,
            lambda reply: read_verdict(reply.text),
            judge.asks,
            on_done=count,
            served=served,
        )
    answered = dict(zip(asked, replies, strict=True))
    return [answered.get(index) for index in first]


def _body(judge: PreferenceJudge, pair: Pair, replicate: int) -> dict[str, Any]:
    shown = [pair.baseline, pair.output]
    if is_switched(pair.instruction, replicate):
        shown.reverse()
    asked = f"{pair.instruction}\n{pair.input}" if pair.input else pair.instruction
    prompt = fill(
        judge.prompt.text, {"instruction": asked, "output_a": shown[0], "output_b": shown[1]}
    )
    sampling = judge.sampling.model_dump(exclude_none=True)
    if replicate > 0:
        sampling["seed"] = sampling.get("seed", 0) + replicate
    return {"messages": [{"role": "user", "content": prompt}], **sampling}


def _annotate(pair: Pair, reply: Reply | None, replicate: int, model: str) -> dict[str, Any]:
    """One row of annotations.json, in alpaca_eval's fields and `is_switched`."""
    switched = is_switched(pair.instruction, replicate)
    preference: float | None = DRAW
    if reply is not None:
        verdict = read_verdict(reply.text)
        first, second = (MODEL, BASELINE) if switched else (BASELINE, MODEL)
        preference = {"a": first, "b": second, "tie": DRAW, None: None}[verdict]
    return {
        "instruction": pair.instruction,
        **({"input": pair.input} if pair.input else {}),
        "output_1": pair.baseline,
        "generator_1": pair.baseline_generator,
        "dataset": pair.dataset,
        "output_2": pair.output,
        "generator_2": pair.generator,
        "annotator": model,
        "preference": preference,
        "raw_completion": None if reply is None else reply.text,
        "is_switched": switched,
    }
