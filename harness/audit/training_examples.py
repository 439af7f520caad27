"""How many examples a training's epoch had, by its log and the settings in files beside it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.audit.files import Unreadable, read_json
from harness.audit.settings import Settings, number, read_settings, truth
from harness.audit.steps import (
    ACCUMULATIONS,
    BATCHES,
    DEVICES,
    Ranges,
    batches_of_epoch,
    batches_of_plan,
    examples_of,
    examples_of_speed,
    meet,
    merged,
    points,
)
from harness.audit.training_data import TrainingData, read_training_data
from harness.audit.training_log import LINES, STATE, SUMMARIES, Log
from harness.call import MANIFEST
from harness.store import SHORT

CONFIGS = (".yaml", ".yml", ".json", ".sh", ".md")
LARGEST_CONFIG = 2**20
"""Bytes; a larger file is data."""
ABOVE = 2
"""Folders above a log in which its settings are looked for."""
ARGUMENTS = frozenset({"per_device_train_batch_size", "micro_batch_size"})
"""A file with one of these holds a training's arguments: what it leaves out has its default."""
_KEY = re.compile(r"^[0-9a-f]{64}$")


def settings_near(folder: Path, root: Path) -> list[Settings]:
    """The settings of the nearest folder, from the log's own upwards but not beyond `root`, that has
    files which name a batch size, accumulation or a number of epochs."""
    top = root if root.is_dir() else root.parent
    place = folder
    for _ in range(ABOVE + 1):
        found = [s for s in _settings_in(place) if _is_training(s)]
        if found:
            # A file that names this very folder as its output is the one that made it.
            own = [s for s in found if any(
                Path(str(o)).name == folder.name for o in s.values.get("output", ()))]  # fmt: skip
            return own or found
        if place == top or top not in place.parents:
            break
        place = place.parent
    return []


def _settings_in(folder: Path) -> Iterator[Settings]:
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in CONFIGS and p.is_file())
    except OSError:
        return
    for path in paths:
        if path.name in (STATE, LINES, *SUMMARIES):
            continue
        try:
            if path.stat().st_size <= LARGEST_CONFIG:
                yield read_settings(path)
        except (Unreadable, OSError):
            continue


def _is_training(settings: Settings) -> bool:
    return bool(settings.values.keys() & {"batch", "accumulation", "epochs", "total_batch"})


@dataclass(frozen=True)
class Known:
    """What the settings leave possible; one value: it is known."""

    batches: tuple[int, ...]
    accumulations: tuple[int, ...]
    devices: tuple[int, ...]
    epochs: float | None
    drop_last: bool | None
    packing: bool | None
    is_stepped: bool | None
    """Whether max_steps, not epochs, set the end."""
    held_out: tuple[float, ...]
    """A share below 1, or a number of examples; (): nothing says it."""
    most: tuple[int, ...]
    data: tuple[str, ...]


