"""How often `harness settle` decides wrongly, with its looks, by simulation with known truth.

    python benchmarks/settle_error_rates.py [--runs N] [--only replicates|bridge] [--quick]

Each case draws a published run, and as many trainings and judgings of ours as could be bought, as
benchmarks/verdict_error_rates.py does. settle is then played: at each look the verdict of
harness.results.verdict.verdict on what is there, at that look's level; what is bought next is what
harness.results.purchase says, with no limit of money. True differences lie at the margin (`reproduced`
is wrong) and just within (`not reproduced` is). Beside it: the same looks, each at 95 %, as if looking
cost nothing; and the rate at which it decides rightly where the truth is 0 or twice the margin. So too
where ours stands in the published judge's terms, by a bridge, and prompts of its models are bought.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from judge_bridge import AGREEMENT
from verdict_error_rates import Case, evidence, published, side

from harness.results.purchase import (
    BRIDGE,
    Counts,
    Purchase,
    best,
    enough,
    first_asked,
    half_of,
    more_of,
)
from harness.results.verdict.deciding import at_best
from harness.results.verdict.forecast import DECIDED, decide
from harness.results.verdict.outlook import NOTHING, Bridge, Outlook
from harness.results.verdict.sides import difference_interval, reproduced_of
from harness.results.verdict.verdict import Weighed, judge
from harness.row.reported import Reported
from harness.stats.bridge import log_odds, of_log_odds, shift
from harness.stats.intervals import LEVEL
from harness.stats.spending import levels

LOOKS = 5
MOST = {"train": 10, "judge": 5}
"""Of a kind that a simulated row can have; more is not drawn."""


@dataclass(frozen=True)
class Course:
    """One row, settled."""

    verdict: str
    looks: int
    trainings: int


def settled(
    look: Callable[[Counts, float], Weighed], trains: bool, all_levels: list[float]
) -> Course:
    """look: counts and a level -> the verdict on what was bought."""
    counts: Counts = (1, 1, 1, 0)
    for number, level in enumerate(all_levels, start=1):
        weighed = look(counts, level)
        name = weighed.verdict.name
        if name in DECIDED or number == len(all_levels):
            break
        purchase = chosen(weighed, counts, trains)
        if purchase is None:
            break
        counts = purchase.counts
    return Course(name, number, counts[0])


def chosen(weighed: Weighed, counts: Counts, trains: bool) -> Purchase | None:
    """As `Settler.purchase` has it, where money is no matter."""
    outlook = weighed.outlook
    assert outlook is not None
    reach = at_best(weighed)
    if reach is not None and not reach.verdicts:
        return None
    kinds = (["train"] if counts[0] == 1 else ["train", "judge"]) if trains else ["judge"]
    first = first_asked(weighed)
    have = {"train": counts[0], "judge": counts[2]}
    options = []
    for kind in kinds:
        room = MOST[kind] - have[kind]
        if room < 1:
            continue
        difference = weighed.verdict.difference or 0.0
        count = first.get(kind) or enough(outlook, counts, kind, difference, room.__ge__)
        assert count is not None
        more = more_of(counts, kind, count)
        options.append(Purchase(kind, count, 0.0, half_of(outlook, more), more, stages=count))
    return best(outlook, counts, options, first)


@dataclass(frozen=True)
class Rates:
    reproduced: float
    not_reproduced: float
    looks: float
    trainings: float


def simulate(case: Case, all_levels: list[float], runs: int, seed: int) -> Rates:
    random = np.random.default_rng(seed)
    trains = case.trainings > 0
    courses = []
    for _ in range(runs):
        u = random.random((1, case.prompts))
        most = MOST["train"] if trains else 1
        grades = side(case, case.mean, 1, most, MOST["judge"], u, random)[0][0]
        theirs = random.random((1, case.prompts))
        other = side(case, case.mean - case.difference / 100, 1, 1, 1, theirs, random)[0][0, 0, 0]
        reported = published(case, other, random)

        def look(
            counts: Counts, level: float, grades: Any = grades, reported: Reported = reported
        ) -> Weighed:
            a, _, c, _ = counts
            named = replace(case, trainings=a if trains else 0)
            ours = evidence(named, grades[:a, :c], random)
            return judge(reported, ours, [], case.margin, level=level)

        courses.append(settled(look, trains, all_levels))
    names = [course.verdict for course in courses]
    return Rates(
        names.count("reproduced") / runs,
        names.count("not reproduced") / runs,
        sum(course.looks for course in courses) / runs,
        sum(course.trainings for course in courses) / runs,
    )


MARGIN, RATE, PROMPTS = 14.0, 0.3, 805
"""Points; ours under the retired judge; of ours, and of each bridging model's that it has judged."""
FEW = 50
"""Prompts of each bridging model at the first look."""


