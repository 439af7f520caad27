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
from dataclasses import dataclass

from harness.artefact.call import StageCall, StageResult
from harness.judge.grades import (
    GradingBias,
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
from harness.judge.pairs import Pair
from harness.judge.pairwise import (
    Annotation,
    PairAsker,
    PromptFields,
    Replies,
    judge_pairs,
    pair_fields,
    prompt_fields,
    sampling_of,
)
from harness.judge.scores import DRAW
from harness.llm.body import ChatBody
from harness.llm.calls import fill
from harness.llm.reply import Reply

SCORE = "winning_score"
REVIEWS = ("reviews_model_first.json", "reviews_baseline_first.json")


class Grades(Annotation):
    """A row of annotations.json; None where identical outputs were not asked about."""

    scores: list[Scores | None] | None
    """As they were given: (model, baseline), then (baseline, model); None for an order that could not
    be read."""
    verdicts: tuple[int, int] | None
    """The model's, of both orders."""
    raw_completion: list[str] | None


class UnreadGrading(PromptFields):
    """A line of unjudged.jsonl."""

    dataset: str | None
    replies: list[str]
    finish_reasons: list[str | None]


class DeclinedGrading(UnreadGrading):
    """The same where a server declined one of the two prompts."""

    why: list[str | None]


@dataclass(frozen=True)
class GradingAsker(PairAsker[Grades, GradingBias]):
    judge: GradingJudge
    replicate: int
    unit = "gradings"

    def requests(self, pair: Pair) -> list[ChatBody]:
        answers = (pair.output, pair.baseline)
        return [self._request(pair, *answers), self._request(pair, *reversed(answers))]

    def _request(self, pair: Pair, first: str, second: str) -> ChatBody:
        task = question(pair.instruction, pair.input)
        parts = {"question": task, "answer_1": first, "answer_2": second}
        return {
            "messages": [
                {"role": "system", "content": self.judge.system.text.removesuffix("\n")},
                {"role": "user", "content": fill(self.judge.prompt.text, parts)},
            ],
            **sampling_of(self.judge.sampling, self.replicate),
        }

    def _scores(self, reply: Reply) -> Scores | None:
        return read_scores(reply.text, self.judge.lowest, self.judge.highest)

    def is_read(self, reply: Reply) -> bool:
        return self._scores(reply) is not None

    def annotate(self, pair: Pair, replies: Replies | None) -> Grades:
        row: Grades = {
            # The data set comes earlier here.
            **prompt_fields(pair.key),
            "dataset": pair.dataset,
            **pair_fields(pair, self.judge.judge.model),
            "scores": None,
            "verdicts": None,
            "preference": DRAW,
            "raw_completion": None,
        }
        if replies is None:
            return row
        first, second = map(self._scores, replies)
        row["scores"], row["preference"] = [first, second], None
        if first is not None and second is not None:
            orders = (first, second)
            row["verdicts"], row["preference"] = verdicts(orders), preference(orders)
        row["raw_completion"] = [reply.text for reply in replies]
        return row

    def unjudged(self, pair: Pair, replies: Replies) -> UnreadGrading:
        row: UnreadGrading = {
            **prompt_fields(pair.key),
            "dataset": pair.dataset,
            "replies": [reply.text for reply in replies],
            "finish_reasons": [reply.finish_reason for reply in replies],
        }
        if not any(reply.is_declined for reply in replies):
            return row
        declined: DeclinedGrading = {**row, "why": [reply.why for reply in replies]}
        return declined

    def nothing_read(self, pairs: int) -> tuple[str, str]:
        scale = f"{self.judge.lowest:g} to {self.judge.highest:g}"
        return (
            f"for none of the {pairs} prompts could both gradings be read; the first reply",
            f"does {self.judge.prompt.name} (eval.judge.prompt) ask for two scores from {scale} on the "
            "first line?",
        )

    def position_bias(self, pairs: Sequence[Pair], rows: Sequence[Grades]) -> GradingBias:
        orders = [row["scores"] for row in rows if row["scores"] is not None]
        return position_bias(
            [
                (first, second)
                for first, second in orders
                if first is not None and second is not None
            ]
        )

    def bias_notes(self, bias: GradingBias) -> list[str]:
        return bias_notes(bias)


def run(call: StageCall, judge: GradingJudge) -> StageResult:
    """Grade the outputs and write the artefact's files into the call's work folder; raises as
    `judge_pairs`."""
    result, rows = judge_pairs(call, judge, GradingAsker(judge, replicate_of(call)))
    _write_reviews(call, rows)
    result.keep += REVIEWS
    # A set's winning score is its win rate on another scale.
    result.metrics[SCORE] = winning_score(result.metrics["win_rate"])
    result.counts["unread_replies"] = sum((row["scores"] or []).count(None) for row in rows)
    return result


def question(instruction: str, prompt_input: str) -> str:
    """What the judge is shown as the question; an input follows it as in the published code."""
    return f"{instruction} Input: {prompt_input}" if prompt_input else instruction


def _write_reviews(call: StageCall, rows: Sequence[Grades]) -> None:
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
            if row["scores"] is not None and row["raw_completion"] is not None
        ]
        text = json.dumps(reviews, indent=4) + "\n"
        (call.folder / name).write_text(text, encoding="ascii")
