"""How well stored verdicts of a retired judge bridge to today's, on published boards and by simulation.

    python benchmarks/judge_bridge.py BOARDS [--quick] [--runs N] [--refit] [--cases MODELS SPREAD]

BOARDS: a folder with `baseline_BASELINE.JUDGE.csv` (AlpacaEval's published boards: model, win_rate,
standard_error) and `verdicts.json` (model -> judge -> each prompt's preference, 1 to 2).

First, on the boards: of every pair of judges who judged the same outputs against one baseline, each
model in turn is held out; the others (all, or a few drawn) bridge from one judge to the other, and the
interval is to hold what the retired judge really gave. What the spread's prior is made of is printed
too; with --refit each pair of judges is predicted from a prior made of the other pairs alone.

Then by simulation with known truth, over bridging models, spreads, prompts and win rates: how often the
interval holds what the retired judge would have given, and how often the verdict with a margin of 3
points is wrong, beside the rule without a bridge, which takes today's score for the retired judge's.
Every share stands with its Monte Carlo standard error, or its exact 95 % interval.
"""

import argparse
import csv
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.stats import bridge
from harness.stats.bridge import Bridged, Shift, bridged, difference, log_odds, of_log_odds, predict
from harness.stats.intervals import t_quantile

MARGIN = 0.03
AGREEMENT = 0.62
"""Correlation of two judges' verdicts on a model's prompts, the mean of six in verdicts.json; a board
has only the two standard errors."""
FEWEST_FOR_SLOPE = 8
"""Models that a pair must share for a slope to be fitted to all but one."""
FEWEST = 4
"""Models that a pair of judges must share to be taken."""
Z = t_quantile(math.inf)


@dataclass(frozen=True)
class Pair:
    """Two judges of the same outputs."""

    names: tuple[str, str]
    """Retired, today's."""
    models: list[str]
    shifts: list[Shift]
    today: list[float]
    """Win rates, shares of 1."""
    retired: list[float]

    def without(self, index: int) -> list[Shift]:
        return [shift for place, shift in enumerate(self.shifts) if place != index]


Board = dict[str, tuple[float, float]]


def boards(folder: Path) -> dict[tuple[str, str], Board]:
    """(baseline, judge) -> model -> win rate and standard error, shares of 1."""
    found = {}
    for path in sorted(folder.glob("baseline_*.csv")):
        baseline, judge = path.stem.removeprefix("baseline_").split(".", 1)
        with path.open() as file:
            found[baseline, judge] = {
                line["model"]: (float(line["win_rate"]) / 100, float(line["standard_error"]) / 100)
                for line in csv.DictReader(file)
                if line["standard_error"] and 0.005 < float(line["win_rate"]) / 100 < 0.995
            }
    return found


def pairs(folder: Path) -> Iterator[Pair]:
    """Each pair of judges once: which of the two is taken as retired changes only the sign."""
    for (first, one), (second, other) in itertools.combinations(boards(folder).items(), 2):
        models = [m for m in one if m in other and one[m][1] > 0 and other[m][1] > 0]
        if first[0] != second[0] or len(models) < FEWEST:
            continue
        shifts = []
        for model in models:
            (old, old_error), (new, new_error) = one[model], other[model]
            a, b = old_error / (old * (1 - old)), new_error / (new * (1 - new))
            error = math.sqrt(a * a + b * b - 2 * AGREEMENT * a * b)
            shifts.append(Shift(log_odds(old) - log_odds(new), error, 805))
        today, retired = [other[m][0] for m in models], [one[m][0] for m in models]
        yield Pair((first[1], second[1]), models, shifts, today, retired)


def paule_mandel(shifts: Sequence[Shift]) -> float:
    """Standard deviation between models (Paule and Mandel 1982)."""

    def excess(variance: float) -> float:
        weights = [1 / (s.error**2 + variance) for s in shifts]
        mean = sum(w * s.value for w, s in zip(weights, shifts, strict=True)) / sum(weights)
        squares = sum(w * (s.value - mean) ** 2 for w, s in zip(weights, shifts, strict=True))
        return squares - (len(shifts) - 1)

    low, high = 0.0, 10.0
    if excess(low) <= 0:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return math.sqrt(low)


