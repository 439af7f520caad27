"""How many examples a training's epoch had, by its log and the settings in files beside it."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.artefact.call import MANIFEST
from harness.artefact.store import SHORT
from harness.audit.model import short
from harness.audit.parse.epoch_arithmetic import (
    ACCUMULATIONS,
    BATCHES,
    CENT,
    DEVICES,
    Ranges,
    batches_of_epoch,
    batches_of_plan,
    examples_of,
    examples_of_speed,
    meet,
    merged,
    points,
    ranges_text,
)
from harness.audit.parse.files import Unreadable, files_in, number, read_json
from harness.audit.parse.settings import OF_TRAINING, ConfigSettings, settings_in, truth
from harness.audit.parse.training_data import TrainingData, read_training_data
from harness.audit.parse.training_log import LINES, STATE, SUMMARIES, Log

CONFIGS = (".yaml", ".yml", ".json", ".sh", ".md")
ABOVE = 2
"""Folders above a log in which its settings are looked for."""
ARGUMENTS = frozenset({"per_device_train_batch_size", "micro_batch_size"})
"""A file with one of these holds a training's arguments: what it leaves out has its default."""
MOST_TOTALS = 100
"""A speed that leaves more batches possible than this says nothing of them."""
_KEY = re.compile(r"^[0-9a-f]{64}$")


def settings_near(log: Log, root: Path) -> tuple[list[ConfigSettings], list[str]]:
    """The settings of the nearest folder, from the log's own upwards but not beyond `root`, that has
    files which name a batch size, accumulation or a number of epochs; and, in words, which files were
    passed by since they are another training's."""
    top = root if root.is_dir() else root.parent
    place = log.folder
    names = {place.name, place.parent.name} if log.snapshot else {place.name}
    rejected: list[str] = []
    for _ in range(ABOVE + 1):
        matching = []
        for settings in (s for s in _settings_in(place) if s.values.keys() & OF_TRAINING):
            fault = _contradiction(log, settings)
            if fault:
                rejected.append(_not_of_this(settings, f"it says {fault}"))
            else:
                matching.append(settings)
        if matching:
            # A file that names this very folder as its output is the one that made it.
            own_settings = [s for s in matching if any(
                Path(str(o)).name in names for o in s.values.get("output", ()))]  # fmt: skip
            return own_settings or matching, rejected
        if place == top or top not in place.parents:
            break
        place = place.parent
    return [], rejected


def _not_of_this(settings: ConfigSettings, why: str) -> str:
    return f"{settings.path.name} is not this training's: {why}"


def _contradiction(log: Log, settings: ConfigSettings) -> str:
    """What a file says that the log's own values exclude, in words; "": nothing."""
    batches, epochs = settings.numbers("batch"), settings.numbers("epochs")
    steps = [v for v in settings.numbers("max_steps") if v > 0]
    outputs = [Path(str(o)) for o in settings.values.get("output", ())]
    folders = [settings.path.parent / o for o in outputs if not o.is_absolute()]
    inside = [f for f in folders if f == log.folder or f in log.folder.parents]
    if not inside and any(_has_log(folder) for folder in folders):
        return f"{folders[0].name} is its output"
    # The log's batch is of all devices of one process.
    batch = 0 if settings.values.get("batch_is_tried") else log.batch
    if batch and batches and not any(v >= 1 and batch % v == 0 for v in batches):
        return f"batch {_listed(batches)}, the log {batch:g}"
    accumulations = settings.numbers("accumulation")
    if log.accumulation and accumulations and log.accumulation not in accumulations:
        return f"accumulation {_listed(accumulations)}, {log.counted_by} {log.accumulation}"
    if steps:
        if log.planned and log.planned not in steps:
            return f"{_listed(steps)} steps, the log {log.planned:,}"
    elif epochs and log.epochs:
        if not any(math.ceil(v) == log.epochs for v in epochs):
            return f"{_listed(epochs)} epochs, the log {log.epochs:g}"
    elif epochs and log.progress and log.step == log.planned:
        # Of a few large steps an epoch, not all micro-batches fill one.
        end = max(epoch for _, epoch in log.progress)
        if not any(v / 2 <= end + CENT and end <= v + 1 for v in epochs):
            return f"{_listed(epochs)} epochs, the log ends after {end:g}"
    return ""


