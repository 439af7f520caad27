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

import random
import re
from typing import Any, Literal

from harness.artefact.call import StageCall, StageResult
from harness.errors import HarnessError
from harness.judge.judge import replicate_of
from harness.judge.kinds.preference import PreferenceJudge
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
    unread_reply,
    write_judgements,
    write_rows,
)
from harness.judge.scores import (
    BASELINE,
    DRAW,
    MODEL,
    describe,
    position_bias,
    position_notes,
)
from harness.llm.calls import fill
from harness.llm.reply import Reply

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


def run(call: StageCall, judge: PreferenceJudge) -> StageResult:
    """Judge the outputs and write the artefact's files into the call's work folder.

    Raises:
        InputError: outputs and baseline do not fit the prompts, or the judge cannot be asked.
        HarnessError: a call failed for good, or no reply has a verdict.
    """
    pairs, replicate = read_pairs(call, judge.reference), replicate_of(call)
    asked_about = ask(
        call,
        judge,
        pairs,
        lambda pair: [_body(judge, pair, replicate)],
        lambda reply: read_verdict(reply.text) is not None,
        "prompts",
    )
    replies = [of_pair[0] if of_pair else None for of_pair in asked_about.replies]
    rows = [
        _annotate(pair, reply, replicate, judge.judge.model)
        for pair, reply in zip(pairs, replies, strict=True)
    ]
    unjudged = [
        {**prompt_fields(row), **unread_reply(reply, reply.text)}
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
    write_judgements(call, pairs, rows)
    bias = position_bias(
        (row["is_switched"], row["preference"])
        for row, reply in zip(rows, replies, strict=True)
        if reply is not None
    )
    result = pairwise_result(
        call,
        asked_about.client,
        asked_about.served,
        pairs,
        preferences,
        described,
        len(unjudged),
        bias,
        position_notes(bias),
    )
    result.counts["shown_first"] = sum(row["is_switched"] for row in rows)
    return result


def is_switched(instruction: str, replicate: int, prompt_input: str = "") -> bool:
    """Whether the model's output is shown as a, and the baseline's as b; `given`: the prompt's
    input."""
    text = f"{instruction}\n{prompt_input}" if prompt_input else instruction
    return random.Random(f"order{text}{replicate}").choice([False, True])


def read_verdict(reply: str) -> Verdict | None:
    """The verdict that a reply begins with, None where it does not, or may be taken back.

    `b`, `**B.**`, `Output (a)`, `"tie", as ...` and `A is better` are verdicts. `A better answer
    would ...` and `B is wrong` are not: nothing has to follow on that line, or `is` with a word for
    better, or punctuation with an explanation without words such as `but` and `wrong`, unless it is
    a reason (`b, because a is wrong`). Nor is it one where a clause begins with the other output
    (`a: short. b: right`), or says that it wins.
    """
    match = _VERDICT.match(reply)
    if match is None:
        return None
    verdict, rest = _VERDICTS[match["verdict"].lower()], reply[match.end() :]
    line = "" if match["more"].endswith("\n") else rest.partition("\n")[0]
    if not _REASON.match(line) and verdict != "tie" and _MAY_REVERSE.search(line):
        return None
    claims = [claim for letter, claim in _OTHERS.items() if letter != verdict]
    after = reply[match.end("verdict") :]
    return None if any(claim.search(after) for claim in claims) else verdict


def _body(judge: PreferenceJudge, pair: Pair, replicate: int) -> dict[str, Any]:
    outputs = [pair.baseline, pair.output]
    if is_switched(pair.instruction, replicate, pair.input):
        outputs.reverse()
    text = f"{pair.instruction}\n{pair.input}" if pair.input else pair.instruction
    prompt = fill(
        judge.prompt.text, {"instruction": text, "output_a": outputs[0], "output_b": outputs[1]}
    )
    messages = [{"role": "user", "content": prompt}]
    return {"messages": messages, **sampling_of(judge.sampling, replicate)}


def _annotate(pair: Pair, reply: Reply | None, replicate: int, model: str) -> dict[str, Any]:
    """One row of annotations.json, in alpaca_eval's fields and `is_switched`."""
    switched = is_switched(pair.instruction, replicate, pair.input)
    preference: float | None = DRAW
    if reply is not None:
        verdict = read_verdict(reply.text)
        first, second = (MODEL, BASELINE) if switched else (BASELINE, MODEL)
        preference = {"a": first, "b": second, "tie": DRAW, None: None}[verdict]
    return {
        **annotation(pair, model, dataset_first=False),
        "preference": preference,
        "raw_completion": None if reply is None else reply.text,
        "is_switched": switched,
    }
