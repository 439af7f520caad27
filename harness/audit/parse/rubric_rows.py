"""Rows of rubric scores, in whatever columns their judge wrote them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.answer.prompts import as_conversation
from harness.artefact.call import MANIFEST
from harness.audit.parse.files import JsonObject, Unreadable, read_json

SCORES = ("score", "rubric_score", "flow_score", "judge_score")
WORDS = ("feedback", "explanation", "rationale", "reasoning", "justification")
REPLIES = (
    "raw_completion",
    "raw_output",
    "raw_response",
    "reply",
    "raw",
    "judge_output",
    "completion",
)
PROMPTS = ("judge_prompt", "eval_prompt", "prompt")
OUTPUTS = ("output_2", "response", "answer", "model_output", "output")
QUESTIONS = ("query", "instruction", "question", "prompt", "input")
CONTEXT = re.compile(r"context|document|passage|source_text|evidence|retrieved", re.IGNORECASE)
"""Inputs by which an output is judged."""
_JUDGES_OWN = frozenset((*WORDS, *REPLIES, *PROMPTS, *OUTPUTS))
OTHER_READERS_COLUMNS = frozenset({"score1", "score2", "preference", "log_likelihoods", "doc_hash"})
"""Columns of judgements that are other readers'."""
_TAG = re.compile(r"<score>\s*(-?\d+(?:\.\d+)?)\s*</score>", re.IGNORECASE)
_NAMED_SCORE = re.compile(
    r"\b(?:score|rating|grade)\b[\"'*_` ]*(?:is|of)?[ :=*_`\"']{0,6}(\d+(?:\.\d+)?)(?!\s*-\s*\d)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d+)?(?![\w])")
