"""Rows whose judgings a test writes down, with the scores that they give."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.judge.scores import describe, win_rate_metric
from tests.helpers import InstantExecutor, evaluation, make, write_row

Preferences = Sequence[float | None]
"""1 a loss, 1.5 a draw, 2 a win, None unjudged; of prompts 0, 1, 2 and so on."""


class Scored(InstantExecutor):
    """Each judging that is run takes the next preferences, and scores them as a judge stage does."""

    cost: Mapping[str, int] = {}
    served: Sequence[str] = ()
    """What its server calls the judge."""

    def __init__(self, *judgings: Preferences, simulated: bool = False) -> None:
        super().__init__()
        self.left, self.simulated = list(judgings), simulated

    def run(self, job: Any, files: Any, on_event: Any) -> None:
        from harness.artefact.call import RESULT_FILE, StageResult

        if job.stage != "judge":
            super().run(job, files, on_event)
            return
        preferences = self.left.pop(0)
        rows = [{"instruction": f"prompt {n}", "preference": p} for n, p in enumerate(preferences)]
        (job.folder / "annotations.json").write_text(json.dumps(rows))
        result = StageResult(
            keep=["annotations.json"],
            metrics={"win_rate": win_rate_metric(describe(preferences), len(preferences))},
            simulated=["judge"] if self.simulated else [],
            cost=dict(self.cost),
            used={"served_models": list(self.served)},
        )
        (job.folder / RESULT_FILE).write_text(json.dumps(result.to_json()))


def scored_row(
    folder: Path,
    *judgings: Preferences,
    row: str = "one",
    trained: bool = False,
    simulated: bool = False,
    **changes: Any,
) -> Path:
    """The row below `folder`/specs, made on the volume `folder`/runs; its spec.

    `trained`: it trains on data that is made; several judgings are then of as many trainings, and
    else of the same outputs. Changes of `replicates` say otherwise.
    """
    specs, count = folder / "specs", len(judgings)
    replicates: dict[str, Any] = {"judge": max(count, 1)}
    if trained:
        replicates = {"train_seeds": list(range(max(count, 1)))}
    parts: dict[str, Any] = {} if trained else {"gen": None, "train": None}
    parts |= {"eval": evaluation(specs), "replicates": replicates}
    parts |= changes
    # Without it rows would share their artefacts.
    parts["eval"]["answer"]["decoding"] = {"seed": sum(map(ord, row))}
    spec = write_row(specs, row, **parts)
    if judgings:
        make(folder / "runs", spec, executor=Scored(*judgings, simulated=simulated))
    return spec


def wins(count: int, of: int = 100, first: int = 0) -> list[float]:
    """Prompts from `first` on won, the others lost."""
    return [2.0 if first <= n < first + count else 1.0 for n in range(of)]
