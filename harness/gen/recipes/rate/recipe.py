"""Ratings of examples by a judge, as AlpaGasus had them (arXiv 2307.08701).

The judge sees an example's instruction, input and output in `prompt`, and is asked for a score of
their `dimension`. The score is read from the reply's first line alone, and never guessed: that line is
one number from `lowest` to `highest`, with or without a label, or it is no rating. Every example
stays, rated or not; `select` is what chooses. Where nothing at all was rated, no data set is made.
Files: ratings.jsonl, and unrated.jsonl with the reason for each example without a rating.

Raises InputError for preference data and for an empty data set, and what harness.llm.client raises.
"""

import re
from collections.abc import Mapping
from typing import Literal

from harness.artefact.call import StageCall
from harness.data.dataset import DatasetExample, Lineage, write_rows
from harness.data.dropped import Tally
from harness.gen.ask import SHOWN, ask, require_outputs, unseen
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.rate import RateGen
from harness.gen.refusals import is_refusal
from harness.llm.calls import fill, prompt_body
from harness.llm.reply import Body, Reply

RECIPE = "rate"
RATINGS, UNRATED = "ratings.jsonl", "unrated.jsonl"

Reason = Literal[
    "refused",
    "empty_reply",
    "cut",
    "no_number",
    "several_numbers",
    "other_words",
    "other_scale",
    "out_of_range",
]
"""Why a reply is no rating; the first that holds. other_words: beside the number there is more than a
label. other_scale: "8/10" where the highest is not 10."""

_NUMBER = r"[-+]?\d{1,9}(?:\.\d{1,9})?"
_NUMBERS = re.compile(_NUMBER, re.ASCII)
_RATING = re.compile(
    rf"(?:[a-z][a-z ]{{0,40}}[:=] ?|(?:score|rating|grade|accuracy|helpfulness) )?"
    rf"(?P<score>{_NUMBER})(?: ?(?:/|out of) ?(?P<scale>{_NUMBER}))?(?: (?:points?|stars?))?",
    re.ASCII | re.IGNORECASE,
)
_BETWEEN_RATINGS = re.compile(r"[,;|] ")
_MARKS = re.compile(r"[*_`#]+")


def make(call: StageCall, gen: RateGen, input_examples: list[DatasetExample]) -> RecipeResult:
    """The examples with their ratings, in their order; ratings that they had are replaced."""
    require_outputs(RECIPE, input_examples)
    bodies = [_body(gen, example) for example in input_examples]
    client, replies = ask(call, gen.judge, gen.transcript, bodies, RECIPE)
    examples: list[DatasetExample] = []
    tally = Tally(RECIPE, "examples")
    for example, reply in zip(input_examples, replies, strict=True):
        rating_or_reason = read_rating(reply, gen.lowest, gen.highest)
        rating = None if isinstance(rating_or_reason, str) else rating_or_reason
        lineage = Lineage(RECIPE, RECIPE, (reply.request,))
        examples.append(example.after(lineage, rating=rating))
        if isinstance(rating_or_reason, str):
            about = {"id": example.id, "reason": rating_or_reason, "request": reply.request}
            tally.drop(rating_or_reason, **about, reply=reply.text[:SHOWN])
    unrated = tally.dropped.total()
    rated = tally.kept = len(examples) - unrated
    write_rows(call.folder / RATINGS, map(_row, examples))
    names = ("id", "reason", "request", "reply")
    write_rows(call.folder / UNRATED, ({name: row[name] for name in names} for row in tally.rows))
    return RecipeResult(
        # A data set of which nothing was rated is not what was asked for.
        examples=examples if rated else [],
        filters=[Tally(RECIPE, "examples", len(examples)) if rated else tally],
        files=[RATINGS, UNRATED],
        counts={"rated": rated, "unrated": unrated, **tally.counts("unrated")},
        notes=_notes(tally) + unseen(input_examples),
        client=client,
    )


def read_rating(reply: Reply, lowest: float, highest: float) -> float | Reason:
    """The rating on the reply's first line, or the reason why there is none.

    Two numbers on the line are a rating when each has a label of its own and they are the same; a
    scale (`/5`, `out of 5`) must be the highest score.
    """
    if is_refusal(reply):
        return "refused"
    first, newline, _ = reply.text.strip().partition("\n")
    line = " ".join(_MARKS.sub("", first).split()).rstrip(".!")
    if not line:
        return "empty_reply"
    if reply.finish_reason == "length" and not newline:
        # "4" may have been going to be "4.5".
        return "cut"
    numbers = _NUMBERS.findall(line)
    if not numbers:
        return "no_number"
    ratings = [_RATING.fullmatch(part) for part in _BETWEEN_RATINGS.split(line)]
    matches = [rating for rating in ratings if rating is not None]
    if len(matches) < len(ratings):
        return "several_numbers" if len({*map(float, numbers)}) > 1 else "other_words"
    if len({float(rating["score"]) for rating in matches}) > 1:
        return "several_numbers"
    if any(rating["scale"] and float(rating["scale"]) != highest for rating in matches):
        return "other_scale"
    score = float(matches[0]["score"])
    return score if lowest <= score <= highest else "out_of_range"


def _body(gen: RateGen, example: DatasetExample) -> Body:
    parts = {
        "instruction": example.instruction,
        "input": example.input,
        "output": example.output,
        "dimension": gen.dimension,
    }
    return prompt_body(fill(gen.prompt.text, parts), gen.sampling)


def _row(example: DatasetExample) -> Mapping[str, object]:
    request = example.lineage[-1].requests[0]
    return {"id": example.id, "rating": example.rating, "request": request}


def _notes(tally: Tally) -> list[str]:
    if not tally.dropped:
        return []
    return [f"{tally.share()} have no rating ({tally.in_words(by_name=True)}): see {UNRATED}"]
