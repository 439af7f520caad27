"""Rows of rubric scores, in whatever columns their judge wrote them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.audit.files import Unreadable, read_json
from harness.audit.settings import number
from harness.call import MANIFEST

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
OTHERS = frozenset({"score1", "score2", "preference", "log_likelihoods", "doc_hash"})
"""Columns of judgements that are other readers'."""
_TAG = re.compile(r"<score>\s*(-?\d+(?:\.\d+)?)\s*</score>", re.IGNORECASE)
_SAID = re.compile(
    r"\b(?:score|rating|grade)\b[\"'*_` ]*(?:is|of)?[ :=*_`\"']{0,6}(\d+(?:\.\d+)?)(?!\s*-\s*\d)",
    re.IGNORECASE,
)
_EMPTY_TAG = re.compile(r"<(\w*context\w*)>\s*</\1>", re.IGNORECASE)
_POINTS = re.compile(r"(\d+)[-_ ]?point|(binary)|(likert)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Scored:
    """One row. score: as stored, None where there is none; said: what the judge's reply gives, and
    is_tagged: between the tags made for it. inputs: what the judge was shown beside the output."""

    score: float | None
    feedback: str | None
    reply: str | None
    inputs: dict[str, str]
    output: str | None
    question: str
    said: float | None
    is_tagged: bool
    is_broken: bool
    """Whether the feedback has a beginning and no end."""


def is_scores(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether this is a judge's list of scores: each row has one, and words or a sample with it."""
    if not rows or any(OTHERS & row.keys() for row in rows):
        return False
    judged = ("sample", *WORDS, *REPLIES)
    return all(_score_name(row) is not None for row in rows) and any(
        name in row for row in rows[:10] for name in judged
    )


def read_scored(rows: Sequence[dict[str, Any]]) -> list[Scored]:
    return [_read(row) for row in rows]


def scale_of(path: Path, rows: Sequence[Scored]) -> tuple[float, float] | None:
    """The rubric's lowest and highest score: by the manifest beside it, else by the rubric's name in
    the path; None where neither says it."""
    try:
        manifest = read_json(path.parent / MANIFEST)
        scores = [float(line["score"]) for line in manifest["used"]["rubric"]["scores"]]
        return min(scores), max(scores)
    except (Unreadable, KeyError, TypeError, ValueError):
        pass
    found = _POINTS.search("/".join(path.parts[-3:]))
    if found is None:
        return None
    low, high = (0.0, 1.0) if found[2] else (1.0, float(found[1] or 5))
    seen = {r.score for r in rows if r.score is not None and r.score >= 0}
    # A name that most scores contradict is about something else.
    fitting = sum(low <= r.score <= high for r in rows if r.score is not None and r.score >= 0)
    count = sum(r.score is not None and r.score >= 0 for r in rows)
    return (low, high) if seen and fitting >= 0.9 * count else None


def _score_name(row: dict[str, Any]) -> str | None:
    for name in SCORES:
        if name in row and (row[name] is None or number(row[name]) is not None):
            return name
    return None


def _read(row: dict[str, Any]) -> Scored:
    name = _score_name(row)
    given = row.get("sample")
    sample: dict[str, Any] = given if isinstance(given, dict) else {}
    inputs = _inputs(row, sample)
    reply = _text(row, REPLIES)
    feedback = _text(row, WORDS)
    said, tagged = _said(reply)
    output = _text(row, OUTPUTS)
    if isinstance(sample.get("output"), dict):
        output = " ".join(str(value or "") for value in sample["output"].values())
    question = next((inputs[n] for n in QUESTIONS if inputs.get(n)), None) or _text(row, QUESTIONS)
    broken = reply is not None and "<feedback>" in reply and "</feedback>" not in reply
    return Scored(
        score=None if name is None else number(row[name]),
        feedback=feedback,
        reply=reply,
        inputs=inputs,
        output=output,
        question=question or "",
        said=said,
        is_tagged=tagged,
        is_broken=broken,
    )


def _inputs(row: dict[str, Any], sample: dict[str, Any]) -> dict[str, str]:
    """The judge's inputs by name; those of Flow Judge are a list of objects."""
    found: dict[str, str] = {}
    given = sample.get("inputs", row.get("inputs"))
    for one in given if isinstance(given, list) else [given]:
        if isinstance(one, dict):
            found.update({str(k): _flat(v) for k, v in one.items()})
    for name, value in row.items():
        if CONTEXT.search(name) and not isinstance(value, int | float | bool | dict):
            found.setdefault(name, _flat(value))
    for prompt in (row.get(n) for n in PROMPTS):
        empty = _EMPTY_TAG.search(prompt) if isinstance(prompt, str) else None
        if empty:
            found[empty[1]] = ""
    return found


def _said(reply: str | None) -> tuple[float | None, bool]:
    """The score in a judge's words: between its tags, else where one is named in the last place."""
    if reply is not None:
        said = re.sub(r"<feedback>.*?</feedback>", "", reply, flags=re.DOTALL | re.IGNORECASE)
        tags = set(_TAG.findall(said))
        if tags:
            return (float(tags.pop()), True) if len(tags) == 1 else (None, False)
    # Not in the feedback: it may speak of any rating.
    named = _SAID.findall(reply or "")
    return (float(named[-1]), False) if named and len(set(named)) == 1 else (None, False)


def _text(row: dict[str, Any], names: Sequence[str]) -> str | None:
    return next((row[n] for n in names if isinstance(row.get(n), str)), None)


def _flat(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(str(part) for part in value if part is not None)
    return "" if value is None else str(value)
