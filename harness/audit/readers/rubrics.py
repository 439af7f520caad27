"""Scores on a rubric (Flow Judge's results and others like them): replies that were not read and are
counted all the same, judging without the context, scores that are not what the reply says."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from harness.artefact.call import MANIFEST
from harness.artefact.keys import file_digest
from harness.audit.checks.judged import NO_BOUNDS
from harness.audit.checks.repeats import check_scored_twice
from harness.audit.model import EXAMPLES, Reader, Result, agreeing_digits, guarded_result, short
from harness.audit.parse.files import (
    AuditSource,
    JsonObject,
    Unreadable,
    number,
    read_object,
    read_rows,
)
from harness.audit.parse.readme import only_lines_of
from harness.audit.parse.rubric_rows import (
    CONTEXT,
    RubricRow,
    is_scores,
    questions_of,
    read_rubric_row,
    scale_of,
)
from harness.judge.kinds.single_grading import HIGHEST, LOWEST
from harness.judge.kinds.single_grading import METRIC as RATING
from harness.judge.kinds.single_grading.scores import rating
from harness.judge.scores import bounds, mean_and_error

KIND = "rubric"
LOST_SHARE = 0.01
"""From this share of prompts without a score on, it is said that some are missing."""
METRIC = "rubric_score"
"""What this harness calls the mean; of grades of single answers, that judge's RATING."""
MOST = 0.5
"""This share of replies must hold a score before others are missed that hold none."""
FEW = 0.01
"""The share of rows from which on empty feedback, or feedback that breaks off, is told."""
MOST_VALUES = 11
"""Of so many different scores it is told how often there is each."""
WORDS = re.compile(r"\b(?:mean|average|avg|scores?)\b", re.IGNORECASE)
_CELL = re.compile(r"^[*_`\s]*(-?\d{1,3}(?:\.(\d+))?)\s*(?:/\s*\d+)?\s*(?:(?:±|\+/-).*)?[*_`\s]*$")
_MEAN_KEYS = re.compile(
    r"^(?:mean|average|avg)(?:_(?:rubric_)?score)?s?$|^score_(?:mean|avg|average)$"
)
_FAITHFUL = re.compile(r"faithful|grounded|hallucinat", re.IGNORECASE)


def find(source: AuditSource) -> list[Result]:
    """A result for each file with scores below the path."""
    results = []
    for path in [p for p in source.files if p.suffix.lower() in (".json", ".jsonl")]:
        if path.name.lower().startswith(("samples_", "trainer_", "transcript")):
            continue
        try:
            rows = read_rows(path)
        except Unreadable:
            # Any other JSON below the path; whose it is, its reader says.
            continue
        if is_scores(rows):
            results.append(guarded_result(path, KIND, partial(_audit, path, rows, source)))
            source.claim(path)
    return results


@dataclass(frozen=True)
class _Claim:
    """A mean that is claimed of a file."""

    mean: float
    decimals: int
    where: str

    def is_of(self, mean: float | None) -> bool:
        least = min(self.decimals, 8)
        return mean is not None and agreeing_digits(self.mean, mean) >= least


@dataclass(frozen=True)
class _Scores:
    """A file's rows. scored: those with a score within the scale; unread: with one outside of it.
    scale: None where nothing says it."""

    rows: Sequence[RubricRow]
    scored: Sequence[RubricRow]
    unread: Sequence[RubricRow]
    scale: tuple[float, float] | None
    claims: Sequence[_Claim]