def bridge_simulated(
    models: int, spread: float, apart: float, all_levels: list[float], runs: int
) -> tuple[float, float, float]:
    """Shares of `reproduced` and `not reproduced` where the published number is `apart` points from
    ours, and the prompts of each bridging model at the end: what is bought is prompts of these."""
    random = np.random.default_rng(models)
    names, prompts = [], []
    for _ in range(runs):
        mean, sd = random.normal(0, 0.4), spread / 25
        both = [_both(of_log_odds(log_odds(RATE) + random.normal(0, 0.5)),
                      mean + sd * random.standard_normal(), random) for _ in range(models)]  # fmt: skip
        today = of_log_odds(log_odds(RATE) - mean - sd * random.standard_normal())
        grades = 100.0 * (random.random((1, 1, PROMPTS)) < today)
        ours = evidence(Case(PROMPTS), grades, random)
        own = reproduced_of(ours)
        assert own is not None
        side_ = apart if random.random() < 0.5 else -apart
        published_ = 100.0 * (random.random(PROMPTS) < RATE + side_ / 100)
        value, error = float(published_.mean()), float(published_.std(ddof=1)) / math.sqrt(PROMPTS)
        counts: Counts = (1, 1, 1, FEW)
        for number, level in enumerate(all_levels, start=1):
            shifts = tuple(
                shift(old[: counts[3]].tolist(), new[: counts[3]].tolist()) for old, new in both
            )
            bridge = Bridge(shifts, PROMPTS, value, error, 0.0)
            low, high = difference_interval(own, NOTHING, 0.0, level)
            _, terms, ends = bridge.weigh(own.value, low, high, level)
            name = decide(*ends, MARGIN)
            outlook = Outlook(ours, own, NOTHING, MARGIN, bridge)
            more = enough(outlook, counts, BRIDGE, 100 * terms.value - value, lambda n: True)
            if name in DECIDED or number == len(all_levels) or more is None:
                break
            counts = more_of(counts, BRIDGE, more)
        names.append(name)
        prompts.append(counts[3])
    return (
        names.count("reproduced") / runs,
        names.count("not reproduced") / runs,
        sum(prompts) / runs,
    )


def _both(old: float, moved: float, random: np.random.Generator) -> tuple[Any, Any]:
    """A bridging model's verdicts by either judge, as judge_bridge.py draws them."""
    new = of_log_odds(log_odds(old) - moved)
    u = random.random(PROMPTS)
    v = np.where(random.random(PROMPTS) < 1 - AGREEMENT, random.random(PROMPTS), u)
    return (u < old).astype(float), (v < new).astype(float)


def told(share: float, runs: int) -> str:
    error = math.sqrt(max(share * (1 - share), 1e-9) / runs)
    return f"{100 * share:.1f} ± {100 * error:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="one case of each table")
    parser.add_argument("--only", choices=["replicates", "bridge"], help="one of the two tables")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.only != "bridge":
        print_replicates(options.runs, options.quick)
    if options.only != "replicates":
        print_bridge(options.runs, options.quick)
    print(f"{time.perf_counter() - started:.0f} s")


def print_replicates(runs: int, quick: bool) -> None:
    base = Case(200, margin=14.0)
    cases = [replace(base, trainings=1, training_sd=sd) for sd in (1.0, 3.0, 6.0)]
    cases += [base, replace(base, judging_sd=2.0)]
    print(
        "| case | wrongly reproduced | wrongly not reproduced | the same with every look at 95 % | "
        "rightly reproduced | rightly not | looks | trainings |\n| --- | --- | --- | --- | --- | --- | "
        "--- | --- |"
    )
    paid, unpaid = levels(LOOKS), [LEVEL] * LOOKS
    for seed, case in enumerate(cases[:1] if quick else cases):
        at = [replace(case, difference=d * case.margin) for d in (1.0, 1 - 1e-9)]
        wrong = [simulate(c, paid, runs, seed) for c in at]
        loose = [simulate(c, unpaid, runs, seed) for c in at]
        right, far = (
            simulate(replace(case, difference=d * case.margin), paid, runs, seed)
            for d in (0.0, 2.0)
        )
        trained = f"trainings {case.training_sd:g} apart" if case.trainings else "nothing trained"
        trained += f", judgings {case.judging_sd:g} apart" * (case.judging_sd > 0)
        print(
            f"| {case.prompts} prompts, {trained} | {told(wrong[0].reproduced, runs)} | "
            f"{told(wrong[1].not_reproduced, runs)} | {told(loose[0].reproduced, runs)}; "
            f"{told(loose[1].not_reproduced, runs)} | {told(right.reproduced, runs)} | "
            f"{told(far.not_reproduced, runs)} | {wrong[0].looks:.1f} | {wrong[0].trainings:.1f} |",
            flush=True,
        )


def print_bridge(runs: int, quick: bool) -> None:
    print(
        "\n| bridging models | spread, points | wrongly reproduced | wrongly not | every look "
        "at 95 % | rightly reproduced | rightly not | prompts at the end |\n| --- | --- | --- | --- | "
        "--- | --- | --- | --- |"
    )
    paid, unpaid = levels(LOOKS), [LEVEL] * LOOKS
    cases = ((6, 0.0),) if quick else ((3, 0.0), (6, 0.0), (6, 4.0), (10, 4.0))
    for models, spread in cases:
        reproduced, not_reproduced = (
            [bridge_simulated(models, spread, apart, each, runs)[which] for each in (paid, unpaid)]
            for which, apart in ((0, MARGIN), (1, MARGIN - 1e-9))
        )
        right = bridge_simulated(models, spread, 0.0, paid, runs)
        far = bridge_simulated(models, spread, 2 * MARGIN, paid, runs)
        print(
            f"| {models} | {spread:g} | {told(reproduced[0], runs)} | "
            f"{told(not_reproduced[0], runs)} | {told(reproduced[1], runs)}; "
            f"{told(not_reproduced[1], runs)} | {told(right[0], runs)} | {told(far[1], runs)} | "
            f"{right[2]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
