"""The harness's own pairwise judge: one call a prompt, which output is better, a or b.

- The model's output is shown as a or as b, drawn for each prompt and replicate, so that a judge
  that prefers a place cannot favour a model.
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

from harness.artefact.call import StageCall, StageResult
from harness.artefact.events import Progress
from harness.errors import HarnessError
from harness.judge.kinds.preference import PreferenceJudge
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
    BASELINE,
    DRAW,
    MODEL,
    describe,
    metrics_of_sets,
    position_bias,
    position_findings,
    position_notes,
    win_rate_metric,
    write_leaderboard,
)
from harness.llm.asking import ServedModels, ask_until_read
from harness.llm.calls import fill
from harness.llm.client import Client, open_client
from harness.llm.reply import Reply
from harness.spec.prompts import PromptSet

Verdict = Literal["a", "b", "tie"]

_VERDICT = re.compile(
    r"""
    [\W_]* (?: output [\W_]* )? (?P<verdict> a | b | tie ) \b [*_"'`”’)\]]*
    (?P<more>
        [*_"'`”’)\].!\s]* (?: $ | \n )              # alone on its line
      | \s* [.,:;!–—-]+ [*_"'`”’]* \s              # a: ... or a, ...
      | \s+ is \s+ (?: (?:clearly | much | far | slightly | the) \s+ )*
            (?: better | best | preferred | preferable | superior | winner | right | correct ) \b
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MAY_REVERSE = re.compile(
    r"\b(?:but|however|yet|although|though|while|whereas|only|if|unless|except|not|no|\w+n['’]t"
    r"|both|neither|equally|wrong|worse|worst|incorrect|bad|poor|fails?|lacks?|miss(?:es|ing))\b",
    re.IGNORECASE,
)
"""Words of an explanation on the verdict's line that may be the opposite's."""
_REASON = re.compile(r"\s*(?:because|since)\b", re.IGNORECASE)
_CLAUSE = (
    r"(?<![\W_])(?>[\W_]*[\n.,:;!?–—-])[\W_]*+"
    r"(?:(?:so|and|but|then|thus|while|whereas|therefore)\b[\W_]*+)?"
)
_CLAIM = r"(?:wins\b|is\s+(?:\w+\s+){0,2}(?:better|best|preferred|preferable|superior)\b)"
_OTHERS = {
    # A small a before a word that is no verb is an article.
    letter: re.compile(
        rf"{_CLAUSE}(?:output[\W_]*{letter}\b|{letter}{after})|\b{letter}[\W_]+{_CLAIM}",
        re.IGNORECASE,
    )
    for letter, after in (("a", r"(?=[\W_]*(?:[^\w\s_]|$|\n)|\s+(?:\w+s|was|had)\b)"), ("b", r"\b"))
}
"""What says something of this output that a verdict for the other one does not go with."""
_VERDICTS: dict[str, Verdict] = {"a": "a", "b": "b", "tie": "tie"}


def run(call: StageCall, judge: PreferenceJudge, prompts: PromptSet, replicate: int) -> StageResult:
    """Judge the outputs and write the artefact's files into the call's work folder.

    Raises:
        InputError: outputs and baseline do not fit the prompts, or the judge cannot be asked.
        HarnessError: a call failed for good, or no reply has a verdict.
    """
    pairs = read_pairs(call, prompts, judge.reference)
    served = ServedModels(judge.on_model_change, call.folder)
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
            **({"why": reply.why} if reply.is_declined else {}),
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
            f"{(unjudged[0].get('why') or unjudged[0]['reply'])[:200]!r}",
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
        notes=[*served.notes(), *identical_notes(pairs), *position_notes(bias)],
        findings=[*served.findings(), *position_findings(bias)],
    )


def is_switched(instruction: str, replicate: int, given: str = "") -> bool:
    """Whether the model's output is shown as a, and the baseline's as b; `given`: the prompt's
    input."""
    asked = f"{instruction}\n{given}" if given else instruction
    return random.Random(f"order{asked}{replicate}").choice([False, True])


def read_verdict(reply: str) -> Verdict | None:
    """The verdict that a reply begins with, None where it does not, or may be taken back.

    `b`, `**B.**`, `Output (a)`, `"tie", as ...` and `A is better` are verdicts. `A better answer
    would ...` and `B is wrong` are not: nothing has to follow on that line, or `is` with a word for
    better, or punctuation with an explanation without words such as `but` and `wrong`, unless it is
    a reason (`b, because a is wrong`). Nor is it one where a clause begins with the other output
    (`a: short. b: right`), or says that it wins.
    """
    found = _VERDICT.match(reply)
    if found is None:
        return None
    verdict, rest = _VERDICTS[found["verdict"].lower()], reply[found.end() :]
    line = "" if found["more"].endswith("\n") else rest.partition("\n")[0]
    if not _REASON.match(line) and verdict != "tie" and _MAY_REVERSE.search(line):
        return None
    others = [other for letter, other in _OTHERS.items() if letter != verdict]
    after = reply[found.end("verdict") :]
    return None if any(other.search(after) for other in others) else verdict


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
    if is_switched(pair.instruction, replicate, pair.input):
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
    switched = is_switched(pair.instruction, replicate, pair.input)
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