def _has_log(folder: Path) -> bool:
    try:
        return any((folder / name).is_file() for name in (STATE, LINES))
    except (OSError, ValueError):
        # No name that a folder can have.
        return False


def _listed(values: Sequence[float]) -> str:
    return " or ".join(f"{v:g}" for v in values)


def _settings_in(folder: Path) -> Iterator[ConfigSettings]:
    logs = (STATE, LINES, *SUMMARIES)
    return settings_in(p for p in files_in(folder, CONFIGS) if p.name not in logs)


@dataclass(frozen=True)
class TrainingFacts:
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
    data_from: str = ""
    """The file that names the data sets."""
    elsewhere: str = ""
    """That the settings' output is another folder than the log's, in words; "": it is not."""


def training_facts(log: Log, settings: Sequence[ConfigSettings]) -> TrainingFacts:
    """Put together what the log and the files say; several different values are all possible.

    Where a file says the batch size, what it leaves out has transformers' default.
    """

    def numbers(name: str) -> list[float]:
        return list(dict.fromkeys(v for s in settings for v in s.numbers(name)))

    def whole_numbers(name: str) -> tuple[int, ...]:
        return tuple(sorted({int(v) for v in numbers(name) if v >= 1 and v == int(v)}))

    batches, devices = whole_numbers("batch"), whole_numbers("devices")
    if log.batch:
        # Of several devices of one process it is the sum of their batches.
        times = {int(log.batch) // b for b in batches if log.batch % b == 0}
        devices = tuple(sorted({d // n for d in devices for n in times if d % n == 0})) or devices
        batches = (int(log.batch),)
    accumulations = (log.accumulation,) if log.accumulation else whole_numbers("accumulation")
    has_arguments = any(s.names & ARGUMENTS and s.numbers("batch") for s in settings)
    if not accumulations and has_arguments:
        accumulations = (1,)
    # A batch for all devices together, which model cards have, tells how many there were.
    totals = (log.total_batch,) if log.total_batch else whole_numbers("total_batch")
    if (log.total_batch or not devices) and len(totals) == len(batches) == len(accumulations) == 1:
        devices = (max(1, totals[0] // (batches[0] * accumulations[0])),)
    nodes = whole_numbers("nodes") or (1,)
    devices = tuple(sorted({d * n for d in devices for n in nodes}))
    flags = {
        name: {truth(v) for s in settings for v in s.values.get(name, ())} - {None}
        for name in ("drop_last", "packing", "streaming")
    }
    epochs, stepped = numbers("epochs"), [v for v in numbers("max_steps") if v > 0]
    held_out = [*numbers("held_out"), *(v / 100 for v in numbers("held_out_percent"))]
    names, data_from = _names_of_data(log, settings)
    return TrainingFacts(
        batches=batches or BATCHES,
        accumulations=accumulations or ACCUMULATIONS,
        devices=devices or DEVICES,
        epochs=epochs[0] if len(epochs) == 1 and epochs[0] > 0 else None,
        drop_last=flags["drop_last"].pop() if len(flags["drop_last"]) == 1 else
        (False if has_arguments and not flags["drop_last"] else None),
        # transformers' run_clm cuts its joined texts into blocks.
        packing=True if {True} & (flags["packing"] | flags["streaming"]) or numbers("block") else
        (False if has_arguments else None),
        is_stepped=True if stepped else (False if epochs else None),
        held_out=tuple(dict.fromkeys(v for v in held_out if v >= 0)) or (
            (0.0,) if has_arguments and not log.has_held_out else ()
        ),
        most=whole_numbers("max_examples"),
        data=names,
        data_from=data_from,
        elsewhere=_elsewhere(log, settings),
    )  # fmt: skip


def _elsewhere(log: Log, settings: Sequence[ConfigSettings]) -> str:
    names = {"", log.folder.name, *(p.name for p in log.folder.parents)}
    outputs = {str(o): s for s in settings for o in s.values.get("output", ())}
    if not outputs or any(Path(output).name in names for output in outputs):
        return ""
    output, settings_file = next(iter(outputs.items()))
    return f"{settings_file.path.name} writes into {short(output)}, and the log is in {log.folder.name}"


def _names_of_data(log: Log, settings: Sequence[ConfigSettings]) -> tuple[tuple[str, ...], str]:
    """Of its settings, or where these say nothing of the model card beside the log; and the file."""
    cards = [s for s in _settings_in(log.folder) if s.path.suffix.lower() == ".md"]
    scripts = [s for s in settings if s.path.suffix.lower() != ".md"]
    for files in (scripts, [*settings, *cards]):
        names = {str(v): s.path.name for s in reversed(files) for v in s.values.get("data", ())}
        if names:
            return tuple(reversed(names)), list(names.values())[-1]
    return (), ""


def own_training(log: Log) -> tuple[TrainingFacts, list[TrainingData], dict[str, int]] | None:
    """Of an artefact of this harness: what its manifest says, its data set where it is beside it on
    the volume, and the manifest's counts.

    Its epochs count examples, and a step's batch is the same on any number of devices.
    """
    path = log.folder / MANIFEST
    try:
        manifest = read_json(path)
        train, counts = manifest["document"]["params"]["train"], manifest["counts"]
        per_step = int(train["batch_size"]) * int(train["accumulation"])
        examples = int(counts["examples"])
        left_out = int(counts["records"]) - examples
        log.planned = int(counts["steps"])
        data = manifest["inputs"].get("data")
    except (Unreadable, KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
        return None
    data_sets = []
    if isinstance(data, dict):
        data = data.get("key")
    if isinstance(data, str) and _KEY.match(data):
        with suppress(Unreadable):
            file = log.folder.parent.parent / "gen" / data[:SHORT] / "data.jsonl"
            data_sets = [read_training_data(file)]
    per_step = max(per_step, 1)
    # Of examples; early versions' logs had them of steps.
    by_step = meet(
        examples_of(batches_of_epoch(points(log.progress), 1), per_step, False), examples, examples
    )
    by_example = meet(batches_of_epoch(points(log.progress), per_step), examples, examples)
    is_of_steps = by_step and not by_example
    return (
        TrainingFacts(
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
        data_sets,
        {"steps": int(counts["steps"]), "examples": examples},
    )


def examples_of_log(log: Log, facts: TrainingFacts) -> Ranges:
    """Numbers of examples of an epoch that the log allows, by whatever in it says most: the trainer's
    own count, its speed, its steps and epochs. Empty: nothing follows, or nothing fits."""
    if log.examples is not None:
        return [(log.examples, log.examples)]
    from_steps = _from_steps(log, facts)
    if not _has_speed(log):
        return from_steps
    return merged([*_by_epochs(log, facts, from_steps), *_by_batches(log, facts)])


def trained_on(
    log: Log, root: Path
) -> tuple[TrainingFacts, list[ConfigSettings], list[str], Ranges]:
    """What is known of a training, the files that say it, those passed by, and the numbers of examples
    that an epoch may have had. Files that the log's own speed excludes are another training's."""
    settings, rejected = settings_near(log, root)
    facts = training_facts(log, settings)
    ranges = examples_of_log(log, facts)
    bare = training_facts(log, [])
    fits = ranges and (log.examples is not None or _from_steps(log, facts))
    if settings and not fits and log.progress and _from_steps(log, bare):
        fault = "its batches and accumulation do not make the log's epochs and speed"
        rejected += [_not_of_this(s, fault) for s in settings]
        settings, facts, ranges = [], bare, examples_of_log(log, bare)
    most = max(facts.most, default=0) * max(len(",".join(facts.data).split(",")), 1)
    if most and ranges and ranges[0][0] > most and not facts.packing:
        for cut in [s for s in settings if s.values.get("max_examples")]:
            counts = _listed(cut.numbers("max_examples"))
            fault = (
                f"it says max_samples {counts}, and the log makes {ranges_text(ranges)} examples"
            )
            rejected.append(_not_of_this(cut, f"{fault} an epoch"))
            settings.remove(cut)
        facts = training_facts(log, settings)
        ranges = examples_of_log(log, facts)
    # What nothing explains is left to its steps.
    return facts, settings, rejected, ranges or _from_steps(log, facts)


def _from_steps(log: Log, facts: TrainingFacts, total: int | None = None) -> Ranges:
    """By steps and epochs. total: only of batches that make so many examples a step."""
    log_points = points(log.progress)
    ranges: Ranges = []
    per_batch = sorted({b * d for b in facts.batches for d in facts.devices})
    for accumulation in facts.accumulations:
        sizes = [n for n in per_batch if total is None or n * accumulation == total]
        if not sizes:
            continue
        batches = batches_of_epoch(log_points, accumulation)
        if not batches and not log_points:
            batches = _planned(log, facts, accumulation)
        for size in sizes:
            ranges += examples_of(batches, size, facts.drop_last)
    return merged(ranges)


def _planned(log: Log, facts: TrainingFacts, accumulation: int) -> Ranges:
    epochs = facts.epochs if facts.epochs is not None else log.epochs
    if not epochs or not log.planned or facts.is_stepped:
        return []
    return batches_of_plan(log.planned, epochs, accumulation)


def _has_speed(log: Log) -> bool:
    """Only of a training that was neither cut short nor gone on with: the summary counts all steps,
    or those of the last part, by the trainer's version."""
    rate, planned = log.steps_per_second, log.planned
    if log.runtime is None or log.per_second is None or rate is None or not planned:
        return False
    is_complete = log.step == planned and not log.snapshot
    return is_complete and abs(rate - planned / log.runtime) <= 0.0006 + 1e-3 * rate


def _by_epochs(log: Log, facts: TrainingFacts, from_steps: Ranges) -> Ranges:
    """Where epochs set a training's end, its speed counts the examples times the epochs."""
    if facts.is_stepped or log.runtime is None or log.per_second is None or not log.planned:
        return []
    end = max((epoch for _, epoch in log.progress), default=0.0)
    # Micro-batches that fill no step may be missing from every epoch, but no step's worth of them.
    missed = 1 - end / log.planned
    most = facts.epochs or log.epochs or (end + CENT) / max(missed, CENT)
    if not CENT < end <= log.planned:
        return []
    fewest = min((end - CENT) * (1 - 1 / log.planned), most)
    if facts.epochs or (abs(end - round(end)) < CENT and most < round(end) + 1):
        most = fewest = facts.epochs or round(end)
    span = examples_of_speed(log.runtime, log.per_second, most, fewest)
    if span is None or not from_steps:
        return [span] if span else []
    low, high = span
    return [(max(a, low), min(b, high)) for a, b in from_steps if a <= high and low <= b]


def _by_batches(log: Log, facts: TrainingFacts) -> Ranges:
    """Where a number of steps set the end, it counts the steps times the examples of each."""
    if (
        facts.is_stepped is False
        or log.runtime is None
        or log.per_second is None
        or not log.planned
    ):
        return []
    totals = examples_of_speed(log.runtime, log.per_second, log.planned)
    if totals is None or totals[1] > totals[0] + MOST_TOTALS:
        return []
    return [r for n in range(totals[0], totals[1] + 1) for r in _from_steps(log, facts, n)]