_FAILURE = re.compile(
    r"\W*(?:(?:parse |parsing |json |api |timeout )?(?:error|exception|failure)\W*$"
    r"|\w*(?:error|exception)\b[^.,]*\b(?:pars\w+|decod\w+|json|expecting|timed? ?out|rate.?limit\w*|"
    r"connection|api|no score|invalid (?:response|output|format))\b"
    r"|\w*decode\w*error\b"
    r"|(?:failed to|could not|cannot|can't|unable to)(?: be)? "
    r"(?:parse|decode|extract|connect|load)\w*\b)",
    re.IGNORECASE,
)
"""`Error`, `Error: could not parse the reply`; not `Error: the year is wrong`."""
LONGEST_FAILURE = 200
KEPT_APART = re.compile(
    r"metric|rubric(?!_score)|criteri|judge|annotat|evaluator|model|generator|system|run|seed|repeat|"
    r"replicate|sample_(?:id|index)|turn",
    re.IGNORECASE,
)
"""Columns by which one judging of an output is told from another."""
ABOUT = ("metric", "rubric", "rubric_name", "criterion", "criteria", "task", "evaluator")
_EMPTY_TAG = re.compile(r"<(\w*context\w*)>\s*</\1>", re.IGNORECASE)
_POINTS = re.compile(r"(\d+)[-_ ]?point|(binary)|(likert)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class RubricRow:
    """One row. score: as stored, None where there is none; reply_score: what the judge's reply gives,
    and is_tagged: between the tags made for it. inputs: what the judge was shown beside the output."""

    score: float | None
    feedback: str | None
    reply: str | None
    inputs: dict[str, str]
    output: str | None
    question: str
    reply_score: float | None
    is_tagged: bool
    is_broken: bool
    """Whether the feedback has a beginning and no end."""
    words: str | None
    """All that is stored of what the judge said."""
    about: str
    """What the row itself says that is judged."""
    same_as: tuple[str, ...] | None
    """What was judged, by whom and on what; None where the row does not tell it."""

    @property
    def holds_score(self) -> bool:
        """Whether the judge's words name a score, or the one that is stored."""
        words = self.words or ""
        if _TAG.search(words) or _NAMED_SCORE.search(words):
            return True
        numbers = {float(n) for n in _NUMBER.findall(words)}
        return bool(words.strip()) and self.score in numbers

    @property
    def is_tagged_score(self) -> bool:
        return _TAG.search(self.words or "") is not None

    @property
    def is_failure(self) -> bool:
        """Whether what stands for the judge's words is a program's message that there are none."""
        words = (self.words or "").strip()
        return len(words) <= LONGEST_FAILURE and _FAILURE.match(words) is not None


def is_scores(rows: Sequence[JsonObject]) -> bool:
    """Whether this is a judge's list of scores: each row has one, and words or a sample with it."""
    if not rows or any(OTHER_READERS_COLUMNS & row.keys() for row in rows):
        return False
    judged = ("sample", *WORDS, *REPLIES)
    return all(_score_name(row) is not None for row in rows) and any(
        name in row for row in rows[:10] for name in judged
    )


def scale_of(path: Path, rows: Sequence[RubricRow]) -> tuple[float, float] | None:
    """The rubric's lowest and highest score: by the manifest beside it, else by the rubric's name in
    the path; None where neither says it."""
    try:
        manifest = read_json(path.parent / MANIFEST)
        scores = [float(line["score"]) for line in manifest["used"]["rubric"]["scores"]]
        return min(scores), max(scores)
    except (Unreadable, KeyError, TypeError, ValueError):
        pass
    match = _POINTS.search("/".join(path.parts[-3:]))
    if match is None:
        return None
    low, high = (0.0, 1.0) if match[2] else (1.0, float(match[1] or 5))
    valid_scores = [r.score for r in rows if r.score is not None and r.score >= 0]
    # A name that most scores contradict is about something else.
    fitting = sum(low <= score <= high for score in valid_scores)
    return (low, high) if valid_scores and fitting >= 0.9 * len(valid_scores) else None


def questions_of(rows: Sequence[JsonObject]) -> list[int]:
    """Of this harness's grades of single answers, which question each row is of: a second turn's
    instruction begins with the conversation of the first."""
    instructions = [row.text("instruction") or "" for row in rows]
    is_first = [row.number("turn") == 1 for row in rows]
    begins = [
        (n, as_conversation("", [(instructions[n], row.text("output_2") or "")], ""))
        for n, row in enumerate(rows)
        if is_first[n]
    ]
    return [
        next((n for n, begin in begins if not is_first[number] and begin in instruction), number)
        for number, instruction in enumerate(instructions)
    ]


def _score_name(row: JsonObject) -> str | None:
    names = (n for n in SCORES if n in row and (row[n] is None or row.number(n) is not None))
    return next(names, None)


def read_rubric_row(row: JsonObject) -> RubricRow:
    name, sample = _score_name(row), row.object("sample")
    inputs = _inputs(row, sample)
    reply, feedback = row.text(*REPLIES), row.text(*WORDS)
    reply_score, tagged = _score_in_reply(reply)
    if not tagged and feedback is not None and (of_feedback := _score_in_reply(feedback))[1]:
        # Some keep all that the judge wrote as its feedback. Untagged, it may speak of any rating.
        reply_score, tagged = of_feedback
    words = feedback if reply is None else reply
    output = row.text(*OUTPUTS)
    if isinstance(sample.get("output"), dict):
        output = " ".join(str(value or "") for value in sample["output"].values())
    of_inputs = (inputs[n] for n in QUESTIONS if inputs.get(n))
    question = next(of_inputs, None) or row.text(*QUESTIONS) or ""
    broken = words is not None and "<feedback>" in words and "</feedback>" not in words
    return RubricRow(
        score=None if name is None else row.number(name),
        feedback=feedback,
        reply=reply,
        inputs=inputs,
        output=output,
        question=question,
        reply_score=reply_score,
        is_tagged=tagged,
        is_broken=broken,
        words=words,
        about=" ".join(filter(None, map(row.text, ABOUT))),
        same_as=_same_as(row, name, question, output, inputs),
    )


def _same_as(
    row: JsonObject, score: str | None, question: str, output: str | None, inputs: dict[str, str]
) -> tuple[str, ...] | None:
    if not question.strip() or not (output or "").strip():
        return None
    distinguishing = [
        f"{n}: {v}" for n, v in row.items()
        if KEPT_APART.search(n) and n not in _JUDGES_OWN and n != score
    ]  # fmt: skip
    return (question, str(output), *(f"{n}: {v}" for n, v in inputs.items()), *distinguishing)


def _inputs(row: JsonObject, sample: JsonObject) -> dict[str, str]:
    """The judge's inputs by name; those of Flow Judge are a list of objects."""
    inputs: dict[str, str] = {}
    stored_inputs = sample.get("inputs", row.get("inputs"))
    for entry in stored_inputs if isinstance(stored_inputs, list) else [stored_inputs]:
        if isinstance(entry, dict):
            inputs.update({str(k): _flat(v) for k, v in entry.items()})
    for name, value in row.items():
        if CONTEXT.search(name) and not isinstance(value, int | float | bool | dict):
            inputs.setdefault(name, _flat(value))
    for prompt in filter(None, map(row.text, PROMPTS)):
        if empty := _EMPTY_TAG.search(prompt):
            inputs[empty[1]] = ""
    return inputs


def _score_in_reply(reply: str | None) -> tuple[float | None, bool]:
    """The score in a judge's words: between its tags, else where one is named in the last place."""
    if reply is not None:
        without_feedback = re.sub(
            r"<feedback>.*?</feedback>", "", reply, flags=re.DOTALL | re.IGNORECASE
        )
        tags = set(_TAG.findall(without_feedback))
        if tags:
            return (float(tags.pop()), True) if len(tags) == 1 else (None, False)
    # Not in the feedback: it may speak of any rating.
    named_scores = set(_NAMED_SCORE.findall(reply or ""))
    return (float(named_scores.pop()) if len(named_scores) == 1 else None), False


def _flat(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(str(part) for part in value if part is not None)
    return "" if value is None else str(value)
