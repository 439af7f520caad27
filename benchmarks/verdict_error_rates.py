"""How often verdicts and intervals are wrong, by simulation with known truth.

    python benchmarks/verdict_error_rates.py [--quick] [--runs N]     (1,000 runs: twenty minutes)

Each case draws published runs and our own from set-ups whose expected scores are known, and gives both
to harness.results.verdict.verdict.judge, the code that `harness table` and `harness verify` use. A
prompt has a number u between 0 and 1 that stays, but for a share of prompts that is drawn anew for
each training and for each judging; a run whose expected score is m wins the prompts with u < m, so
that runs agree on easy and hard prompts as far as noise lets them. With ties, u within half their
share of m is a draw.

Counted are: `reproduced` where the truth is at the margin or beyond, `not reproduced` where it is at
the margin or within, and how often the interval of the difference, and that of our own score, hold
the truth. Behind each share stands its Monte Carlo standard error.
"""

import argparse
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.artefact.manifest import MetricValue
from harness.results.verdict.evidence import Evidence, ScoredRun
from harness.results.verdict.verdict import judge
from harness.row.reported import Reported
from harness.stats.paired import paired, sign_test
from harness.stats.variance import Index

RUNS = 2000
LIMIT, TARGET = 0.05, 0.95
OURS = 0.40
"""Expected share of wins of our set-up; the published one's is this less the true difference."""


@dataclass(frozen=True)
class Case:
    prompts: int
    difference: float = 0.0
    """True, in points."""
    margin: float = 3.0
    ties: float = 0.0
    trainings: int = 0
    """0: nothing is trained."""
    training_sd: float = 0.0
    """Points, on both sides."""
    training_noise: float = 0.2
    """Share of prompts whose u each training draws anew."""
    judgings: int = 1
    judging_noise: float = 0.1
    """Share of prompts whose u each judging draws anew."""
    judging_sd: float = 0.0
    """Points that all prompts of a judging have in common, on both sides: what the verdict takes to
    be 0 unless replicates show it."""
    dropped: float = 0.0
    """Share of our prompts that go unjudged."""
    lost_dropped: bool = False
    """Whether all that is dropped would have been lost."""
    published_dropped: float = 0.0
    same_prompts: bool = False
    """Whether both sides answered the same prompts."""
    mean: float = OURS
    error_known: bool = True
    """Whether the published standard error is known."""


@dataclass(frozen=True)
class Rates:
    reproduced: float
    not_reproduced: float
    covered: float
    own_covered: float
    runs: int