def _audit(path: Path, stored: Sequence[JsonObject], source: AuditSource) -> Result:
    result = Result(str(path), KIND)
    rows = [read_rubric_row(row) for row in stored]
    metrics = _own_metrics(path.parent / MANIFEST)
    is_rating = RATING in metrics
    own_metric = metrics.object(RATING if is_rating else METRIC)
    scale = (LOWEST, HIGHEST) if is_rating else scale_of(path, rows)
    low, high = scale or (-math.inf, math.inf)
    if scale is None and {r.score for r in rows if r.score is not None and r.score < 0} == {-1.0}:
        # What judges' libraries write for a reply that they could not read.
        low = 0.0
    if not (path.parent / MANIFEST).is_file():
        # For the search for copies; of our own, keys and seals say what is one.
        result.material.files = {path.name: file_digest(path)}
        result.material.judgements = [(r.question, r.score) for r in rows]
        result.material.raws = [(r.question, f"{r.score}: {r.words}") for r in rows if r.words]
    unread = [r for r in rows if r.score is not None and not low <= r.score <= high]
    scored = [r for r in rows if r.score is not None and low <= r.score <= high]
    scores = _Scores(rows, scored, unread, scale, _claims(path, source, own_metric))
    _measure(result, scores)
    if is_rating:
        read = {id(r) for r in scored}
        grades = [r.score if id(r) in read else None for r in rows]
        own = rating(grades, questions_of(stored))
        result.metrics["standard_error"] = own.standard_error
    _compare(result, scores)
    _check_unread(result, scores)
    _check_wordless(result, scores)
    # Of this harness's rows one is of each prompt of the set: a prompt that stands twice in it has its
    # answer twice, and rightly.
    if len(rows) != own_metric.get("expected"):
        check_scored_twice(
            result, [(r.same_as, r.score) for r in scored if r.same_as and r.score is not None]
        )
    _check_missing(result, scores)
    _check_context(result, path, scores)
    _check_replies(result, rows)
    _check_feedback(result, scored)
    return result


def _measure(result: Result, scores: _Scores) -> None:
    values = [r.score for r in scores.scored if r.score is not None]
    mean, error = mean_and_error(values) if values else (None, None)
    n, scale = len(scores.rows), scores.scale
    result.metrics |= {
        "mean_score": mean,
        "standard_error": error,
        "n_judged": len(values),
        "n_expected": n,
        **(bounds(sum(values), len(values), n, *scale) if scale else NO_BOUNDS),
    }
    if scores.unread:
        result.metrics["mean_of_all_stored"] = _mean(scores.rows)
    counts = Counter(values)
    if len(counts) <= MOST_VALUES:
        result.metrics |= {f"score_{value:g}": count for value, count in sorted(counts.items())}
    if len(values) == n:
        result.metrics["lower_bound"] = result.metrics["upper_bound"] = mean


def _claims(path: Path, source: AuditSource, own_metric: JsonObject) -> list[_Claim]:
    """own_metric: what this harness wrote of the mean into the manifest beside the file."""
    claims = []
    for beside in source.files:
        if beside.parent != path.parent or beside.suffix.lower() != ".json" or beside == path:
            continue
        try:
            value = read_object(beside)
        except Unreadable:
            continue
        if beside.name == MANIFEST:
            value = JsonObject(mean=own_metric.get("value"))
        for key, stored_mean in value.items():
            mean = number(stored_mean) if _MEAN_KEYS.match(str(key).lower()) else None
            if mean is not None:
                decimals = len(repr(mean).partition(".")[2])
                claims.append(_Claim(mean, decimals, f"{beside.name}, {key}"))
    for line in only_lines_of(path, [path.name, path.stem], source):
        for heading, cell in line.cells.items():
            match = _CELL.match(cell)
            if match and WORDS.search(heading):
                claims.append(_Claim(float(match[1]), len(match[2] or ""), line.where))
    return claims


def _own_metrics(manifest: Path) -> JsonObject:
    """What this harness wrote of means into an artefact's manifest."""
    try:
        return read_object(manifest).object("metrics")
    except Unreadable:
        return JsonObject()


def _compare(result: Result, scores: _Scores) -> None:
    mean = result.metrics["mean_score"]
    if not scores.claims or mean is None:
        return
    claim = scores.claims[0]
    result.published["mean_score"] = claim.mean
    result.digits["mean_score"] = agreeing_digits(claim.mean, mean)
    result.matches = claim.is_of(mean)
    replies = [r.reply_score for r in scores.rows if r.reply_score is not None]
    is_of_replies = len(replies) == len(scores.rows) and claim.is_of(fmean(replies))
    is_explained = claim.is_of(result.metrics.get("mean_of_all_stored")) or is_of_replies
    if not result.matches and not is_explained:
        result.mismatch(
            f"{claim.where} gives a mean score of {claim.mean:g}; that of the "
            f"{result.metrics['n_judged']:,} stored scores is {mean:.4f}",
            {"published": claim.mean, "where": claim.where, "recomputed": mean},
        )


