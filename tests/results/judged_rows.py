"""Rows whose outputs and judgements a test writes down, with no model and no judge."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.helpers import InstantExecutor, evaluation, make, write_row

Rows = Sequence[dict[str, Any]]


class Written(InstantExecutor):
    """Answers and judges at once: `outputs`, and one list of annotations for each judging."""

    def __init__(self, outputs: Rows, *judgings: Rows, unread: Rows = ()) -> None:
        super().__init__()
        self.outputs, self.judgings, self.unread = outputs, judgings, unread

    def run(self, job: Any, files: Any, on_event: Any) -> None:
        from harness.artefact.call import RESULT_FILE, StageResult

        kept = {"made.txt": job.key}
        if job.stage == "answer":
            kept = {"model_outputs.json": json.dumps(self.outputs)}
        if job.stage == "judge":
            kept = {
                "annotations.json": json.dumps(self.judgings[job.params["replicate"]]),
                "unjudged.jsonl": "".join(json.dumps(row) + "\n" for row in self.unread),
            }
        for name, text in kept.items():
            (job.folder / name).write_text(text)
        (job.folder / RESULT_FILE).write_text(json.dumps(asdict(StageResult(keep=list(kept)))))


def judged_row(
    folder: Path, outputs: Rows, *judgings: Rows, unread: Rows = (), **changes: Any
) -> Path:
    """The row `one` below `folder`/specs, made on the volume `folder`/runs: its spec."""
    specs = folder / "specs"
    parts = evaluation(specs)
    if not judgings:
        del parts["judge"]
    replicates = {"judge": max(len(judgings), 1)}
    spec = write_row(specs, gen=None, train=None, eval=parts, replicates=replicates, **changes)
    make(folder / "runs", spec, executor=Written(outputs, *judgings, unread=unread))
    return spec


def annotations(*preferences: float | None, words: str = "") -> list[dict[str, Any]]:
    """Judgements of prompts 0, 1, 2 and so on."""
    return [
        {"instruction": f"prompt {n}", "preference": p, "raw_completion": words or None}
        for n, p in enumerate(preferences)
    ]


def answers(count: int) -> list[dict[str, Any]]:
    return [{"instruction": f"prompt {n}", "output": f"answer {n}"} for n in range(count)]
