"""Self-Instruct's fourth step: instances sorted out, sampled and shuffled; prompt encodings drawn.

Facts from self-instruct 0b26ccaa.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

from harness.data.dataset import DatasetExample, Filter
from harness.gen.recipes.self_instruct import Encodings, Prepare
from harness.gen.recipes.self_instruct.steps import StepResult
from harness.llm.calls import fill

NAME = "prepare"
PROMPTS = "prompts.jsonl"

_FIELD = re.compile(r"(\w+):")


def prepare(
    tasks: Sequence[Sequence[DatasetExample]], settings: Prepare
) -> tuple[StepResult, list[DatasetExample]]:
    """The instances that stay, shuffled; `tasks` holds the good instances of each task."""
    rng = random.Random(settings.seed)
    step = StepResult(PROMPTS, Filter(NAME, "instances", proposed=sum(map(len, tasks))))
    examples: list[DatasetExample] = []
    for instances in tasks:
        examples += _choose(instances, settings.max_instances, rng, step)
    rng.shuffle(examples)
    step.filter.kept = len(examples)
    return step, examples


def _choose(
    instances: Sequence[DatasetExample], most: int, rng: random.Random, step: StepResult
) -> list[DatasetExample]:
    """At most so many instances of one task; none where two of them contradict each other."""
    contradict = _contradict(instances)
    pairs: set[tuple[str, str]] = set()
    good: list[DatasetExample] = []
    for example in instances:
        pair = (example.input, example.output)
        if contradict:
            _drop("contradictory", example, step)
        elif pair in pairs:
            _drop("repeated", example, step)
        else:
            pairs.add(pair)
            good.append(example)
    drawn = set(rng.sample(range(len(good)), min(most, len(good))))
    for index, example in enumerate(good):
        if index not in drawn:
            _drop("surplus", example, step)
    return [example for index, example in enumerate(good) if index in drawn]


def _drop(rule: str, example: DatasetExample, step: StepResult) -> None:
    row = example.row()
    content = {name: row[name] for name in ("id", "instruction", "input", "output")}
    step.drop(rule, example.lineage[-1].requests[0], **content)


def _contradict(instances: Sequence[DatasetExample]) -> bool:
    """Whether one input, not an empty one, has two different outputs."""
    outputs: dict[str, str] = {}
    return any(
        example.input and outputs.setdefault(example.input, example.output) != example.output
        for example in instances
    )


def encode(
    examples: Sequence[DatasetExample], encodings: Encodings, seed: int
) -> list[dict[str, Any]]:
    """Rows for prompts.jsonl: each example in one of the encodings, repeats removed.

    `encoding` says which list and which of it, from 0. As upstream, half the inputs lose the name
    of their only field (`Text: ...`) and their empty lines, and a completion begins with a space
    unless its prompt ends with white space.
    """
    # A draw of its own, so that encodings change nothing in data.jsonl.
    rng = random.Random(f"{seed}/encodings")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for example in examples:
        input_text = example.input.strip()
        if rng.random() < 0.5:
            input_text = _without_field(input_text).replace("\n\n", "\n")
        name = "with_input" if input_text else "without_input"
        forms = encodings.with_input if input_text else encodings.without_input
        index = rng.randrange(len(forms))
        parts = {"instruction": example.instruction.strip(), "input": input_text}
        prompt = fill(forms[index].text, parts)
        space = "" if prompt[-1:].isspace() else " "
        row = {"id": example.id, "prompt": prompt, "completion": space + example.output.strip()}
        row["encoding"] = f"{name}/{index}"
        rows.setdefault((row["prompt"], row["completion"]), row)
    return list(rows.values())


def _without_field(text: str) -> str:
    if len(set(_FIELD.findall(text))) != 1:
        return text
    return text.split(":", 1)[1].strip()