def known(log: Log, settings: Sequence[Settings]) -> Known:
    """Put together what the log and the files say; several different values are all possible.

    Where a file says the batch size, what it leaves out has transformers' default.
    """

    def numbers(name: str) -> list[float]:
        return list(dict.fromkeys(v for s in settings for v in s.numbers(name)))

    def whole(name: str) -> tuple[int, ...]:
        return tuple(sorted({int(v) for v in numbers(name) if v >= 1 and v == int(v)}))

    batches = whole("batch")
    if log.batch and (not batches or log.batch in batches):
        batches = (int(log.batch),)
    accumulations, devices = whole("accumulation"), whole("devices")
    told = any(s.names & ARGUMENTS and s.numbers("batch") for s in settings)
    if not accumulations and told:
        accumulations = (1,)
    # A batch for all devices together, which model cards have, tells how many there were.
    totals = whole("total_batch")
    if not devices and len(totals) == len(batches) == len(accumulations) == 1:
        devices = (max(1, totals[0] // (batches[0] * accumulations[0])),)
    nodes = whole("nodes") or (1,)
    devices = tuple(sorted({d * n for d in devices for n in nodes}))
    flags = {
        name: {truth(v) for s in settings for v in s.values.get(name, ())} - {None}
        for name in ("drop_last", "packing", "streaming")
    }
    epochs, stepped = numbers("epochs"), [v for v in numbers("max_steps") if v > 0]
    held_out = [*numbers("held_out"), *(v / 100 for v in numbers("held_out_percent"))]
    names = tuple(dict.fromkeys(str(v) for s in settings for v in s.values.get("data", ())))
    return Known(
        batches=batches or BATCHES,
        accumulations=accumulations or ACCUMULATIONS,
        devices=devices or DEVICES,
        epochs=epochs[0] if len(epochs) == 1 and epochs[0] > 0 else None,
        drop_last=flags["drop_last"].pop() if len(flags["drop_last"]) == 1 else
        (False if told and not flags["drop_last"] else None),
        packing=True if True in flags["packing"] or True in flags["streaming"] else
        (False if told else None),
        is_stepped=True if stepped else (False if epochs else None),
        held_out=tuple(dict.fromkeys(v for v in held_out if v >= 0)) or (
            (0.0,) if told and not log.has_held_out else ()
        ),
        most=whole("max_examples"),
        data=names,
    )  # fmt: skip


def own_training(log: Log) -> tuple[Known, list[TrainingData], dict[str, int]] | None:
    """Of an artefact of this harness: what its manifest says, its data set where it is beside it on
    the volume, and the manifest's counts.

    Its epochs count examples, and a step's batch is the same on any number of devices.
    """
    path = log.folder / MANIFEST
    try:
        manifest = read_json(path)
        train, counts = manifest["document"]["params"]["train"], manifest["counts"]
        per_step = int(train["batch_size"]) * int(train["accumulation"])
        said = int(counts["examples"])
        left_out = int(counts["records"]) - said
        log.planned = int(counts["steps"])
        data = manifest["inputs"].get("data")
    except (Unreadable, KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
        return None
    found = []
    if isinstance(data, dict):
        data = data.get("key")
    if isinstance(data, str) and _KEY.match(data):
        file = log.folder.parent.parent / "gen" / data[:SHORT] / "data.jsonl"
        try:
            found = [read_training_data(file)]
        except Unreadable:
            found = []
    per_step = max(per_step, 1)
    # Of examples; early versions' logs had them of steps.
    by_step = meet(examples_of(batches_of_epoch(points(log.seen), 1), per_step, False), said, said)
    by_example = meet(batches_of_epoch(points(log.seen), per_step), said, said)
    is_of_steps = by_step and not by_example
    return (
        Known(
            batches=(per_step if is_of_steps else 1,),
            accumulations=(1 if is_of_steps else per_step,),
            devices=(1,),
            epochs=number(train.get("epochs")),
            drop_last=False,
            packing=False,
            is_stepped=train.get("steps") is not None,
            held_out=(float(max(left_out, 0)),),
            most=(),
            data=(),
        ),
        found,
        {"steps": int(counts["steps"]), "examples": said},
    )


def examples_of_log(log: Log, facts: Known) -> Ranges:
    """Numbers of examples of an epoch that the log allows, by whatever in it says most: the trainer's
    own count, its speed, its steps and epochs. Empty: nothing follows, or nothing fits."""
    if log.examples is not None:
        return [(log.examples, log.examples)]
    from_steps = _from_steps(log, facts)
    from_speed = _from_speed(log, facts)
    if from_speed is None:
        return from_steps
    both = [
        (max(low, from_speed[0]), min(high, from_speed[1]))
        for low, high in from_steps
        if low <= from_speed[1] and from_speed[0] <= high
    ]
    # Where the two disagree, the settings are another training's.
    return both or [from_speed]


def _from_steps(log: Log, facts: Known) -> Ranges:
    seen = points(log.seen)
    found: Ranges = []
    per_batch = sorted({b * d for b in facts.batches for d in facts.devices})
    for accumulation in facts.accumulations:
        batches = batches_of_epoch(seen, accumulation)
        if not batches and not seen:
            batches = _planned(log, facts, accumulation)
        for size in per_batch:
            found += examples_of(batches, size, facts.drop_last)
    return merged(found)


def _planned(log: Log, facts: Known, accumulation: int) -> Ranges:
    epochs = facts.epochs if facts.epochs is not None else log.epochs
    if not epochs or not log.planned or facts.is_stepped:
        return []
    return batches_of_plan(log.planned, epochs, accumulation)


def _from_speed(log: Log, facts: Known) -> tuple[int, int] | None:
    """Only of a training that was neither cut short nor gone on with: the summary counts all steps,
    or those of the last part, by the trainer's version."""
    if (
        log.runtime is None
        or log.per_second is None
        or log.snapshot
        or facts.is_stepped is not False
    ):
        return None
    epochs = facts.epochs
    if epochs is None or log.planned is None or log.step != log.planned:
        return None
    rate = log.steps_per_second
    if rate is None or abs(rate - log.planned / log.runtime) > 0.0006 + 1e-3 * rate:
        return None
    return examples_of_speed(log.runtime, log.per_second, epochs)