def exact(hits: int, n: int) -> str:
    """A share with Clopper and Pearson's interval."""
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci()
    ends = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    return f"{hits} of {n} ({100 * hits / n:.1f} %, {ends})"


def on_boards(found: Sequence[Pair], refit: bool) -> None:
    print(f"{'retired judge':30} {'today':30} models  mean shift  spread (log-odds)")
    for pair in found:
        mean = sum(s.value for s in pair.shifts) / len(pair.shifts)
        spread = paule_mandel(pair.shifts)
        print(
            f"{pair.names[0][:30]:30} {pair.names[1][:30]:30} {len(pair.models):6d} {mean:+11.2f} "
            f"{spread:8.3f}"
        )
    logs = [math.log(max(paule_mandel(pair.shifts), 0.03)) for pair in found]
    mean, sd = float(np.mean(logs)), float(np.std(logs, ddof=1))
    print(f"logarithm of the spread: mean log({math.exp(mean):.2f}), standard deviation {sd:.2f}\n")
    prior = bridge.PRIOR_MEDIAN, bridge.PRIOR_SCALE
    random = np.random.default_rng(0)
    print(
        "held-out models whose interval holds what the retired judge gave, and half its width in points"
    )
    print(
        f"{'bridging models':16} {'with the bridge':42} half   {'without (error of the score alone)'}"
    )
    for count in (1, 2, 3, 5, None):
        hits = plain = n = 0
        halves = []
        for pair, rest in zip(found, _others(logs), strict=True):
            if refit:
                bridge.PRIOR_MEDIAN = prior[0] * math.exp(float(np.mean(rest)) - mean)
                bridge.PRIOR_SCALE = prior[1] * float(np.std(rest, ddof=1)) / sd
            for index, held in enumerate(pair.shifts):
                others = pair.without(index)
                if count is not None and len(others) < count:
                    continue
                drawn = [others] if count is None else [
                    [others[i] for i in random.choice(len(others), count, replace=False)]
                    for _ in range(3)
                ]  # fmt: skip
                for shifts in drawn:
                    today, retired = pair.today[index], pair.retired[index]
                    # Its own verdicts are paired too: what is left is what both judges' noise adds.
                    half = Z * held.error * today * (1 - today)
                    ours = bridged(today, today - half, today + half, predict(shifts))
                    hits += ours.low <= retired <= ours.high
                    plain += abs(retired - today) <= half
                    halves.append((ours.high - ours.low) / 2)
                    n += 1
        label = "all others" if count is None else str(count)
        print(
            f"{label:16} {exact(hits, n):42} {100 * float(np.median(halves)):4.1f}   {exact(plain, n)}"
        )
    bridge.PRIOR_MEDIAN, bridge.PRIOR_SCALE = prior


def _others(values: Sequence[float]) -> list[list[float]]:
    return [[v for j, v in enumerate(values) if j != i] for i in range(len(values))]


def on_covariates(found: Sequence[Pair], lengths: Mapping[str, float]) -> None:
    """Whether the shift of a held-out model is foretold better with a covariate than by the mean of the
    other models: today's log-odds (the first verdict), or the logarithm of the answers' mean length. By
    all the others, and by draws of five, as many as most studies could have."""
    covariates: dict[str, Callable[[Pair, int], float]] = {
        "today's log-odds": lambda pair, i: log_odds(pair.today[i]),
        "log length": lambda pair, i: math.log(lengths[pair.models[i]]),
    }
    print(
        "\nheld-out shifts, log-odds: root mean square error by the mean of the others -> with a "
        f"covariate (pairs of {FEWEST_FOR_SLOPE} models or more); of all others, and of five"
    )
    for name, of in covariates.items():
        every: list[list[tuple[float, float]]] = [[], []]
        for pair in (p for p in found if len(p.models) >= FEWEST_FOR_SLOPE):
            x = [of(pair, i) for i in range(len(pair.models))]
            each = [_held_out(pair, x, None), _held_out(pair, x, 5)]
            every = [before + now for before, now in zip(every, each, strict=True)]
            print(f"  {name:18} {' / '.join(pair.names):62.62} {'   '.join(map(_rms, each))}")
        print(f"  {name:18} {'all':62} {'   '.join(map(_rms, every))}")


