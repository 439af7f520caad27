"""Whether a reproduced number agrees with the reported one. A first, simple rule."""

import math
from dataclasses import dataclass
from typing import Any

from harness.spec.models import Reported

MARGIN = 3.0
"""Points of win rate within which two numbers count as the same."""
Z = 1.96
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True)
class Verdict:
    name: str
    reason: str


def pool(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """One metric over its replicates.

    `value` is the mean; `standard_error` the root mean square of the replicates' own standard errors
    (the choice of prompts, which replicates share); `replicate_sd` their sample standard deviation
    (ddof 1; None for one). Counts are summed over the replicates, bounds are averaged.
    """
    values = [m["value"] for m in metrics]
    errors = [m.get("standard_error") for m in metrics]
    known = [e for e in errors if e is not None]
    n = len(values)
    mean = math.fsum(values) / n
    pooled: dict[str, Any] = {
        "value": mean,
        "standard_error": (
            math.sqrt(math.fsum(e * e for e in known) / n) if len(known) == n else None
        ),
        "replicate_sd": (
            math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None
        ),
        "replicates": n,
    }
    for name in ("judged", "expected", "wins", "losses", "draws"):
        if all(name in m for m in metrics):
            pooled[name] = sum(m[name] for m in metrics)
    for name in ("lower_bound", "upper_bound"):
        if all(name in m for m in metrics):
            pooled[name] = math.fsum(m[name] for m in metrics) / n
    return pooled


def judge(
    reported: Reported | None, pooled: dict[str, Any] | None, simulated: list[str]
) -> Verdict:
    """Compare by equivalence: `reproduced` when the 95 % interval of the difference lies within
    MARGIN of zero, `not reproduced` when it lies wholly outside, else `inconclusive`.

    The interval covers the sampling error of both numbers where it is known, the spread between
    replicates, and the bounds that unjudged prompts leave.
    """
    if pooled is None:
        return Verdict("not run", "")
    if simulated:
        return Verdict("simulated", f"simulated: {', '.join(simulated)}")
    if reported is None:
        return Verdict("not comparable", "no number was reported")
    if pooled["standard_error"] is None:
        return Verdict("not comparable", "the standard error is not known")
    low = pooled.get("lower_bound", pooled["value"]) - reported.value
    high = pooled.get("upper_bound", pooled["value"]) - reported.value
    spread = (pooled["replicate_sd"] or 0.0) ** 2 / pooled["replicates"]
    half = Z * math.sqrt(
        pooled["standard_error"] ** 2 + (reported.standard_error or 0.0) ** 2 + spread
    )
    low, high = low - half, high + half
    words = f"difference between {low:+.1f} and {high:+.1f} points (95 %), margin {MARGIN:g}"
    if low >= -MARGIN and high <= MARGIN:
        return Verdict("reproduced", words)
    if low > MARGIN or high < -MARGIN:
        return Verdict("not reproduced", words)
    return Verdict("inconclusive", words)
