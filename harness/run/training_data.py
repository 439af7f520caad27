"""What the training data that a row gives holds, before anything runs: read as the stages read it."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.artefact import environment
from harness.artefact.keys import Files
from harness.data.records import without_collector
from harness.errors import InputError, blamed
from harness.gen.reading import Reading, cached_reading
from harness.gen.recipe import Recipe
from harness.modeling.template_pieces import pieces
from harness.row.row import Row
from harness.spec.template import Template
from harness.train.examples import Examples, file_of, read_examples


def read(stage: str, params: Mapping[str, Any], files: Files) -> Sequence[Reading]:
    """What is known of the files that a gen or train stage reads as examples; of others nothing.

    Raises:
        InputError: the stage would refuse one, or drop all of it. With file and line.
        DataAbsent: one is not there.
    """
    if stage == "gen":
        step: Recipe = params["gen"]
        return step.readings(files)
    if stage != "train":
        return []
    train, template = params["train"], params["template"]
    held_out = train.validation.file if train.validation else None
    pairs = train.objective == "orpo"
    readings = []
    for data, path in ((params.get("data"), ["data"]), (held_out, ["train", "validation", "file"])):
        if data is not None:
            with blamed(*path):
                reading = cached_reading(
                    files,
                    data,
                    [train.objective, template],
                    environment.CODE_VERSIONS["train"],
                    functools.partial(_read_data, file_of(files.locate(data)), pairs, template),
                )
            readings.append(reading)
    return readings


def of_row(row: Row, files: Files) -> Iterator[Reading]:
    """Of every file that a row reads as examples. Raises as `read`."""
    for number, step in enumerate(row.gen or []):
        with blamed("gen", number):
            readings = read("gen", {"gen": step}, files)
        yield from readings
    if row.train is not None:
        yield from read(
            "train", {"train": row.train, "template": row.template, "data": row.data}, files
        )


@without_collector()
def _read_data(path: Path, pairs: bool, template: Template) -> Reading:
    examples = read_examples(path, pairs)
    _check_template(examples, template)
    names = ("instruction", "input", "chosen", "rejected", "output", "system", "history")
    layout = ", ".join(name for name in names if name in examples.columns)
    held = sum(
        any(special in answer for special in template.special for answer in task.answers)
        for task in examples.tasks
    )
    notes = (f"{held:,} have one of the template's tokens in the text of an answer",) * bool(held)
    return Reading(
        path.name,
        examples.tally.proposed,
        layout,
        len(examples.tasks),
        examples.tally.dropped.total(),
        examples.tally.in_words() if examples.tally.dropped else "",
        notes,
    )


def _check_template(examples: Examples, template: Template) -> None:
    """Raises InputError for a record that the template has no place for, as far as it is known before
    the tokenizer is there."""
    if template.from_tokenizer:
        return
    for task in examples.tasks:
        if task.system or task.history:
            try:
                pieces(template, "", "", "", task.system, task.history)
            except InputError as e:
                raise InputError(f"{task.where}: {e.message}", e.hint) from None
