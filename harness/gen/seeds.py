"""Seed tasks in Self-Instruct's JSONL format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.common.text_files import read_text
from harness.data.dataset import DatasetExample, Lineage
from harness.errors import InputError

FAULTS_SHOWN = 10


class AlpacaTask(NamedTuple):
    """One example of a data set; `input` is "" where the instruction says everything."""

    instruction: str
    input: str
    output: str


class SeedTask(NamedTuple):
    """A seed task. `instances`: its (input, output) pairs, at least one."""

    id: str
    name: str
    instruction: str
    instances: list[tuple[str, str]]
    is_classification: bool | None = None
    """None where the file does not say."""

    @property
    def task(self) -> AlpacaTask:
        """The task with the first of its instances."""
        return AlpacaTask(self.instruction, *self.instances[0])

    def example(self, recipe: str, instance: int = 0) -> DatasetExample:
        """One instance as a row of a data set; the first has the seed's own id."""
        input_text, output = self.instances[instance]
        return DatasetExample(
            id=self.id if instance == 0 else f"{self.id}_{instance}",
            name=self.name,
            instruction=self.instruction,
            input=input_text,
            output=output,
            is_classification=self.is_classification,
            origin="seed",
            lineage=(Lineage(recipe, "seeds", seeds=(self.id,)),),
        )

    def examples(self, recipe: str) -> list[DatasetExample]:
        """A row for each instance."""
        return [self.example(recipe, number) for number in range(len(self.instances))]


def read_seeds(path: Path) -> list[SeedTask]:
    """The seed tasks, in the file's order.

    Raises:
        InputError: the file cannot be read, holds no task, or has faulty lines; all of those are
            named with their line numbers.
    """
    try:
        lines = read_text(path).split("\n")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise InputError(
            f"the seed tasks {path} cannot be read: {reason}", hint="correct gen.seeds"
        ) from None
    seeds: dict[str, tuple[int, SeedTask]] = {}
    faults: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            seed = _parse(line)
        except ValueError as e:
            faults.append(f"{path}:{number}: {e}")
            continue
        if seed.id in seeds:
            faults.append(f"{path}:{number}: the id {seed.id!r} is line {seeds[seed.id][0]}'s too")
            continue
        seeds[seed.id] = (number, seed)
    if faults:
        more = [f"... and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        raise InputError(
            "\n".join(faults[:FAULTS_SHOWN] + more), hint="correct these lines of the seed tasks"
        )
    if not seeds:
        raise InputError(f"{path} holds no seed tasks", hint="correct gen.seeds")
    return [seed for _, seed in seeds.values()]


def check_count(
    setting: str, count: int, what: str, seeds: Sequence[SeedTask], which: str = "seeds"
) -> None:
    """Raises InputError for fewer seeds than a recipe's request shows."""
    if count > len(seeds):
        raise InputError(
            f"{setting} asks for {count} {what} a request, and there are {len(seeds)} {which}",
            hint=f"lower {setting} or give more seed tasks",
        )


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8: JSON can also hold half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _parse(line: str) -> SeedTask:
    try:
        row = json.loads(line)
    except ValueError as e:
        raise ValueError(f"not JSON: {e}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    instances = row.get("instances")
    if not isinstance(instances, list) or not instances:
        raise ValueError("`instances` must be a list with at least one object")
    if not all(isinstance(i, dict) for i in instances):
        raise ValueError("each of `instances` must be an object with input and output")
    kind = row.get("is_classification")
    if kind is not None and not isinstance(kind, bool):
        raise ValueError("`is_classification` must be true or false")
    return SeedTask(
        id=_text(row, "id"),
        name=_text(row, "name", may_be_empty=True) if row.get("name") is not None else "",
        instruction=_text(row, "instruction"),
        instances=[(_text(i, "input", may_be_empty=True), _text(i, "output")) for i in instances],
        is_classification=kind,
    )


def _text(row: dict[str, Any], name: str, may_be_empty: bool = False) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be a text, not {json.dumps(value)[:40]}")
    if not may_be_empty and not value.strip():
        raise ValueError(f"`{name}` is empty")
    if not is_unicode(value):
        raise ValueError(f"`{name}` holds half of a surrogate pair, which is no character")
    return value