def _check_unread(result: Result, scores: _Scores) -> None:
    if not scores.unread:
        return
    with_all, without = result.metrics["mean_of_all_stored"], result.metrics["mean_score"]
    entered = any(c.is_of(with_all) for c in scores.claims)
    entered &= not any(c.is_of(without) for c in scores.claims)
    if scores.claims and not entered and result.matches:
        # Left out of what is published: what is missing is another finding's.
        return
    count = len(scores.scored) + len(scores.unread)
    of = f" outside {scores.scale[0]:g} to {scores.scale[1]:g}" if scores.scale else ""
    _add_unparsed(
        result,
        f"{len(scores.unread):,} of {count:,} stored scores are no scores{of}",
        [(r, r.feedback or r.reply) for r in scores.unread],
        count,
        (with_all, without),
        entered if scores.claims else None,
    )


def _add_unparsed(
    result: Result,
    what: str,
    faulty: Sequence[tuple[RubricRow, str | None]],
    count: int,
    means: tuple[float, float | None],
    entered: bool | None,
) -> None:
    """faulty: rows, with the words that hold no score, of so many. means: with them and without them.
    entered: whether the published mean has them in it, None where there is none."""
    values = Counter(f"{r.score:g}" for r, _ in faulty)
    listed = ", ".join(f"{value} ({times})" for value, times in values.most_common(3))
    with_all, without = means
    effect = "no other score is there"
    if without is not None:
        effect = f"with them the mean is {with_all:.3f}, without them {without:.3f}"
    result.add(
        "unparsed_scored",
        "error" if entered or without is None else "warning",
        f"{what}: {listed}; {effect}"
        + (", and the published mean has them in it" if entered else ""),
        {
            "unparsed": len(faulty),
            "rows": count,
            "values": dict(values),
            "mean_with": with_all,
            "mean_without": without,
            "effect": None if without is None else with_all - without,
            "in_published": entered,
            "examples": [short(words or "") for _, words in faulty[:EXAMPLES]],
        },
    )


def _mean(rows: Sequence[RubricRow]) -> float:
    return fmean(r.score for r in rows if r.score is not None)


def _check_wordless(result: Result, scores: _Scores) -> None:
    """unparsed_scored: scores within the scale of replies that hold none, where others hold theirs."""
    scored = scores.scored
    replies = [r for r in scored if r.words is not None]
    failed = {id(r) for r in replies if r.is_failure}
    if sum(r.is_tagged_score for r in replies) >= MOST * len(replies):
        failed |= {id(r) for r in replies if not r.holds_score}
    faulty = [(r, r.words) for r in replies if id(r) in failed]
    if not faulty or len(faulty) > len(scored) - len(faulty):
        # Where most are so, the words are not all that the judge said.
        return
    with_all, without = _mean(scored), _mean([r for r in scored if id(r) not in failed])
    _add_unparsed(
        result,
        f"{len(faulty):,} of {len(replies):,} replies hold no score, and one is stored",
        faulty,
        len(scored),
        (with_all, without),
        any(c.is_of(with_all) for c in scores.claims) if scores.claims else None,
    )


def _check_missing(result: Result, scores: _Scores) -> None:
    """dropped_rows: rows without a score, and unread ones that a published mean left out."""
    count, lost = len(scores.rows), len(scores.rows) - len(scores.scored)
    if any(f.kind == "unparsed_scored" for f in result.findings):
        lost -= len(scores.unread)
    if lost < max(LOST_SHARE * count, 1):
        return
    low, high = result.metrics["lower_bound"], result.metrics["upper_bound"]
    message = f"{lost:,} of {count:,} rows have no score"
    if scores.scale:
        message += f": over all of them the mean lies between {low:.3f} and {high:.3f}"
    evidence = {"missing": lost, "rows": count, "lower_bound": low, "upper_bound": high}
    result.add("dropped_rows", "warning", message, evidence)