def _held_out(
    pair: Pair, covariate: Sequence[float], count: int | None
) -> list[tuple[float, float]]:
    """How far each model's shift is from the weighted mean of others, and from their line; of all
    others, or of ten draws of so many."""
    random = np.random.default_rng(0)
    apart = []
    for index, held in enumerate(pair.shifts):
        rest = [i for i in range(len(covariate)) if i != index]
        draws = [rest] if count is None else [
            random.choice(rest, count, replace=False).tolist() for _ in range(10)
        ]  # fmt: skip
        for others in draws:
            spread = paule_mandel([pair.shifts[i] for i in others])
            weights = np.array([1 / (spread**2 + pair.shifts[i].error ** 2) for i in others])
            y = np.array([pair.shifts[i].value for i in others])
            x = np.array([covariate[i] for i in others])
            mean, centre = (float(np.average(values, weights=weights)) for values in (y, x))
            square = float((weights * (x - centre) ** 2).sum())
            slope = float((weights * (x - centre) * y).sum()) / square
            error = held.value - mean
            apart.append((error, error - slope * (covariate[index] - centre)))
    return apart


def _rms(apart: Sequence[tuple[float, float]]) -> str:
    plain, sloped = (
        math.sqrt(sum(e * e for e in side) / len(apart)) for side in zip(*apart, strict=True)
    )
    return f"{plain:.3f} -> {sloped:.3f}"


def lengths_of(folder: Path) -> dict[str, float]:
    """Model -> its answers' mean length in characters."""
    found = {}
    for path in sorted(folder.glob("baseline_*.csv")):
        with path.open() as file:
            found.update(
                {line["model"]: float(line["avg_length"]) for line in csv.DictReader(file)}
            )
    return found


def on_verdicts(folder: Path) -> None:
    """The paired shift from single verdicts, and its error beside the one from the boards' errors."""
    verdicts = json.loads((folder / "verdicts.json").read_text())
    print(
        "\nmodels with single verdicts of two judges: shift, error paired by prompt, error if unpaired"
    )
    for model, judged in verdicts.items():
        names = [name for name in judged if name != "output_characters"]
        for one, other in itertools.combinations(names, 2):
            both = [
                (a - 1, b - 1)
                for a, b in zip(judged[one], judged[other], strict=True)
                if a is not None and b is not None
            ]
            old, new = ([pair[side] for pair in both] for side in (0, 1))
            if min(sum(old), sum(new)) < 1 or all(a == b for a, b in both):
                continue
            found = bridge.shift(old, new)
            apart = math.sqrt(
                sum(
                    np.var(x, ddof=1) / len(x) / (np.mean(x) * (1 - np.mean(x))) ** 2
                    for x in (old, new)
                )
            )
            print(
                f"  {model[:28]:28} {one[:26]:26} {other[:30]:30} "
                f"{found.value:+.2f} {found.error:.3f} {apart:.3f}"
            )


@dataclass(frozen=True)
class Case:
    models: int
    spread: float
    """Points, at a win rate of 50 %; in log-odds the same at every win rate."""
    prompts: int
    """Of each bridging model that today's judge judges."""
    win_rate: float
    """Ours under the retired judge, percent."""