def side(
    case: Case,
    mean: float,
    runs: int,
    trainings: int,
    judgings: int,
    u: np.ndarray,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Grades in points, [simulation, training, judging, prompt], and each training's expected score,
    [simulation, training]."""
    n = case.prompts
    shape = (runs, trainings, judgings, n)
    trained = np.where(
        random.random((runs, trainings, 1, n)) < case.training_noise,
        random.random((runs, trainings, 1, n)), u[:, None, None, :],
    )  # fmt: skip
    judged = np.where(random.random(shape) < case.judging_noise, random.random(shape), trained)
    trained_to = case.training_sd * random.standard_normal((runs, trainings, 1, 1))
    effect = trained_to + case.judging_sd * random.standard_normal((runs, trainings, judgings, 1))
    wins = mean + effect / 100
    grades = 50.0 * (judged < wins - case.ties / 2) + 50.0 * (judged < wins + case.ties / 2)
    return grades, 100 * mean + trained_to[:, :, 0, 0]


def published(case: Case, grades: np.ndarray, random: np.random.Generator) -> Reported:
    keep = grades[random.random(len(grades)) >= case.published_dropped]
    error = float(keep.std(ddof=1) / math.sqrt(len(keep)))
    return Reported(
        value=float(keep.mean()),
        standard_error=error if case.error_known else None,
        judged=len(keep),
        expected=len(grades),
    )


def evidence(case: Case, grades: np.ndarray, random: np.random.Generator) -> Evidence:
    """Of grades [training, judging, prompt]; the same prompts are dropped from every run."""
    if case.lost_dropped:
        lost = grades.reshape(-1, case.prompts).mean(axis=0) < 50
        out = lost & (random.random(case.prompts) < case.dropped / max(lost.mean(), 1e-9))
    else:
        out = random.random(case.prompts) < case.dropped
    kept = np.flatnonzero(~out)
    runs: dict[Index, ScoredRun] = {}
    known: dict[Index, Mapping[Any, float]] = {}
    for a, c in itertools.product(range(grades.shape[0]), range(grades.shape[1])):
        row = grades[a, c, kept]
        metric = MetricValue(
            value=float(row.mean()),
            standard_error=float(row.std(ddof=1) / math.sqrt(len(row))),
            judged=len(row),
            expected=case.prompts,
        )
        runs[a, 0, c] = ScoredRun(None, metric)  # type: ignore[arg-type]
        known[a, 0, c] = dict(zip(kept.tolist(), row.tolist(), strict=True))
    trainings = tuple(f"training {number}" for number in range(case.trainings))
    return Evidence(runs, (0, 100), trainings, False, True, known if len(runs) > 1 else {})


def simulate(case: Case, runs: int, seed: int = 0) -> Rates:
    random = np.random.default_rng(seed)
    u = random.random((runs, case.prompts))
    theirs = u if case.same_prompts else random.random((runs, case.prompts))
    ours, expected = side(case, case.mean, runs, max(case.trainings, 1), case.judgings, u, random)
    other = side(case, case.mean - case.difference / 100, runs, 1, 1, theirs, random)[0][:, 0, 0]
    names, covered, own = [], 0, 0
    for number in range(runs):
        found = judge(
            published(case, other[number], random),
            evidence(case, ours[number], random),
            [],
            case.margin,
        ).verdict
        names.append(found.name)
        assert found.low is not None
        assert found.high is not None
        assert found.reproduced_low is not None
        assert found.reproduced_high is not None
        covered += found.low <= case.difference <= found.high
        # Of one training it is the interval of that model's score.
        truth = expected[number, 0] if case.trainings == 1 else 100 * case.mean
        own += found.reproduced_low <= truth <= found.reproduced_high
    return Rates(
        names.count("reproduced") / runs,
        names.count("not reproduced") / runs,
        covered / runs,
        own / runs,
        runs,
    )


@dataclass(frozen=True)
class Told:
    """Of `harness compare`."""

    covered: float
    sign_test: float
    """How often its p is below 5 %."""
    smallest_seen: float
    """Mean."""
    excludes_0: float


def simulate_pairs(case: Case, runs: int, seed: int = 0) -> Told:
    """Two rows on the same prompts, `case.difference` apart, each with so many trainings."""
    random = np.random.default_rng(seed)
    u = random.random((runs, case.prompts))
    trainings = max(case.trainings, 1)
    first = side(case, case.mean, runs, trainings, 1, u, random)[0][:, :, 0]
    second = side(case, case.mean - case.difference / 100, runs, trainings, 1, u, random)[0][
        :, :, 0
    ]
    covered = below = outside = 0
    seen = []
    for ours, theirs in zip(first, second, strict=True):
        found = paired(ours.tolist(), theirs.tolist(), (0, 100))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= case.difference <= found.high
        outside += not found.low <= 0 <= found.high
        seen.append(found.smallest_seen)
        gap = ours.mean(axis=0) - theirs.mean(axis=0)
        p = sign_test(int((gap > 0).sum()), int((gap < 0).sum()))
        below += p is not None and p < 0.05
    return Told(covered / runs, below / runs, sum(seen) / runs, outside / runs)  # type: ignore[arg-type]


def pair_line(case: Case, runs: int, seed: int) -> str:
    """Also with the true difference at what `smallest_seen` says."""
    same = simulate_pairs(case, runs, seed)
    gap = same.smallest_seen
    apart = simulate_pairs(replace(case, difference=gap, mean=0.5 + gap / 200), runs, seed + 1)
    what = f"{case.prompts} prompts, ties {case.ties:g}, "
    what += (
        f"{case.trainings} trained, sd {case.training_sd:g}" if case.trainings else "one run each"
    )
    return (
        f"| {what}, noise {case.training_noise:g} | {told(same.covered, runs)} | "
        f"{told(apart.covered, runs)} | {told(same.sign_test, runs)} | {same.smallest_seen:.1f} | "
        f"{told(apart.excludes_0, runs)} |"
    )


PAIR_HEAD = (
    "| case | interval covers 0 | interval covers smallest seen | sign test below 5 %, truth 0 | "
    "smallest seen, points | told apart from 0 there |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def pairs() -> list[Case]:
    found = []
    for prompts, ties, noise in itertools.product((40, 80, 805), (0.0, 0.3), (0.2, 0.8)):
        base = Case(prompts, ties=ties, training_noise=noise, judging_noise=0, mean=0.5)
        found.append(base)
        found += [
            replace(base, trainings=a, training_sd=sd) for a in (2, 3, 5) for sd in (0.0, 1.0)
        ]
    return found


WIDE = {40: 40.0, 80: 28.0, 805: 9.0}
"""Margins that so many prompts can decide."""


def is_possible(case: Case) -> bool:
    """Whether wins and draws of both sides find room between 0 and all prompts."""
    lowest = case.mean - case.difference / 100 - case.ties / 2
    return lowest > 0.04 and case.mean + case.ties / 2 < 0.96


def grid() -> list[tuple[str, list[Case]]]:
    """Groups of cases: each is told in one line, with the worst of its rates."""
    groups = []
    for prompts, ties in itertools.product((40, 80, 805), (0.0, 0.3)):
        for margin in (3.0, WIDE[prompts]):
            base = Case(prompts, ties=ties, margin=margin)
            truths = [replace(base, difference=d * margin) for d in (0, 1, 2)]
            # Far apart, they lie alike on both sides of 50 %.
            truths = [
                c if c.difference < 20 else replace(c, mean=0.5 + c.difference / 200)
                for c in truths
            ]
            truths = [c for c in truths if is_possible(c)]
            what = f"{prompts} prompts, margin {margin:g}, ties {ties:g}"
            groups.append((f"{what}, nothing trained", truths))
            for trainings in (1, 2, 3, 5):
                groups += [
                    (f"{what}, {trainings} trained, sd {sd:g}",
                     [replace(c, trainings=trainings, training_sd=sd) for c in truths])
                    for sd in (0.0, 1.0, 3.0)
                ]  # fmt: skip
    return groups


def more() -> list[tuple[str, list[Case]]]:
    """What departs from the grid's cases one thing at a time."""
    base = Case(805, margin=9.0)
    trained = replace(base, trainings=3, training_sd=1.0)
    special = {
        "3 judgings, noise 0.3": replace(base, judgings=3, judging_noise=0.3),
        "3 trained, 2 judgings each": replace(trained, judgings=2),
        "published error not known": replace(base, error_known=False),
        "published error not known, ties 0.3": replace(base, error_known=False, ties=0.3),
        "10 % unjudged at random": replace(base, dropped=0.1),
        "10 % unjudged, all lost": replace(base, dropped=0.1, lost_dropped=True),
        "3 trained, 10 % unjudged, all lost": replace(trained, dropped=0.1, lost_dropped=True),
        "10 % unjudged on both sides": replace(base, dropped=0.1, published_dropped=0.1),
        "the same prompts on both sides": replace(base, same_prompts=True),
        "3 trained, the same prompts": replace(trained, same_prompts=True),
        "40 prompts, 3 trained, 10 % unjudged": Case(
            40, margin=40.0, mean=0.6, trainings=3, training_sd=1, dropped=0.1
        ),
        "scores near 5 %": replace(base, mean=0.05, margin=2.5),
        "40 prompts, scores near 10 %": Case(40, mean=0.1, margin=5.0),
        "judgings with 1 point in common, 3 of them": replace(base, judgings=3, judging_sd=1.0),
        "judgings with 1 point in common, 1 of them": replace(base, judging_sd=1.0),
    }  # fmt: skip
    return [
        (
            f"{case.prompts} prompts, margin {case.margin:g}: {name}",
            [replace(case, difference=d * case.margin) for d in (0, 1)],
        )
        for name, case in special.items()
    ]


def told(share: float, runs: int) -> str:
    return f"{100 * share:5.1f} ± {100 * math.sqrt(share * (1 - share) / runs):.1f}"


def line(name: str, cases: list[Case], runs: int, seed: int) -> str:
    found = [(case, simulate(case, runs, seed + i)) for i, case in enumerate(cases)]
    wrong = max((r.reproduced for c, r in found if c.difference >= c.margin), default=0.0)
    wrong_not = max((r.not_reproduced for c, r in found if c.difference <= c.margin), default=0.0)
    right = next((r.reproduced for c, r in found if c.difference == 0), 0.0)
    apart = next((r.not_reproduced for c, r in found if c.difference > c.margin), math.nan)
    covered, own = [r.covered for _, r in found], [r.own_covered for _, r in found]
    total = len(found) * runs
    mark = " !" if max(wrong, wrong_not) > LIMIT else ""
    return (
        f"| {name} | {told(wrong, runs)} | {told(wrong_not, runs)} | {100 * right:.0f} | "
        + ("" if math.isnan(apart) else f"{100 * apart:.0f}")
        + f" | {told(sum(covered) / len(covered), total)} | {told(sum(own) / len(own), total)} |{mark}"
    )


HEAD = (
    "| case | wrongly reproduced | wrongly not reproduced | reproduced, truth 0 | "
    "not reproduced, truth 2 margins | interval covers | own interval covers |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument(
        "--quick", action="store_true", help="300 simulations of a case, 80 prompts"
    )
    parser.add_argument("--only", default="", help="cases whose name has this text")
    wanted = parser.parse_args()
    runs = 300 if wanted.quick else wanted.runs
    groups = grid() + more()
    if wanted.quick:
        groups = [g for g in groups if g[1][0].prompts == 80]
    start = time.time()
    print(f"all in percent, {runs} simulations of each truth\n\n{HEAD}")
    for seed, (name, cases) in enumerate(groups):
        if wanted.only in name:
            print(line(name, cases, runs, 100 * seed), flush=True)
    if not wanted.only or wanted.only == "compare":
        print(f"\n{PAIR_HEAD}")
        for seed, case in enumerate(pairs()):
            if case.prompts == 80 or not wanted.quick:
                print(pair_line(case, runs, 10**6 + 10 * seed), flush=True)
    print(f"\n{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
