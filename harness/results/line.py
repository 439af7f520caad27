"""The cells of a line of the matrix, in the order of matrix.csv's columns; None where there is none."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cells:
    row: str
    table: str
    title: str
    varied: str
    metric: str
    reported: float | None
    unreported: str
    """`yes` where the study leaves the cell empty."""
    reported_se: float | None
    reported_judged: int | None
    reported_expected: int | None
    reproduced: float | None
    standard_error: float | None
    judged: int | None
    expected: int | None
    lower_bound: float | None
    upper_bound: float | None
    lowest: float | None
    highest: float | None
    examples: int | None
    tokens: int | None
    bytes: int | None
    steps: int | None
    replicates: int
    replicates_planned: int | None
    replicate_sd: float | None
    interval_low: float | None
    interval_high: float | None
    difference_low: float | None
    difference_high: float | None
    margin: float | None
    verdict: str
    verdict_reason: str
    simulated: str
    random_weights: str
    """`yes` where they began so."""
    deviations: str
    assumptions: str
    findings: str
    confounded: str
    calls: float | None
    prompt_tokens: float | None
    completion_tokens: float | None
    usd: float | None
    source: str
    env_environment: str
    env_wall_seconds: float | None
    env_artefacts: str

    @property
    def is_all_judged(self) -> bool:
        """Also where nothing is counted."""
        return self.expected is None or self.judged is None or self.judged >= self.expected