def simulate(case: Case, runs: int, random: np.random.Generator) -> dict[str, float]:
    """Shares of `covered`, and of wrong verdicts with and without the bridge; where ours truly differs
    from the published one by the margin (`reproduced` is wrong) and by a little less (`not reproduced`
    is)."""
    truth = case.win_rate / 100
    sd = case.spread / 25
    counts = dict.fromkeys(
        ("covered", "half", "reproduced", "not", "plain reproduced", "plain not"), 0.0
    )
    for _ in range(runs):
        mean = random.normal(0, 0.4)
        shifts = []
        for _ in range(case.models):
            old = of_log_odds(log_odds(truth) + random.normal(0, 0.5))
            shifts.append(_drawn(old, mean + sd * random.standard_normal(), case.prompts, random))
        own = mean + sd * random.standard_normal()
        today = of_log_odds(log_odds(truth) - own)
        scores = random.random(805) < today
        share = (scores.sum() + 0.5) / 806
        half = Z * math.sqrt(share * (1 - share) / 805)
        ours = bridged(share, share - half, share + half, predict(shifts))
        counts["covered"] += ours.low <= truth <= ours.high
        counts["half"] += (ours.high - ours.low) / 2
        plain = Bridged(share, share - half, share + half, 1, 0, 0)
        for name, apart in (("reproduced", MARGIN), ("not", MARGIN - 1e-9)):
            sides = [s for s in (apart, -apart) if 0.005 < truth + s < 0.995]
            side = sides[int(random.integers(len(sides)))]
            published = (random.random(805) < truth + side).mean()
            reported_half = Z * math.sqrt(max(published * (1 - published), 1 / 805) / 805)
            for start, way in (("", ours), ("plain ", plain)):
                low, high = difference(way, published, reported_half)
                if name == "reproduced":
                    counts[start + name] += low > -MARGIN and high < MARGIN
                else:
                    counts[start + name] += low > MARGIN or high < -MARGIN
    return {name: count / runs for name, count in counts.items()}


def _drawn(old: float, shift: float, n: int, random: np.random.Generator) -> Shift:
    """A bridging model's verdicts: both judges decide by one number of the prompt, today's anew for a
    part of them, so that they agree about as much as AGREEMENT."""
    new = of_log_odds(log_odds(old) - shift)
    u = random.random(n)
    v = np.where(random.random(n) < 1 - AGREEMENT, random.random(n), u)
    return bridge.shift((u < old).astype(float).tolist(), (v < new).astype(float).tolist())


def by_simulation(runs: int, quick: bool, cases: Sequence[int] | None) -> None:
    models: Sequence[int] = (1, 5) if quick else (1, 2, 3, 5, 10)
    spreads: Sequence[int] = (0, 4) if quick else (0, 4, 10)
    if cases:
        models, spreads = cases[:1], cases[1:]
    prompts, rates = ((200,), (10,)) if quick else ((50, 805), (2, 10, 50, 98))
    print(
        f"\nsimulation, {runs} runs a case; margin 3 points; wrong verdicts: with the bridge (without)"
    )
    print(
        "models spread prompts win rate  covered     half   wrong reproduced   wrong not reproduced"
    )
    random = np.random.default_rng(1)
    worst = [1.0, 0.0, 0.0]
    for case in itertools.starmap(Case, itertools.product(models, spreads, prompts, rates)):
        got = simulate(case, runs, random)
        error = math.sqrt(max(got["covered"] * (1 - got["covered"]), 1e-9) / runs)
        print(
            f"{case.models:6d} {case.spread:6g} {case.prompts:7d} {case.win_rate:8g}  "
            f"{100 * got['covered']:5.1f} ± {100 * error:.1f} {100 * got['half']:6.1f}   "
            f"{100 * got['reproduced']:5.1f} ({100 * got['plain reproduced']:5.1f})      "
            f"{100 * got['not']:5.1f} ({100 * got['plain not']:5.1f})",
            flush=True,
        )
        worst = [
            min(worst[0], got["covered"]),
            max(worst[1], got["reproduced"]),
            max(worst[2], got["not"]),
        ]
    print(
        f"lowest coverage {100 * worst[0]:.1f} %, most wrong reproduced {100 * worst[1]:.1f} %, "
        f"most wrong not reproduced {100 * worst[2]:.1f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("boards", type=Path, help="folder of published boards")
    parser.add_argument("--quick", action="store_true", help="four cases of the simulation")
    parser.add_argument("--runs", type=int, default=300, help="simulated runs a case (300)")
    parser.add_argument(
        "--refit", action="store_true", help="the prior anew from the other pairs of judges"
    )
    parser.add_argument(
        "--cases",
        type=int,
        nargs=2,
        metavar=("MODELS", "SPREAD"),
        help="the simulation's cases of so many models and points alone, without the boards",
    )
    options = parser.parse_args()
    started = time.perf_counter()
    if not options.cases:
        found = list(pairs(options.boards))
        on_boards(found, options.refit)
        on_covariates(found, lengths_of(options.boards))
        on_verdicts(options.boards)
    by_simulation(options.runs, options.quick, options.cases)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