def _check_context(result: Result, path: Path, scores: _Scores) -> None:
    """missing_context: scored all the same though what it must be judged by is empty."""
    rows, scored = scores.rows, scores.scored
    names = {name for r in rows for name in r.inputs if CONTEXT.search(name)}
    without = [r for r in scored if any(not r.inputs.get(name, "").strip() for name in names)]
    has_inputs = any(r.inputs for r in scored)
    if not names:
        about = {r.about for r in scored}
        if not scored or not any(map(_FAITHFUL.search, ("/".join(path.parts[-3:]), *about))):
            return
        without = list(scored)
    if not without:
        return
    with_context = [r for r in scored if r not in without]
    mean_with = _mean(with_context) if with_context else None
    mean = _mean(without)
    cause = f"{min(names)} was empty" if names else "there was no context"
    effect = None
    message = f"{len(without):,} of {len(scored):,} scored outputs were judged though {cause}"
    if not names and not has_inputs:
        message = (
            f"nothing shows what the judge saw of {len(scored):,} outputs that were scored by their "
            "context: no column holds one"
        )
    if mean_with is not None:
        effect = result.metrics["mean_score"] - mean_with
        message += f": they have {mean:.3f} on average, the others {mean_with:.3f}"
    result.add(
        "missing_context",
        "error" if not with_context and (names or has_inputs) else "warning",
        message,
        {
            "without": len(without),
            "scored": len(scored),
            "inputs": sorted(names),
            "mean_without_context": mean,
            "mean_with_context": mean_with,
            "effect": effect,
            "examples": [short(r.question) for r in without[:EXAMPLES]],
        },
    )


def _check_replies(result: Result, rows: Sequence[RubricRow]) -> None:
    """truncated_scores: the reply says 7.5, stored is 7; count_mismatch: stored is something else."""
    scored_replies = [
        (r, r.reply_score) for r in rows if r.reply_score is not None and r.score is not None
    ]
    cut = [(r, s) for r, s in scored_replies if s != int(s) and r.score in (int(s), round(s))]
    if cut:
        effect = sum((r.score or 0) - s for r, s in cut) / len(rows)
        result.add(
            "truncated_scores",
            "error" if abs(effect) >= 0.005 else "warning",
            f"{len(cut):,} of {len(scored_replies):,} replies give a score with a fraction, and a "
            f"whole one is stored, such as {cut[0][0].score:g} for {cut[0][1]:g}: the mean moves by "
            f"{effect:+.3f}",
            {
                "truncated": len(cut),
                "replies": len(scored_replies),
                "effect": effect,
                "examples": [{"said": s, "stored": r.score} for r, s in cut[:EXAMPLES]],
            },
        )
    other = [
        (r, s) for r, s in scored_replies if r.is_tagged and r.score != s and (r, s) not in cut
    ]
    other = [(r, s) for r, s in other if r.score != -1]
    if other:
        result.refute(
            f"{len(other):,} of {len(scored_replies):,} stored scores are not what the reply says, "
            f"such as {other[0][0].score:g} for {other[0][1]:g}",
            {
                "different": len(other),
                "replies": len(scored_replies),
                "effect": sum((r.score or 0) - s for r, s in other) / len(rows),
                "examples": [{"said": s, "stored": r.score} for r, s in other[:EXAMPLES]],
            },
        )


def _check_feedback(result: Result, scored: Sequence[RubricRow]) -> None:
    """empty_or_truncated: scores of judges that said nothing, or whose words break off."""
    have = [r for r in scored if r.feedback is not None]
    empty = [r for r in have if not (r.feedback or "").strip()]
    broken = [r for r in scored if r.is_broken]
    blank = [r for r in scored if r.output is not None and not r.output.strip()]
    for faulty, what in (
        (empty, "scores have no feedback"),
        (broken, "scores are of replies that break off before the feedback's end"),
        (blank, "scored outputs are empty"),
    ):
        if len(faulty) < max(FEW * len(scored), 1):
            continue
        mean = _mean(faulty)
        result.add(
            "empty_or_truncated",
            "warning",
            f"{len(faulty):,} of {len(scored):,} {what}; they have {mean:.3f} on average, all have "
            f"{result.metrics['mean_score']:.3f}",
            {"count": len(faulty), "scored": len(scored), "mean": mean,
             "examples": [short(r.question) for r in faulty[:EXAMPLES]]},
        )  # fmt: skip


READER = Reader(
    "rubrics",
    looks_for="scores on a rubric (JSON or JSONL with score and feedback, as Flow Judge writes them)",
    findings=frozenset((
        "count_mismatch", "dropped_rows", "empty_or_truncated", "missing_context",
        "truncated_scores", "unparsed_scored",
    )),
    find=find,
    judgements_tell=False,
)  # fmt: skip
