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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.artefact.call import StageCall, StageResult
from harness.judge.judge import replicate_of
from harness.judge.kinds.preference import PreferenceJudge
from harness.judge.pairs import Pair
from harness.judge.pairwise import (
    Annotation,
    PairAsker,
    Replies,
    UnreadReply,
    judge_pairs,
    order_bias,
    pair_fields,
    sampling_of,
    unread_reply,
)
from harness.judge.scores import BASELINE, DRAW, MODEL, PositionBias
from harness.llm.body import ChatBody
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


class PreferenceAnnotation(Annotation):
    raw_completion: str | None
    is_switched: bool
    """Whether the model's output was shown as a."""


@dataclass(frozen=True)
class PreferenceAsker(PairAsker[PreferenceAnnotation, PositionBias]):
    judge: PreferenceJudge
    replicate: int

    def requests(self, pair: Pair) -> list[ChatBody]:
        outputs = [pair.baseline, pair.output]
        if is_switched(pair.instruction, self.replicate, pair.input):
            outputs.reverse()
        text = f"{pair.instruction}\n{pair.input}" if pair.input else pair.instruction
        parts = {"instruction": text, "output_a": outputs[0], "output_b": outputs[1]}
        prompt = fill(self.judge.prompt.text, parts)
        sampling = sampling_of(self.judge.sampling, self.replicate)
        return [{"messages": [{"role": "user", "content": prompt}], **sampling}]

    def is_read(self, reply: Reply) -> bool:
        return read_verdict(reply.text) is not None

    def annotate(self, pair: Pair, replies: Replies | None) -> PreferenceAnnotation:
        switched = is_switched(pair.instruction, self.replicate, pair.input)
        preference: float | None = DRAW
        if replies is not None:
            verdict = read_verdict(replies[0].text)
            first, second = (MODEL, BASELINE) if switched else (BASELINE, MODEL)
            preference = {"a": first, "b": second, "tie": DRAW, None: None}[verdict]
        return {
            **pair_fields(pair, self.judge.judge.model),
            "preference": preference,
            "raw_completion": None if replies is None else replies[0].text,
            "is_switched": switched,
        }

    def unjudged(self, pair: Pair, replies: Replies) -> UnreadReply:
        return unread_reply(pair.key, replies[0], replies[0].text)

    def nothing_read(self, pairs: int) -> tuple[str, str]:
        return (
            f"none of the judge's {pairs} replies begins with a, b or tie; the first",
            f"does {self.judge.prompt.name} (eval.judge.prompt) ask for it?",
        )

    def position_bias(
        self, pairs: Sequence[Pair], rows: Sequence[PreferenceAnnotation]
    ) -> PositionBias:
        shown_first = [row["is_switched"] for row in rows]
        return order_bias(pairs, shown_first, [row["preference"] for row in rows])


def run(call: StageCall, judge: PreferenceJudge) -> StageResult:
    """Judge the outputs and write the artefact's files into the call's work folder; raises as
    `judge_pairs`."""
    result, rows = judge_pairs(call, judge, PreferenceAsker(judge, replicate_of(call)))
    result.counts["shown_first"] = sum(row["is_switched"] for row in rows)
    return result


def is_switched(instruction: str, replicate: int, prompt_input: str = "") -> bool:
    """Whether the model's output is shown as a, and the baseline's as b."""
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
