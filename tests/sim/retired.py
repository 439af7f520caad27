"""What the older version of the simulated judge (harness.sim.retired) left: its verdicts.

The old version is the present one but for a known shift: it finds each answer better, beside the
baseline's, by SHIFT log-odds. `python -m tests.sim.retired --write FOLDER` writes what twins are told
that a study published: the answers of its own model, those of bridging models, and the old version's
verdicts on the latter; and prompt sets that are large enough for a bridge.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.sim.grammar import draw, find, fraction
from harness.sim.replies.judge import compare
from harness.sim.retired import ANSWERS, BASELINE, BRIDGING, NAME, OWN, PROMPT_SETS, VERDICTS
from tests.sim.smoke import NO_ANSWER, PROMPTS, evaluation_prompts

SHIFT = 0.8
"""Log-odds of winning that the old version gives every answer more than the present one."""
ERROR_RATE = 0.2
"""Share of the present version's verdicts that a twin has turned round."""
RIGHT = dict(zip((OWN, *BRIDGING), (0.5, 0.25, 0.5, 0.75), strict=True))
"""Model -> share of its answers that are right."""


def answers(model: str) -> list[dict[str, str]]:
    """A model's answers to the prompts of specs/smoke, in alpaca_eval's format."""
    rows = []
    for row in evaluation_prompts(PROMPTS):
        task = find(row["instruction"])
        assert task is not None
        is_right = fraction("right", model, task.text) < RIGHT[model]
        excuse = draw(NO_ANSWER, 1, "excuse", model, task.text)[0]
        output = task.output if is_right else excuse
        rows.append(
            {"instruction": row["instruction"], "output": output, "generator": f"simulated-{model}"}
        )
    return rows


def chances(outputs: Sequence[str], shift: float = 0.0) -> list[float]:
    """That each output, one a prompt in the set's order, wins: by the present version, or by one that
    finds it better by `shift` log-odds."""
    found = []
    for row, output in zip(evaluation_prompts(PROMPTS), outputs, strict=True):
        verdict = compare(row["instruction"], row["output"], output, ties=False)
        chance = 1 - ERROR_RATE if verdict == "b" else ERROR_RATE
        found.append(1 / (1 + math.exp(-math.log(chance / (1 - chance)) - shift)))
    return found


def annotations(model: str) -> list[dict[str, Any]]:
    """The old version's verdicts on a model's answers, in alpaca_eval's format."""
    given = answers(model)
    rows = []
    for row, baseline, chance in zip(
        given,
        evaluation_prompts(PROMPTS),
        chances([row["output"] for row in given], SHIFT),
        strict=True,
    ):
        is_won = fraction("retired", model, row["instruction"]) < chance
        rows.append(
            {
                "instruction": row["instruction"],
                "output_1": baseline["output"],
                "generator_1": BASELINE,
                "output_2": row["output"],
                "generator_2": row["generator"],
                "annotator": NAME,
                "preference": 2.0 if is_won else 1.0,
            }
        )
    return rows


def files() -> dict[str, str]:
    """File name -> text."""
    prompts, share = evaluation_prompts(PROMPTS), PROMPTS // len(PROMPT_SETS)
    written = {
        **{ANSWERS.format(model): answers(model) for model in RIGHT},
        **{VERDICTS.format(model): annotations(model) for model in BRIDGING},
        **{name: prompts[n * share :][:share] for n, name in enumerate(PROMPT_SETS)},
    }
    return {name: _json(rows) for name, rows in written.items()}


def _json(rows: Sequence[object]) -> str:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write what the old version of the judge left.")
    parser.add_argument("--write", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args().write
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
