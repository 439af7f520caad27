"""Rows of the matrix for tests, made on a volume at once with the scores that a test says."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.results.line import HEADINGS, MatrixLine, display
from harness.results.matrix import lines_of, together
from harness.row.load import load_rows
from tests.helpers import InstantExecutor, make, planner

HOSTILE = (
    'a|b\n<script>alert("x")</script> [link](http://x) `code` *bold* _it_ ~no~ $x$ \\ & &lt; '
    "\x1b[31mred\x1b]0;title\x07 \u202e"
)
SCORE = {"value": 40.0, "standard_error": 2.0, "judged": 3, "expected": 3,
         "lower_bound": 40.0, "upper_bound": 40.0}  # fmt: skip
HELD_OUT = {"held_out_loss": {"value": 2.5, "examples": 12, "tokens": 1500},
            "bits_per_byte": {"value": 1.25, "examples": 12, "tokens": 1500, "bytes": 4500},
            "train_loss": {"value": 1.5}}  # fmt: skip
VALIDATED = {"steps": 60, "validation": {"share": 0.1}}


def scored(*scores: dict[str, Any], simulated: str = "", cost: Any = None) -> InstantExecutor:
    """Gives each judging the next score; `simulated`: the stage that says it is."""
    left = list(scores)

    def outcome(job: Any) -> dict[str, Any]:
        result: dict[str, Any] = {"simulated": ["teacher"] if job.stage == simulated else []}
        if job.stage == "judge":
            result["metrics"] = {"win_rate": left.pop(0)}
        if job.stage in ("gen", "judge"):
            result["cost"] = {"calls": 2, "prompt_tokens": 30, "completion_tokens": 4}
        return result

    return InstantExecutor(outcome)


def lines(volume: Path, *specs: Path) -> list[MatrixLine]:
    return together([m for row in load_rows(specs) for m in lines_of(row, [planner(volume)])])


def cells(volume: Path, spec: Path) -> dict[str, Any]:
    (line,) = lines(volume, spec)
    return asdict(line.cells)


def shown(line: MatrixLine) -> dict[str, str]:
    return dict(zip(HEADINGS, display(line), strict=True))


def hostile_lines(row: Callable[..., Path], volume: Path) -> list[MatrixLine]:
    spec = row(
        title=HOSTILE,
        varied={"|": HOSTILE},
        deviations=["=HYPERLINK(1)", HOSTILE],
        source={"document": "=cmd|' /C calc'!A0"},
    )
    make(volume, spec, executor=scored(SCORE))
    return lines(volume, spec)


def trained(*losses: dict[str, Any], simulated: bool = False) -> InstantExecutor:
    """Gives each training the next metrics; the judge always SCORE."""
    left = list(losses)

    def outcome(job: Any) -> dict[str, Any]:
        if job.stage == "train":
            return {"metrics": left.pop(0), "counts": {"steps": 60, "examples": 100},
                    "simulated": ["teacher"] if simulated else []}  # fmt: skip
        return {"metrics": {"win_rate": SCORE}} if job.stage == "judge" else {}

    return InstantExecutor(outcome)


def scaled(by: float) -> dict[str, Any]:
    return {name: {**metric, "value": metric["value"] * by} for name, metric in HELD_OUT.items()}


def by_metric(volume: Path, *specs: Path) -> dict[str, dict[str, str]]:
    return {line.cells.metric: shown(line) for line in lines(volume, *specs)}
