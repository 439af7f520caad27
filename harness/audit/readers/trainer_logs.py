"""Trainings' logs: whether steps, batch and epochs fit the data set and the counts that are claimed,
and whether the training came to its end with a loss that is a number.

Nothing is claimed where packing is on. Where nothing beside the log says how large its batches were,
all that is sure is the least that its steps make: more examples than there are rows cannot be.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from harness.artefact.call import MANIFEST
from harness.artefact.manifest import Severity
from harness.audit.model import Reader, Result, compare, guarded_result
from harness.audit.parse import contents
from harness.audit.parse.console_logs import read_console
from harness.audit.parse.contents import begins_with
from harness.audit.parse.epoch_arithmetic import ANY, ranges_text
from harness.audit.parse.files import AuditSource, Unreadable
from harness.audit.parse.readme import Count, count_in, count_in_name, read_claims
from harness.audit.parse.training_counts import (
    AuditedTraining,
    check_claims,
    check_data,
    check_repeats,
    claim_finding,
    may_be_true,
)
from harness.audit.parse.training_data import (
    NOT_DATA,
    SUFFIXES,
    TrainingData,
    data_beside,
    data_of_option,
    read_training_data,
)
from harness.audit.parse.training_examples import (
    TrainingFacts,
    examples_of_log,
    own_training,
    trained_on,
)
from harness.audit.parse.training_log import LINES, STATE, SUMMARIES, Log, read_logs

WIDEST = 100
"""Of a range of examples: with a highest number so many times its lowest, only that one is told."""
MOST_NAMES = 5
WRITERS = {2: ("two", "twice"), 3: ("three", "three times"), 4: ("four", "four times")}
"""In words, and how often a step then stands in the log."""
KIND, DATA_KIND = "training", "data_set"


def find(source: AuditSource) -> list[Result]:
    """A result for each training below the path; without one, for the data set that was given."""
    results = []
    read_paths: list[Path] = []
    data = None if source.training_data is None else data_of_option(source.training_data)
    for path, log in list(read_logs(source.files, _other_names(source))):
        if isinstance(log, str):
            source.skip(path, log)
            continue
        make = partial(audit_training, log, source, data)
        results.append(guarded_result(log.files[0], KIND, make))
        read_paths += [*log.files, *(path.parent / name for name in SUMMARIES)]
    source.claim(*read_paths)
    if data is not None and not results:
        results.append(_audit_data(data, name_count=_only_name(source)))
    results += _linked_data(source, {r.material.data for r in results})
    if not results and len(source.files) == len(source.all_files):
        # Nothing else was found: how many rows the training data have, how many of them differ.
        results = [_audit_data(data_set) for data_set in _data_in(source.files)]
    return results


def _other_names(source: AuditSource) -> dict[Path, str]:
    """Logs that are known by their content alone."""
    usual = (STATE, LINES, *SUMMARIES)
    states = dict.fromkeys(contents.of_kind(source, contents.STATE, *usual), STATE)
    logs = contents.of_kind(source, contents.LOG, *usual)
    # Trainer's history by itself is a list, and LLaMA-Factory's log one object a line.
    roles = states | {p: STATE if begins_with(p, b"[") else LINES for p in logs}
    # What this harness keeps beside its own log repeats it.
    return {path: role for path, role in roles.items() if not (path.parent / MANIFEST).is_file()}


def audit_training(log: Log, source: AuditSource, data: TrainingData | None) -> Result:
    """The checks of one training. `data`: what the user says it was trained on."""
    result = Result(str(log.files[0]), KIND)
    artefact = own_training(log)
    settings_files: list[str] = []
    if artefact:
        training = AuditedTraining(log, artefact[0], examples_of_log(log, artefact[0]), artefact[1])
    else:
        read_console(log, source.root)
        facts, settings, rejected, ranges = trained_on(log, source.root)
        settings_files = [s.path.name for s in settings]
        result.notes += rejected
        beside = [] if data else data_beside(log.folder, facts.data, source.files)
        training = AuditedTraining(log, facts, ranges, beside)
    facts = training.facts
    if data:
        training.sets = [data]
    several = [name for names in facts.data for name in names.split(",") if name.strip()]
    if len(several) > 1:
        # Of several, one does not say how many there were.
        if data:
            result.notes.append(
                f"{data.path.name} was not held against the log, which was trained on several data "
                f"sets: {', '.join(several[:MOST_NAMES])}"
            )
        training.sets = []
    if facts.elsewhere and not data:
        _hold_stray_settings(result, training, source)
    elif training.sets and facts.data_from and not data:
        result.notes.append(f"{facts.data_from} names the data set: {facts.data[0]}")
    _measure(result, training, settings_files, artefact is not None)
    if facts.packing is not False:
        # Packing makes fewer of them: of unknown settings the least is left.
        training.ranges = [] if facts.packing else [(low, ANY) for low, _ in training.ranges[:1]]
    if artefact:
        result.published |= artefact[2]
        compare(result)
    _check_losses(result, log)
    _check_writers(result, log)
    _check_end(result, log)
    if data and training.sets and not training.ranges and not facts.packing:
        result.notes.append(
            f"{data.path.name} could not be held against the log: its steps and epochs say no number "
            "of examples"
        )
    if training.ranges:
        check_data(result, training)
    check_claims(result, training, source)
    for data_set in training.sets:
        check_repeats(result, data_set)
    return result


def _hold_stray_settings(result: Result, training: AuditedTraining, source: AuditSource) -> None:
    """Settings whose output is another folder may be another training's: their data set is this one's
    where it fits the log; else one beside it that does; else none is known."""
    if training.facts.packing or not training.ranges or any(map(training.fits, training.sets)):
        return
    fitting = [s for s in data_beside(training.log.folder, (), source.files) if training.fits(s)]
    note = f"{training.facts.elsewhere}: it may be another training's"
    if fitting:
        note += f"; {' or '.join(data_set.path.name for data_set in fitting)} fits the log"
    elif training.sets:
        data = training.sets[0]
        note += f", and {data.path.name} with its {data.rows:,} rows does not fit the log"
    if fitting or training.sets:
        result.notes.append(note)
    training.sets = fitting


def _measure(
    result: Result, training: AuditedTraining, settings_files: Sequence[str], is_own: bool
) -> None:
    log, facts, ranges = training.log, training.facts, training.ranges
    losses = [loss for _, loss in log.losses if math.isfinite(loss)]
    result.metrics |= {
        "steps": log.step or None,
        "steps_planned": log.planned,
        "epochs": training.epochs,
        "logged_losses": len(log.losses),
        "last_loss": losses[-1] if losses else None,
    }
    if is_own:
        result.metrics["batch_size"] = facts.batches[0] * facts.accumulations[0]
    else:
        counts = {
            "batch_size": facts.batches,
            "accumulation": facts.accumulations,
            "devices": facts.devices,
        }
        result.metrics |= {name: values[0] for name, values in counts.items() if len(values) == 1}
    is_narrow = bool(ranges) and ranges[-1][1] <= WIDEST * ranges[0][0]
    if ranges:
        low, high = ranges[0][0], ranges[-1][1]
        if low == high:
            result.metrics["examples"] = low
        else:
            result.metrics["examples_lowest"] = low
            if is_narrow:
                result.metrics["examples_highest"] = high
    if len(training.sets) == 1:
        result.metrics["rows"] = training.sets[0].rows
        result.material.data = str(training.sets[0].path.resolve())
    if facts.packing:
        result.notes.append("examples were packed together, so steps count none")
    elif ranges and facts.packing is None:
        result.notes.append(
            "no file beside the log says whether examples were packed; if not, an epoch had "
            f"{ranges_text(ranges if is_narrow else [(ranges[0][0], ANY)])} of them"
        )
    files = [*settings_files, *([log.counted_by] if log.counted_by else [])]
    if files:
        result.notes.append(f"settings were read from {', '.join(files)}")
    if log.runs > 1:
        result.notes.append(f"the log begins {log.runs} times; its last run was read")


def _check_losses(result: Result, log: Log) -> None:
    if not log.bad:
        return
    last = log.losses[-1][0] in log.bad
    result.mismatch(
        f"{len(log.bad)} of {len(log.losses)} logged losses are no numbers, the first at step "
        f"{log.bad[0]:,}" + (": the training diverged, and ended so" if last else ""),
        {
            "logged": len(log.losses),
            "not_numbers": len(log.bad),
            "first_step": log.bad[0],
            "at_the_end": last,
        },
        "error" if last else "warning",
    )


def _check_writers(result: Result, log: Log) -> None:
    if log.writers < 2:
        return
    many, often = WRITERS.get(log.writers, (str(log.writers), f"{log.writers} times"))
    count = len(log.losses)
    if log.is_mixed:
        counted = "losses"
        message = (
            "two processes or more wrote into this log: its steps, or their number in all, go back "
            f"and forth. All {count} losses are kept, and nothing here says which of them the model "
            "is of"
        )
    else:
        counted = "steps"
        message = (
            f"{many} processes wrote into this log: its {count} steps stand {often} in it, and of "
            "each one line was read. If these were two trainings, nothing here says which of them "
            "the model is of"
        )
    result.mismatch(message, {"writers": log.writers, counted: count}, "warning")


def _check_end(result: Result, log: Log) -> None:
    if log.planned is None or log.snapshot or not log.step:
        return
    left = log.planned - log.step
    # The last lines before the end may be due and not written.
    if left <= log.interval():
        return
    early = "; it kept a best checkpoint, so it may have been told to stop"
    result.mismatch(
        f"the training ended after {log.step:,} of {log.planned:,} planned steps "
        f"({100 * log.step / log.planned:.0f} %)" + (early if log.stops_early else ""),
        {"steps": log.step, "planned": log.planned, "missing": left},
        "info" if log.stops_early else "warning",
    )


def _audit_data(
    data: TrainingData, about: Sequence[Count] = (), name_count: Count | None = None
) -> Result:
    """A data set that no log was found of, against what is claimed of it."""
    result = Result(str(data.path), DATA_KIND)
    result.metrics |= {
        "rows": data.rows,
        "empty_rows": data.empty,
        "different_rows": data.different,
    }
    result.material.data = str(data.path.resolve())
    training = AuditedTraining(Log([data.path]), _NOTHING, sets=[data])
    of_name = [name_count] if name_count else []
    claimed = [*about, *of_name]
    if len({c.low for c in claimed}) == 1:
        result.published["rows"] = int(claimed[0].low)
        result.matches = may_be_true(claimed[0], training, [])
        result.digits["rows"] = 0 if result.matches else -1
    for counts in (about, of_name):
        if counts and not any(may_be_true(c, training, []) for c in counts):
            severity: Severity = "error" if counts is about else "warning"
            claim_finding(result, counts[0], training, severity)
    check_repeats(result, data)
    return result


def _data_in(paths: Iterable[Path]) -> Iterator[TrainingData]:
    """The training data among files."""
    for path in paths:
        if path.suffix.lower() in SUFFIXES and not NOT_DATA.search(path.name):
            try:
                yield read_training_data(path)
            except (Unreadable, OSError):
                continue


_NOTHING = TrainingFacts((), (), (), None, None, None, None, (), (), ())


def _only_name(source: AuditSource) -> Count | None:
    """The count that folders below the path have in their names, where there is but one."""
    folders = {path.parent for path in source.files} | {source.root}
    name_counts = [count_in_name(folder, source.root) for folder in folders]
    counts = {count.low: count for count in name_counts if count}
    return next(iter(counts.values())) if len(counts) == 1 else None


def _linked_data(source: AuditSource, audited_paths: set[object]) -> list[Result]:
    """Data sets that a line of a README's table links to, with their number of rows."""
    claims: dict[Path, list[Count]] = {}
    for readme in (p for p in source.files if p.name.lower() == "readme.md"):
        for line in read_claims(readme, source)[0]:
            count = count_in(line)
            for link in line.links if count else ():
                target = readme.parent / link
                if target in source.files and count:
                    claims.setdefault(target, []).append(count)
    return [
        _audit_data(data, claims[data.path])
        for data in _data_in(sorted(claims))
        if str(data.path.resolve()) not in audited_paths
    ]


READER = Reader(
    "trainer_logs",
    looks_for=(
        "trainings' logs (trainer_state.json, trainer_log.jsonl), and data sets (instruction and "
        "output, messages), alone or where a README's table links to them"
    ),
    findings=frozenset({"count_mismatch"}),
    find=find,
)
