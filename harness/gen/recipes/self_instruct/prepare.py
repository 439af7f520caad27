"""Self-Instruct's fourth step: instances sorted out, sampled and shuffled; prompt encodings drawn.

Facts from self-instruct 0b26ccaa.
"""

import random
import re
from collections.abc import Mapping, Sequence

from harness.data.dataset import DatasetExample
from harness.data.dropped import Tally
from harness.gen.recipes.self_instruct import Encodings, Prepare
from harness.llm.calls import fill

PROMPTS = "prompts.jsonl"

_FIELD = re.compile(r"(\w+):")


def prepare(
    tasks: Sequence[Sequence[DatasetExample]], settings: Prepare, most: int | None = None
) -> tuple[Tally, list[DatasetExample]]:
    """The instances that stay, shuffled; `tasks` holds the good instances of each task. `most`: of
    these only so many, the first tasks' first."""
    rng = random.Random(settings.seed)
    tally = Tally("prepare", "instances")
    examples: list[DatasetExample] = []
    for instances in tasks:
        examples += _choose(instances, settings.max_instances, rng, tally)
    for example in examples[len(examples) if most is None else most :]:
        _drop("over_the_number", example, tally)
    del examples[len(examples) if most is None else most :]
    rng.shuffle(examples)
    tally.kept = len(examples)
    return tally, examples


def _choose(
    instances: Sequence[DatasetExample], most: int, rng: random.Random, tally: Tally
) -> list[DatasetExample]:
    """At most so many instances of one task; none where two of them contradict each other."""
    contradict = _contradict(instances)
    pairs: set[tuple[str, str]] = set()
    good: list[DatasetExample] = []
    for example in instances:
        pair = (example.input, example.output)
        if contradict:
            _drop("contradictory", example, tally)
        elif pair in pairs:
            _drop("repeated", example, tally)
        else:
            pairs.add(pair)
            good.append(example)
    drawn = set(rng.sample(range(len(good)), min(most, len(good))))
    for index, example in enumerate(good):
        if index not in drawn:
            _drop("surplus", example, tally)
    return [example for index, example in enumerate(good) if index in drawn]


def _drop(rule: str, example: DatasetExample, tally: Tally) -> None:
    content = {name: getattr(example, name) for name in ("id", "instruction", "input", "output")}
    tally.drop(rule, request=example.lineage[-1].requests[0], **content)


def _contradict(instances: Sequence[DatasetExample]) -> bool:
    """Whether one input, not an empty one, has two different outputs."""
    outputs: dict[str, str] = {}
    return any(
        example.input and outputs.setdefault(example.input, example.output) != example.output
        for example in instances
    )


def encode(
    examples: Sequence[DatasetExample], encodings: Encodings, seed: int
) -> list[Mapping[str, object]]:
    """Rows for prompts.jsonl: each example in one of the encodings, repeats removed.

    `encoding` says which list and which of it, from 0. As upstream, half the inputs lose the name
    of their only field (`Text: ...`) and their empty lines, and a completion begins with a space
    unless its prompt ends with white space.
    """
    # A draw of its own, so that encodings change nothing in data.jsonl.
    rng = random.Random(f"{seed}/encodings")
    rows: dict[tuple[str, str], Mapping[str, object]] = {}
    for example in examples:
        input_text = example.input.strip()
        if rng.random() < 0.5:
            input_text = _without_field(input_text).replace("\n\n", "\n")
        name = "with_input" if input_text else "without_input"
        forms = encodings.with_input if input_text else encodings.without_input
        index = rng.randrange(len(forms))
        parts = {"instruction": example.instruction.strip(), "input": input_text}
        prompt = fill(forms[index].text, parts)
        completion = ("" if prompt[-1:].isspace() else " ") + example.output.strip()
        row = {"id": example.id, "prompt": prompt, "completion": completion}
        rows.setdefault((prompt, completion), {**row, "encoding": f"{name}/{index}"})
    return list(rows.values())


def _without_field(text: str) -> str:
    if len(set(_FIELD.findall(text))) != 1:
        return text
    return text.split(":", 1)[1].strip()
