"""The seed tasks and evaluation prompts of specs/smoke, from the grammar of the simulated teacher.

`python -m tests.sim.smoke --write FOLDER` writes them there.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from harness.sim.facts import RELATIONS
from harness.sim.grammar import GrammarTask, draw, fraction, held_out_tasks, teachable_tasks

RIGHT_BASELINE_SHARE = 0.1
NO_ANSWER = ("I do not know.", "I am not sure about that.", "That is hard to say.")

SEEDS_FILE, SEEDS = "seeds.jsonl", 20
PROMPTS_FILE, PROMPTS = "prompts.jsonl", 100


def _wrong_answer(task: GrammarTask, seed: int) -> str:
    if fraction("no answer", seed, task.text) < 0.5:
        return draw(NO_ANSWER, 1, "excuse", seed, task.text)[0]
    facts = next(r.facts for r in RELATIONS if r.name == task.relation)
    wrong_answers = [a[0] for a in facts.values() if a[0] not in task.accepted]
    return draw(wrong_answers, 1, "wrong", seed, task.text)[0]


def evaluation_prompts(n: int, seed: int = 0) -> list[dict[str, str]]:
    """`n` held-out tasks, in alpaca_eval's format, with the outputs of a weak baseline.

    A tenth of the outputs, rounded, are right; the others read well and are wrong. Raises
    ValueError for an `n` larger than the number of held-out tasks.
    """
    if n > len(held_out_tasks()):
        raise ValueError(f"{n} prompts are wanted; the grammar holds out {len(held_out_tasks())}")
    tasks = draw(held_out_tasks(), n, "evaluation", seed)
    right = set(draw(range(n), round(n * RIGHT_BASELINE_SHARE), "right baseline", seed))
    return [
        {
            "instruction": task.text,
            "output": task.output if i in right else _wrong_answer(task, seed),
            "generator": "simulated-baseline",
            "dataset": "smoke",
        }
        for i, task in enumerate(tasks)
    ]


def seed_tasks(n: int, seed: int = 0) -> list[dict[str, object]]:
    """`n` teachable tasks in Self-Instruct's format for seed tasks."""
    return [
        {
            "id": f"seed_task_{i}",
            "name": f"{task.relation}_{task.key}".replace(" ", "_").lower(),
            "instruction": task.instruction,
            "instances": [{"input": task.input, "output": task.output}],
            "is_classification": False,
        }
        for i, task in enumerate(draw(teachable_tasks(), n, "seed tasks", seed))
    ]


def files() -> dict[str, str]:
    """File name -> text of the seed tasks and evaluation prompts of `specs/smoke`."""
    return {
        SEEDS_FILE: _json_lines(seed_tasks(SEEDS)),
        PROMPTS_FILE: _json_lines(evaluation_prompts(PROMPTS)),
    }


def _json_lines(rows: Sequence[object]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the smoke rows' seed tasks and prompts.")
    parser.add_argument("--write", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args().write
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
