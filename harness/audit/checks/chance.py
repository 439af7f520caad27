"""How likely a difference is by chance: the few tests that the checks use, on Python alone."""

import math
from collections.abc import Sequence


def two_sided(z: float) -> float:
    """p of a standard normal variable at least this far from zero."""
    return math.erfc(abs(z) / math.sqrt(2))


def larger(sample: Sequence[float], other_sample: Sequence[float]) -> tuple[float, float]:
    """How often one of `sample` is larger than one of `other_sample` (a half where equal), and the
    two-sided p of the Mann-Whitney test by its normal approximation, ties and continuity corrected for.
    """
    n, m = len(sample), len(other_sample)
    if not n or not m:
        return 0.5, 1.0
    values = sorted([(v, True) for v in sample] + [(v, False) for v in other_sample])
    ranks, tied, start = 0.0, 0.0, 0
    while start < len(values):
        end = start
        while end < len(values) and values[end][0] == values[start][0]:
            end += 1
        same = end - start
        ranks += (start + end + 1) / 2 * sum(of_sample for _, of_sample in values[start:end])
        tied += same**3 - same
        start = end
    u = ranks - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * (total + 1 - tied / (total * (total - 1))) if total > 1 else 0.0
    if variance <= 0:
        return 0.5, 1.0
    distance = max(0.0, abs(u - n * m / 2) - 0.5)
    return u / (n * m), two_sided(distance / math.sqrt(variance))


def score_test(shares: Sequence[float], x: Sequence[float]) -> float:
    """Two-sided p that shares (each from 0 to 1) do not hang on x: the score test of a logistic
    regression's slope, which is that of the correlation (sqrt(n) r)."""
    n = len(x)
    my, mx = math.fsum(shares) / n, math.fsum(x) / n
    xy = math.fsum((y - my) * (v - mx) for y, v in zip(shares, x, strict=True))
    yy = math.fsum((y - my) ** 2 for y in shares)
    xx = math.fsum((v - mx) ** 2 for v in x)
    if yy <= 0 or xx <= 0:
        return 1.0
    return two_sided(math.sqrt(n) * xy / math.sqrt(xx * yy))


def logistic(shares: Sequence[float], x: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of a logistic regression of shares (0 to 1) on x, by Newton's method. A
    penalty of slope**2 / 100 keeps it finite where x separates them."""
    mean = min(max(math.fsum(shares) / len(shares), 1e-3), 1 - 1e-3)
    a, b = math.log(mean / (1 - mean)), 0.0
    for _ in range(50):
        g0 = g1 = h00 = h01 = h11 = 0.0
        for y, v in zip(shares, x, strict=True):
            p = 1 / (1 + math.exp(-max(-30.0, min(30.0, a + b * v))))
            w = max(p * (1 - p), 1e-9)
            g0 += y - p
            g1 += (y - p) * v
            h00 += w
            h01 += w * v
            h11 += w * v * v
        g1 -= b / 50
        h11 += 1 / 50
        determinant = h00 * h11 - h01 * h01
        if determinant <= 1e-12:
            break
        da = (h11 * g0 - h01 * g1) / determinant
        db = (h00 * g1 - h01 * g0) / determinant
        # A step of at most 2, lest it overshoot where nearly all went one way.
        scale = min(1.0, 2 / max(abs(da), abs(db), 1e-9))
        a, b = a + scale * da, b + scale * db
        if max(abs(da), abs(db)) < 1e-9:
            break
    return a, b
