"""Prompts that were judged more than once, and weigh more than others for it."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean

from harness.audit.checks.judged import UNREAD_MARGIN
from harness.audit.model import EXAMPLES, Result, short
from harness.audit.parse.judged_pairs import JudgedPair
from harness.common.progress import counted

NONE: Mapping[str, int] = {}


def check_judged_twice(
    result: Result,
    rows: Sequence[JudgedPair],
    stored: Mapping[str, int] = NONE,
    in_set: Mapping[str, int] = NONE,
) -> None:
    """count_mismatch: one output judged several times, or a prompt more often than it has outputs.

    stored: how many outputs each prompt has, where that is known. A prompt that stands twice in a set,
    with another output each time, is judged twice rightly. in_set: how often each stands in it, where
    that is sure: then so are its outputs if they are the same, as a greedy model's are.
    """
    judged = [r for r in rows if r.preference is not None and r.instruction.strip()]
    often = Counter(r.instruction for r in judged)

    def what(row: JudgedPair) -> Hashable:
        outputs = stored.get(row.instruction)
        once = outputs == 1 or row.output is None
        return row.instruction if once else (row.instruction, row.output)

    groups: dict[Hashable, list[JudgedPair]] = {}
    for row in judged:
        if often[row.instruction] > max(in_set.get(row.instruction, 1), 1):
            groups.setdefault(what(row), []).append(row)
    twice = [group for group in groups.values() if len(group) > 1]
    if not twice:
        return
    extra = sum(len(group) - 1 for group in twice)
    opposed = sum(len({r.preference for r in group}) > 1 for group in twice)
    again = {id(r) for group in twice for r in group}
    shares = [r.share for r in judged if id(r) not in again]
    shares += [fmean(r.share for r in group) for group in twice]
    rate, once = 100 * fmean(r.share for r in judged), 100 * fmean(shares)
    result.mismatch(
        f"{_were(len(twice), 'prompt')} judged more than once ({counted(extra, 'judgement')} too "
        f"many), of which {opposed} with different judgements: over all {len(judged)} the win rate is "
        f"{rate:.2f}, with each of {len(shares)} once (the mean of its judgements) {once:.2f}",
        {
            "judged_twice": len(twice),
            "judgements_too_many": extra,
            "disagree": opposed,
            "judgements": len(judged),
            "prompts": len(shares),
            "win_rate": rate,
            "win_rate_each_once": once,
            "examples": [
                {"instruction": short(group[0].instruction, 100),
                 "preferences": [r.preference for r in group[:5]]}
                for group in twice[:EXAMPLES]
            ],
        },
        "error" if opposed or abs(rate - once) >= UNREAD_MARGIN else "warning",
    )  # fmt: skip


def check_scored_twice(result: Result, scored: Sequence[tuple[Hashable, float]]) -> None:
    """The same for scores on a rubric. scored: what was judged (inputs, output and all that tells one
    judging from another), and its score."""
    groups: dict[Hashable, list[float]] = {}
    for what, score in scored:
        groups.setdefault(what, []).append(score)
    twice = [scores for scores in groups.values() if len(scores) > 1]
    if not twice:
        return
    opposed = sum(len(set(scores)) > 1 for scores in twice)
    mean = fmean(score for _, score in scored)
    once = fmean(fmean(scores) for scores in groups.values())
    result.mismatch(
        f"{_were(len(twice), 'output')} scored more than once, of which {opposed} with different "
        f"scores: over all {len(scored)} scores the mean is {mean:.3f}, with each of {len(groups)} "
        f"outputs once {once:.3f}",
        {
            "judged_twice": len(twice),
            "disagree": opposed,
            "scores": len(scored),
            "outputs": len(groups),
            "mean": mean,
            "mean_each_once": once,
        },
        "error" if opposed or abs(mean - once) >= 0.01 else "warning",
    )


def _were(count: int, unit: str) -> str:
    return f"{counted(count, unit)} {'was' if count == 1 else 'were'}"
