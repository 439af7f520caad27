"""Rows of every kind for the HTML report, made on a volume at once, with no model and no judge."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.answer.hygiene import count_flags, findings, flags
from harness.artefact.manifest import Finding
from harness.data.dataset import DatasetExample
from harness.data.dropped import Tally
from harness.gen.card import card
from harness.gen.recipe import RecipeResult
from harness.judge.scores import describe, position_bias, win_rate_metric
from tests.helpers import InstantExecutor, evaluation, make, write_row

HOSTILE = (
    "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    '"><svg onload="window.ran = 1"> javascript:window.ran=1 --> ]]> &lt; & \' \x1b[31m\x00\x07\r '
    "\u202edesrever\u2066 \u2028 \ud83d naïve 東京 👩\u200d🚀"
)
"""A text that tries everything: tags, quotes, controls, another reading order, half a character."""
ENVIRONMENT = {
    "image": None, "processor": "A Processor", "cpus": 8, "memory_bytes": 2**34,
    "python": "3.11.7", "packages": {"torch": "2.13.0", "alpaca-eval": "0.6.6", "click": "8.5.1"},
}  # fmt: skip
Grades = Sequence[float | None]


class Stages(InstantExecutor):
    """Does what each stage does, as far as the report reads it. `grades`: of each judging; `text`
    stands in every place where a model or a stranger may write."""

    def __init__(self, grades: Sequence[Grades], text: str = "", simulated: bool = False) -> None:
        super().__init__()
        self.grades, self.text, self.simulated = grades, text, simulated

    def run(self, job: Any, files: Any, on_event: Any) -> None:
        from harness.artefact.call import RESULT_FILE, StageResult

        kept, told = getattr(self, f"_{job.stage}")(job)
        for name, text in kept.items():
            (job.folder / name).write_bytes(text.encode("utf-8", "replace"))
        used = {"environment": ENVIRONMENT, **told.pop("used", {})}
        cost = {"calls": 2, "prompt_tokens": 1000, "completion_tokens": 20, "usd": 0.25,
                "wall_seconds": 90.0}  # fmt: skip
        marks = [job.stage] if self.simulated and job.stage == "judge" else []
        result = StageResult(keep=list(kept), used=used, cost=cost, simulated=marks, **told)
        (job.folder / RESULT_FILE).write_text(json.dumps(result.to_json()))

    def _gen(self, job: Any) -> Any:
        examples = [
            DatasetExample(str(i), f"Write {i} poems {self.text}", output="so " * (i + 1))
            for i in range(9)
        ]
        dropped = Tally("tasks", self.text or "tasks", 9, Counter(too_short=3))
        made = RecipeResult(examples, [dropped], counts={"requests": 4})
        call: Any = job
        return {"card.json": json.dumps(card.measure(call, "alpaca", made))}, {
            "counts": {"examples": 9}
        }

    def _train(self, job: Any) -> Any:
        seed = job.params["train"].seed
        log = [
            {"step": n, "loss": 3 * math.exp(-n / 60) + 0.2 + 0.03 * ((n * 7 + seed) % 5)}
            for n in range(1, 301)
        ]
        log += [
            {"step": n, "held_out_loss": 2.5 * math.exp(-n / 80) + 0.5} for n in (100, 200, 300)
        ]
        text = "".join(json.dumps(line) + "\n" for line in log)
        counts = {"examples": 9, "steps": 300, "tokens": 5000}
        used = {"device": self.text or "cuda", "base_model": "tiny"}
        return {"trainer_log.jsonl": text}, {
            "counts": counts,
            "used": used,
            "seeds": {"train": seed},
        }

    def _answer(self, job: Any) -> Any:
        rows: list[dict[str, Any]] = []
        for n in range(len(self.grades[0])):
            words = "" if n % 13 == 5 else f"answer {n} " + "word " * (n % 40)
            row = {"instruction": f"prompt {n} {self.text}", "output": f"{words}{self.text}"}
            row |= {"generator": self.text or "model", "tokens": 3 * (n % 40) + 2}  # type: ignore[dict-item]
            row |= {
                "dataset": self.text or "koala",
                "finish_reason": "length" if n == 3 else "stop",
            }
            flagged = flags(words, row["finish_reason"])
            rows.append(row | {"flags": [*flagged, *[self.text] * bool(self.text)]})
        known = [[flag for flag in row["flags"] if flag != self.text] for row in rows]
        told = {"counts": {"prompts": len(rows), **count_flags(known)}, "findings": findings(known)}
        if self.text:
            evidence = {self.text: [self.text, {self.text: 1}]}
            told["findings"] = [Finding(self.text, self.text, self.text, evidence)]  # type: ignore[arg-type]
            told |= {"notes": [self.text], "deviations": [self.text]}  # type: ignore[dict-item]
        return {"model_outputs.json": json.dumps(rows)}, told

    def _judge(self, job: Any) -> Any:
        grades = self.grades[job.params["replicate"]]
        rows = [
            {"instruction": f"prompt {n} {self.text}", "output_1": f"baseline {n} {self.text}",
             "generator_1": self.text or "davinci", "preference": grade, "is_switched": n % 2 == 0,
             "raw_completion": f"I prefer it. {self.text}"}
            for n, grade in enumerate(grades)
        ]  # fmt: skip
        metric = win_rate_metric(describe(grades), len(grades))
        bias = position_bias((row["is_switched"], row["preference"]) for row in rows)
        kept = {"annotations.json": json.dumps(rows), "unjudged.jsonl": ""}
        return kept, {"metrics": {"win_rate": metric}, "used": {"position_bias": bias}}


def grades(count: int, wins: int, unjudged: int = 0, shift: int = 0) -> list[float | None]:
    """Preferences of `count` prompts, `wins` of them (spread out evenly) for the model."""
    found: list[float | None] = [
        2.0 if (n + shift) * wins // count != (n + shift + 1) * wins // count else 1.0
        for n in range(count)
    ]
    found[10:10 + unjudged] = [None] * unjudged  # fmt: skip
    return found


def report_row(folder: Path, name: str, judgings: Sequence[Grades], **changes: Any) -> Path:
    """The spec of a row with one judging for each of `judgings`, made on the volume `folder`/runs."""
    text, simulated = changes.pop("text", ""), changes.pop("simulated", False)
    specs = folder / "specs"
    replicates = {"judge": len(judgings), **changes.pop("replicates", {})}
    # No two rows share their answers.
    parts = evaluation(specs, {"model": "judge"})
    parts["answer"]["decoding"] = {
        "temperature": changes.pop("temperature", 1.0), "seed": sum(name.encode())
    }  # fmt: skip
    fields = {"gen": None, "train": None, "eval": parts}
    spec = write_row(specs, name, **{**fields, "replicates": replicates, **changes})
    make(folder / "runs", spec, executor=Stages(judgings, text, simulated))
    return spec


def gen_and_train(folder: Path) -> dict[str, Any]:
    """The parts of a row that makes a data set and trains on it."""
    spec = yaml.safe_load(write_row(folder / "scratch", "unused").read_text())
    (folder / "specs").mkdir(parents=True, exist_ok=True)
    for name in ("seeds.jsonl", "tasks.txt", "prompt.txt"):
        (folder / "specs" / name).write_text((folder / "scratch" / name).read_text())
    spec["gen"]["teacher"] = {"model": "teacher"}
    return {"gen": spec["gen"], "train": spec["train"]}


def several_rows(folder: Path) -> list[Path]:
    """One row for most verdicts, one hostile, one that did not run."""
    source = {"document": "a paper", "table": "Table 1", "line": 3, "url": "https://example.org/p"}
    return [
        report_row(folder, "held", [grades(400, 120)], reported={"win_rate": {"value": 30.4}},
                   margins={"win_rate": 12}, table="study", source=source, title="A row that holds",
                   varied={"training": "none"}, deviations=["the published judge is retired"],
                   assumptions=["temperature 0", "the upstream's template"]),
        report_row(folder, "fell", [grades(400, 60)], reported={"win_rate": {"value": 44}},
                   table="study", source=source, temperature=0.7,
                   title="A row that does not hold"),
        report_row(folder, "open", [grades(60, 20, 6), grades(60, 25, 4, 3)],
                   reported={"win_rate": {"value": 35, "standard_error": 4, "judged": 58,
                                          "expected": 60}},
                   table="study", title="A row that stays open"),
        report_row(folder, "trained", [grades(200, 70)], table="trained", simulated=True,
                   title="A trained row", replicates={"train_seeds": [1, 2]},
                   **gen_and_train(folder)),
        report_row(folder, "hostile", [grades(12, 4)], title=HOSTILE.replace("\ud83d", ""),
                   text=HOSTILE, varied={"who": "<img src=x onerror='window.ran=1'>"}, table="trained",
                   deviations=["</script><script>window.ran=1</script>"],
                   assumptions=["\u202e<b>bold</b>"], source={"document": "<i>", "url": "javascript:1"},
                   **gen_and_train(folder)),
        write_row(folder / "specs", "waiting", reported={"win_rate": {"value": 12.5}}, table="study",
                  eval=evaluation(folder / "specs", {"model": "judge"}), title="A row that waits"),
    ]  # fmt: skip
