"""Looking at data several times without more wrong verdicts than one look would have."""

import itertools
import math
from statistics import NormalDist

from harness.stats.intervals import LEVEL

LEAST = 1e-12
"""What a look spends at least: of twenty looks the first would spend nothing that a float can tell."""


def levels(looks: int, level: float = LEVEL) -> list[float]:
    """Of the interval at each of so many planned looks, evenly spaced in information, where all have
    `level` together.

    At look k of n, what the O'Brien-Fleming-like function 2 - 2 Phi(z / sqrt(t)) spends between
    t = (k - 1) / n and k / n (Lan and DeMets 1983, Discrete sequential boundaries for clinical trials,
    Biometrika 70). The looks' errors are added up (Bonferroni), which takes nothing for granted of how
    the looks hang together, also where a look is chosen by what an earlier one showed.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    spent = [0.0, *(math.erfc(z / math.sqrt(2 * k / looks)) for k in range(1, looks + 1))]
    return [1 - max(after - before, LEAST) for before, after in itertools.pairwise(spent)]
