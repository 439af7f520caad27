"""The log of one training: transformers' trainer_state.json and summaries, LLaMA-Factory's and this
harness's trainer_log.jsonl."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.audit.parse.files import JsonObject, Unreadable, number, read_json, read_lines

STATE, LINES = "trainer_state.json", "trainer_log.jsonl"
SUMMARIES = ("train_results.json", "all_results.json")
DOUBLED = 0.8
"""From this share of steps that stand more than once in a log on, several processes wrote it."""
NONE: Mapping[Path, str] = {}
_CHECKPOINT = re.compile(r"^checkpoint-\d+$")


@dataclass
class Log:
    """One training's log. `files`: those it was read from, the main one first.

    progress: (step, epoch) lines; planned: optimizer steps that were to be made; epochs: those that
    were to be made, rounded up; batch: examples of one micro-batch, of all devices of one process;
    runtime, per_second, steps_per_second: the trainer's own summary; examples: its own count;
    accumulation, total_batch: a step's, as the trainer printed them; counted_by: the console's log that
    has these; losses: (step, loss); bad: steps whose loss is no number; snapshot: a checkpoint's,
    which says nothing of the training's end.
    """

    files: list[Path]
    progress: list[tuple[int, float]] = field(default_factory=list)
    planned: int | None = None
    epochs: float | None = None
    batch: float | None = None
    runtime: float | None = None
    per_second: float | None = None
    steps_per_second: float | None = None
    examples: int | None = None
    accumulation: int | None = None
    total_batch: int | None = None
    counted_by: str = ""
    losses: list[tuple[int, float]] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    has_held_out: bool = False
    stops_early: bool = False
    """Whether the trainer kept a best checkpoint, so may have been told to stop early."""
    snapshot: bool = False
    runs: int = 1
    """How often the log begins anew."""
    writers: int = 1
    """How many processes wrote into the log at once."""
    is_mixed: bool = False
    """Whether they wrote lines of different steps, which are all kept."""

    @property
    def folder(self) -> Path:
        return self.files[0].parent

    @property
    def step(self) -> int:
        return max((step for step, _ in self.progress), default=0)

    def interval(self) -> int:
        """Steps between two lines, at most; the first line is one interval after the beginning."""
        steps = [0, *sorted({step for step, _ in self.progress})]
        return max((b - a for a, b in itertools.pairwise(steps)), default=1)


def read_logs(
    files: Sequence[Path], other_names: Mapping[Path, str] = NONE
) -> Iterator[tuple[Path, Log | str]]:
    """Of each folder with logs: its log, or why there is none. Of several checkpoints without a log
    above them, the last one's.

    other_names: files that are called otherwise, and which of STATE and LINES each is. Each is a log
    by itself, but for a folder's only ones.
    """
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        if path.name in (STATE, LINES, *SUMMARIES):
            by_folder.setdefault(path.parent, []).append(path)
    beside = Counter((path.parent, role) for path, role in other_names.items())
    several = {folder for (folder, _), count in beside.items() if count > 1} | by_folder.keys()
    for path in other_names:
        by_folder.setdefault(path if path.parent in several else path.parent, []).append(path)
    snapshots: dict[Path, list[Path]] = {}
    for folder in list(by_folder):
        if _CHECKPOINT.match(folder.name):
            snapshots.setdefault(folder.parent, []).append(folder)
    for parent, folders in snapshots.items():
        above = {p.name for p in by_folder.get(parent, ())} & {STATE, LINES}
        folders.sort(key=lambda folder: int(folder.name.removeprefix("checkpoint-")))
        for folder in folders if above else folders[:-1]:
            del by_folder[folder]
    for folder, paths in sorted(by_folder.items()):
        names = {other_names.get(p, p.name): p for p in paths}
        if STATE not in names and LINES not in names:
            continue
        roles = [n for n in (STATE, LINES, *SUMMARIES) if n in names]
        ordered = [names[n] for n in roles]
        try:
            log = Log(ordered, snapshot=_CHECKPOINT.match(folder.name) is not None)
            for path, role in zip(ordered, roles, strict=True):
                _read(log, path, role)
        except Unreadable as e:
            yield path, str(e)
            continue
        if log.progress or log.planned:
            yield ordered[0], log
        else:
            yield ordered[0], "it has no steps"


def _read(log: Log, path: Path, role: str) -> None:
    if role == LINES:
        _read_lines(log, path)
        return
    value = read_json(path)
    if role == STATE and isinstance(value, list):
        value = {"log_history": value}
    if not isinstance(value, dict):
        raise Unreadable("it is no object")
    if role == STATE:
        _read_state(log, JsonObject(value))
    else:
        _summary(log, JsonObject(value))


def _read_state(log: Log, state: JsonObject) -> None:
    if not isinstance(state.get("log_history"), list):
        raise Unreadable("it has no log_history")
    for line in state.objects("log_history"):
        _line(log, line, "step")
    step, epoch = _step(state, "global_step"), state.number("epoch")
    if step and epoch:
        log.progress.append((step, epoch))
    log.planned = _step(state, "max_steps") or log.planned
    # Without a length the trainer has a huge number of epochs.
    epochs, batch = state.number("num_train_epochs"), state.number("train_batch_size")
    if epochs and 0 < epochs < 1e6:
        log.epochs = epochs
    if batch and batch >= 1:
        log.batch = batch
    log.stops_early = state.get("best_metric") is not None


def _read_lines(log: Log, path: Path) -> None:
    """A line that an interrupted run left unfinished at the end is no fault. Lines of a prediction,
    which count its batches as steps, are left out."""
    values = read_lines(path, may_be_cut=True)
    entries = [JsonObject(value) for value in values if isinstance(value, dict)]
    of_training = ("epoch", "loss", "eval_loss", "held_out_loss")
    training = [v for v in entries if any(v.get(name) is not None for name in of_training)]
    if entries and not training:
        if log.progress:
            return
        raise Unreadable("it is the log of a prediction: its lines have no epoch and no loss")
    entries, log.writers = _one_writers(training)
    if log.writers == 1 and _goes_back_often(training):
        # Their steps differ, so all lines are kept.
        log.writers, log.is_mixed = 2, True
        entries = sorted(training, key=lambda line: _step_of(line) or 0.0)
    last = -1.0
    lines_log = Log(log.files)
    for line in entries:
        step = _step_of(line)
        if step is not None and step < last:
            lines_log = Log(log.files, runs=lines_log.runs + 1)
        last = step if step is not None else last
        _line(lines_log, line, "current_steps" if "current_steps" in line else "step")
        lines_log.planned = _step(line, "total_steps") or lines_log.planned
    log.runs = lines_log.runs
    log.planned = log.planned or lines_log.planned
    log.has_held_out |= lines_log.has_held_out
    # trainer_state.json has the same lines, with more digits.
    if not log.progress:
        log.progress, log.losses, log.bad = lines_log.progress, lines_log.losses, lines_log.bad


def _goes_back_often(lines: Sequence[JsonObject]) -> bool:
    """Two processes with steps of their own: the log goes back again and again, or its number of steps
    in all changes to and fro. One that is gone on with goes back once each time, to the same number."""
    steps = [s for line in lines if (s := _step_of(line)) is not None]
    totals = [t for line in lines if (t := line.number("total_steps")) is not None]
    back = sum(b < a for a, b in itertools.pairwise(steps))
    changes = sum(a != b for a, b in itertools.pairwise(totals))
    return back > max(2, len(steps) / 5) or changes > max(2, len(totals) / 5)


def _one_writers(lines: list[JsonObject]) -> tuple[list[JsonObject], int]:
    """The lines with one loss of each step, and how many processes wrote them; all of them, and 1,
    where it was one.

    A log that begins anew has its steps twice as well, but goes back no more often than a step stands
    in it.
    """
    steps = [_step_of(line) for line in lines]
    losses = [s for s, line in zip(steps, lines, strict=True) if s and line.get("loss") is not None]
    times = Counter(losses)
    back = sum(b <= a for a, b in itertools.pairwise(losses))
    writers = Counter(times.values()).most_common(1)[0][0] if times else 1
    doubled = sum(n > 1 for n in times.values())
    if writers < 2 or doubled < DOUBLED * len(times) or back <= max(2, writers, len(losses) / 10):
        return lines, 1
    once: dict[tuple[float, int], JsonObject] = {}
    for place, (step, line) in enumerate(zip(steps, lines, strict=True)):
        # Other lines come after the loss of their step, each in its place.
        key = (step or 0.0, 0 if line.get("loss") is not None else place + 1)
        # Of a writer that lags, the epochs are behind its steps.
        if key not in once or _epoch(line) > _epoch(once[key]):
            once[key] = line
    return [once[key] for key in sorted(once)], writers


def _epoch(line: JsonObject) -> float:
    return line.number("epoch") or 0.0


def _step_of(line: JsonObject) -> float | None:
    return number(line.get("current_steps", line.get("step")))


def _step(values: JsonObject, name: str) -> int | None:
    """A number of steps that can be one."""
    value = values.number(name)
    is_step = value is not None and 1 <= value < 1e12 and value == int(value)
    return int(value) if value is not None and is_step else None


def _line(log: Log, line: JsonObject, step_name: str) -> None:
    step, epoch = _step(line, step_name), line.number("epoch")
    if step is None:
        return
    if epoch is not None:
        log.progress.append((step, epoch))
    if line.get("loss") is not None:
        loss = line.number("loss")
        vanished = loss == 0 and "grad_norm" in line and line.number("grad_norm") is None
        if loss is None or vanished:
            log.bad.append(step)
        log.losses.append((step, math.nan if loss is None else loss))
    log.has_held_out |= any(n in line for n in ("eval_loss", "eval_runtime", "held_out_loss"))
    _summary(log, line)


def _summary(log: Log, summary: JsonObject) -> None:
    runtime, rate = summary.number("train_runtime"), summary.number("train_samples_per_second")
    if runtime and rate and runtime > 0 and rate > 0:
        log.runtime, log.per_second = runtime, rate
        log.steps_per_second = summary.number("train_steps_per_second")
    examples = summary.number("train_samples")
    if examples and examples >= 1:
        log.examples = int(examples)
